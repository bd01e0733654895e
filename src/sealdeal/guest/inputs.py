"""What goes into the app: its image, its data, its files. All verified before the app sees a byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sealdeal.model.errors import IntegrityError, InvalidInput, SealdealError, TooLarge
from sealdeal.model.images import ImageReader, Process
from sealdeal.model.sealing import decrypt_dataset
from sealdeal.model.types import hexstr

from .failures import Failure
from .hello import Hello
from .stream import BrokenStream, Channel, Refused
from .unpack import unpack_image

_PIECE = 1 << 20


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


def fetch_dataset(channel: Channel, hello: Hello, place: Path) -> None:
    """Write the dataset, as it lies in its store, to `place`: equal to the chain's checksum.

    Without a TEE a checksum of zero promises nothing, and is not compared (wire.md §5.1).
    """
    digest = _fetch(
        channel, "dataset", place, hello.limits.dataset_bytes, "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"
    )
    promised = hello.deal.tee or any(hello.dataset_checksum)
    if promised and digest != hello.dataset_checksum:
        raise Failure(
            "PRE_COMPUTE_INVALID_DATASET_CHECKSUM",
            f"dataset {hello.deal.dataset.pointer}: expected sha256 {hexstr(hello.dataset_checksum)} as on "
            f"chain, got {hexstr(digest)}: the file was changed after it was protected",
        )


def open_dataset(encrypted: Path, plain: Path, key: bytes) -> None:
    """Decrypt a checked dataset into the app's folder, and drop the encrypted file."""
    try:
        with plain.open("xb") as out:
            for piece in decrypt_dataset(_pieces(encrypted), key.decode("ascii")):
                out.write(piece)
    except (IntegrityError, InvalidInput, UnicodeDecodeError) as error:
        raise Failure("PRE_COMPUTE_DATASET_DECRYPTION_FAILED", str(error)) from None
    except OSError as error:
        raise Failure(
            "PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED", f"no room for the dataset: {error}"
        ) from None
    encrypted.unlink()


def input_name(url: str) -> str:
    """The name of an input file in the app's folder: 0x and the sha256 of its URL (wire.md §5.2)."""
    return "0x" + hashlib.sha256(url.encode()).hexdigest()


def fetch_input(channel: Channel, number: int, url: str, folder: Path, limit: int) -> None:
    """Write the requester's input file `number` (from 1) into the app's folder."""
    _fetch(
        channel, f"input/{number}", folder / input_name(url), limit, "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
    )


def _fetch(channel: Channel, name: str, place: Path, limit: int, cause: str) -> bytes:
    digest, left = hashlib.sha256(), limit
    try:
        call = channel.call("fetch", name=name)
        call.answer()
        with place.open("xb") as out:
            while piece := call.read():
                left -= len(piece)
                if left < 0:
                    raise TooLarge(f"{name} has more than the {limit} bytes accepted here")
                digest.update(piece)
                out.write(piece)
    except (Refused, TooLarge, OSError) as error:
        raise Failure(cause, f"{name}: {error}") from None
    return digest.digest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE):
            yield piece
