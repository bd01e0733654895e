"""What goes into the app: its image, its data, its files. All verified before the app sees a byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealdeal.model.bulk import (
    MAX_DOCUMENT_BYTES,
    BulkDataset,
    BulkFault,
    Documents,
    bulk_datasets,
    check_named,
    told_slice,
)
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.errors import IntegrityError, InvalidInput, SealdealError, TooLarge
from sealdeal.model.images import ImageReader, Process
from sealdeal.model.streams import decrypt
from sealdeal.model.types import hexstr

from .failures import Failure
from .hello import Hello
from .stream import BrokenStream, Call, Channel, Refused
from .unpack import unpack_image

_BULK: Final = "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"


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


@dataclass(frozen=True, slots=True)
class Bulk:
    """The datasets of one task of a deal that names a bulk of them."""

    documents: Documents
    datasets: tuple[BulkDataset, ...]
    """Empty when the documents are wrong."""
    fault: str = ""
    """What is wrong with the documents, for everybody who reads them."""


def fetch_bulk(channel: Channel, hello: Hello) -> Bulk:
    """What the task's slice of the deal's bulk says, by documents that are the ones that the deal names."""
    cid = hello.deal.parsed_params.bulk_cid
    index = slice = b""
    try:
        check_named(cid)
        index = _document(channel, "bulk/index")
        told_slice(cid, index, hello.index)
        slice = _document(channel, "bulk/slice")
        documents = Documents(index, slice)
        orders = documents.orders(cid, hello.index)
    except BulkFault as wrong:
        return Bulk(Documents(index, slice), (), str(wrong))
    except InvalidInput as wrong:
        raise Failure(_BULK, f"the deal's bulk {cid:.100}: {wrong}") from None
    if len(hello.bulk) != len(orders):
        raise Failure(
            _BULK, f"expected word of {len(orders)} datasets from the worker, got {len(hello.bulk)}"
        )
    domain = hub_domain(hello.chain_id, hello.hub)
    places = [(place.multiaddr, place.checksum) for place in hello.bulk]
    return Bulk(documents, bulk_datasets(orders, domain, places))


def _document(channel: Channel, name: str) -> bytes:
    arriving = _Arriving(channel, name, MAX_DOCUMENT_BYTES, _BULK)
    return b"".join(arriving.pieces())


def fetch_one_of_many(
    channel: Channel, hello: Hello, number: int, dataset: BulkDataset, folder: Path, key: bytes | None
) -> bool:
    """Write dataset `number` (from 1) of the slice into the app's folder; whether it could be opened.

    One that its owner encrypted with another key than they gave away is left out: it is theirs to answer for,
    and the others' data are not. A file that did not come, or is not the one on chain, may be the worker's or
    the store's doing: that is a Failure, or a worker could choose what the app does not see.
    """
    place = folder / dataset.dataset
    if place.exists() or not dataset.somewhere:
        return place.exists()
    try:
        _write_dataset(
            channel,
            f"dataset/{number}",
            place,
            key,
            dataset.checksum,
            limit=hello.limits.dataset_bytes,
            promised=hello.deal.tee or any(dataset.checksum),
            who=dataset.dataset,
        )
    except Failure as failure:
        if failure.cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED":
            return False
        raise
    return True


def fetch_dataset(channel: Channel, hello: Hello, place: Path, key: bytes | None = None) -> None:
    """Write the dataset to `place`, where the app will see it: opened with `key`, or as it lies in its store.

    It is decrypted while it arrives, so that it takes its room once; a file that is not the one on chain is
    gone again before anything else happens. Without a TEE a checksum of zero promises nothing, and is not
    compared (wire.md §5.1).
    """
    _write_dataset(
        channel,
        "dataset",
        place,
        key,
        hello.dataset_checksum,
        limit=hello.limits.dataset_bytes,
        promised=hello.deal.tee or any(hello.dataset_checksum),
        who=hello.deal.dataset.pointer,
    )


def _write_dataset(
    channel: Channel,
    name: str,
    place: Path,
    key: bytes | None,
    checksum: bytes,
    *,
    limit: int,
    promised: bool,
    who: str,
) -> None:
    arriving = _Arriving(channel, name, limit, "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED")
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
        if promised and digest != checksum:
            raise Failure(
                "PRE_COMPUTE_INVALID_DATASET_CHECKSUM",
                f"dataset {who}: expected sha256 {hexstr(checksum)} as "
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
