"""Where a result store keeps content, from the words of a setting."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from sealdeal.model.errors import InvalidInput

from .blobs import Blobs, FolderStore
from .nodes import NodeStore

FORMS = "a folder, s3://BUCKET/PREFIX?endpoint=URL&region=NAME, or ipfs+http://HOST:5001"


def open_blobs(place: str, folder: Path) -> Blobs:
    """The store of content at `place`; `folder` itself when it names none. Raises InvalidInput.

    A bucket's credentials are not in `place` but where AWS's tools have them. Uploads to it wait in `folder`.
    """
    kind, separated, _ = place.partition("://")
    if not separated:
        return FolderStore(Path(place) if place else folder)
    parts = urlsplit(place)
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if kind == "s3" and parts.hostname and not parts.username and given.keys() <= {"endpoint", "region"}:
        from .buckets import BucketStore  # its library is for those who use it

        return BucketStore(parts.netloc, parts.path, folder, **given)
    if kind in ("ipfs+http", "ipfs+https") and parts.hostname and not parts.query:
        return NodeStore(place.removeprefix("ipfs+"))
    if kind == "dropbox":
        raise InvalidInput(f"expected {FORMS}: results are not kept at Dropbox")
    raise InvalidInput(f"expected {FORMS}; got {place[:100]!r}")
