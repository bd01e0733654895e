"""What goes into the app: its image, its data, its files. All verified before the app sees a byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sealdeal.model.errors import IntegrityError, InvalidInput, SealdealError, TooLarge
from sealdeal.model.images import ImageReader, Process
from sealdeal.model.streams import decrypt
from sealdeal.model.types import hexstr

from .failures import Failure
from .hello import Hello
from .stream import BrokenStream, Call, Channel, Refused
from .unpack import unpack_image


def fetch_image(channel: Channel, hello: Hello, root: Path) -> Process:
    """Unpack the app's image into `root` while it arrives, checked against the checksum on chain."""
    if not any(hello.app_checksum):
        raise Failure(
            "APP_IMAGE_DOWNLOAD_FAILED",
            "the app's checksum on chain is zero: it says nothing about the image, so no TEE can start it",
        )
    try:
        call = channel.call("fetch", name="image")
        call.answer()
        return unpack_image(ImageReader(call, hello.app_checksum, max_bytes=hello.limits.image_bytes), root)
    except BrokenStream:
        raise
    except (SealdealError, OSError) as error:
        raise Failure(
            "APP_IMAGE_DOWNLOAD_FAILED", f"the app's image {hello.app_multiaddr}: {error}"
        ) from None


def fetch_dataset(channel: Channel, hello: Hello, place: Path, key: bytes | None = None) -> None:
    """Write the dataset to `place`, where the app will see it: opened with `key`, or as it lies in its store.

    It is decrypted while it arrives, so that it takes its room once; a file that is not the one on chain is
    gone again before anything else happens. Without a TEE a checksum of zero promises nothing, and is not
    compared (wire.md §5.1).
    """
    arriving = _Arriving(
        channel, "dataset", hello.limits.dataset_bytes, "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"
    )
    wrong: SealdealError | UnicodeDecodeError | None = None
    try:
        with place.open("xb") as out:
            try:
                pieces = arriving.pieces() if key is None else decrypt(arriving.pieces(), key.decode("ascii"))
                for piece in pieces:
                    out.write(piece)
            except (IntegrityError, InvalidInput, TooLarge, UnicodeDecodeError) as error:
                wrong = error
        digest = arriving.finish()  # a changed file is named as that, whatever else is wrong with it
        promised = hello.deal.tee or any(hello.dataset_checksum)
        if promised and digest != hello.dataset_checksum:
            raise Failure(
                "PRE_COMPUTE_INVALID_DATASET_CHECKSUM",
                f"dataset {hello.deal.dataset.pointer}: expected sha256 {hexstr(hello.dataset_checksum)} as "
                f"on chain, got {hexstr(digest)}: the file was changed after it was protected",
            )
        if wrong is not None:
            raise Failure("PRE_COMPUTE_DATASET_DECRYPTION_FAILED", str(wrong))
    except OSError as error:
        raise Failure(
            "PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED", f"no room for the dataset: {error}"
        ) from None
    except Failure:
        place.unlink(missing_ok=True)
        raise


def input_name(url: str) -> str:
    """The name of an input file in the app's folder: 0x and the sha256 of its URL (wire.md §5.2)."""
    return "0x" + hashlib.sha256(url.encode()).hexdigest()


def fetch_input(channel: Channel, number: int, url: str, folder: Path, limit: int) -> None:
    """Write the requester's input file `number` (from 1) into the app's folder."""
    cause = "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
    arriving = _Arriving(channel, f"input/{number}", limit, cause)
    try:
        with (folder / input_name(url)).open("xb") as out:
            for piece in arriving.pieces():
                out.write(piece)
    except OSError as error:
        raise Failure(cause, f"no room for input file {number}: {error}") from None


class _Arriving:
    """A file on its way from the worker, in pieces. Everything wrong with the way is a Failure of `cause`."""

    def __init__(self, channel: Channel, name: str, limit: int, cause: str) -> None:
        self._channel, self._name, self._left, self._cause = channel, name, limit, cause
        self._limit, self._digest = limit, hashlib.sha256()
        self._call: Call | None = None

    def pieces(self) -> Iterator[bytes]:
        try:
            if self._call is None:
                self._call = self._channel.call("fetch", name=self._name)
                self._call.answer()
            while piece := self._call.read():
                self._left -= len(piece)
                if self._left < 0:
                    raise TooLarge(f"it has more than the {self._limit} bytes accepted here")
                self._digest.update(piece)
                yield piece
        except (Refused, TooLarge) as error:
            raise Failure(self._cause, f"{self._name}: {error}") from None

    def finish(self) -> bytes:
        """The sha256 of the whole file, of which the rest is read now and dropped."""
        for _ in self.pieces():
            pass
        return self._digest.digest()
