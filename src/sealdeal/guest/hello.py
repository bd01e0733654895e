"""What a worker tells a guest at the start. The guest believes none of it: it goes into the manifest, which
every SMS node compares with the chain.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Self

from sealdeal.model.deals import Assignment, Deal
from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import Manifest
from sealdeal.model.types import Address, Bytes32, hexstr, unhex

VERSION = 1


PROMISED_BYTES, PROMISED_FILES = 256 << 20, 1000
"""What every app may leave as its output. A worker may allow more; whoever allows less cannot call more than
that an app's fault."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run. The worker's machine enforces what it can; the guest the rest."""

    seconds: int
    """Wall time of the app: the category's reference time."""
    output_bytes: int = PROMISED_BYTES
    """Of all files in /iexec_out together."""
    output_files: int = PROMISED_FILES
    log_bytes: int = 1 << 20
    """Kept of each of the app's standard output and error."""
    image_bytes: int = 2 << 30
    """Of the app's image, unpacked."""
    dataset_bytes: int = 2 << 30
    temporary_bytes: int = 64 << 20
    """Of the app's /tmp, and of its /dev/shm."""

    @property
    def as_promised(self) -> bool:
        """Whether an output over these limits is the app's own doing."""
        return self.output_bytes >= PROMISED_BYTES and self.output_files >= PROMISED_FILES


@dataclass(frozen=True, slots=True)
class Hello:
    """One attempt at one task, as the worker sees it at its final block."""

    version: int
    chain_id: int
    hub: Address
    quorum: Address
    nodes: tuple[Address, ...]
    threshold: int
    deal: Deal
    index: int
    """Absolute index of the task in its request."""
    worker: Address
    attempt: int
    app_multiaddr: str
    app_checksum: Bytes32
    dataset_multiaddr: str
    dataset_checksum: Bytes32
    assignment: Assignment
    signature: bytes
    """The pool owner's, of the assignment."""
    limits: Limits

    def manifest(self, result_key: str) -> Manifest:
        """The manifest, once the beneficiary's key (or its absence: empty) is known."""
        return Manifest.of(
            chain_id=self.chain_id,
            hub=self.hub,
            quorum=self.quorum,
            deal=self.deal,
            task_index=self.index,
            worker=self.worker,
            attempt=self.attempt,
            app_multiaddr=self.app_multiaddr,
            app_checksum=self.app_checksum,
            dataset_multiaddr=self.dataset_multiaddr,
            dataset_checksum=self.dataset_checksum,
            result_key=result_key,
            nodes=self.nodes,
            threshold=self.threshold,
        )

    def to_json(self) -> dict[str, Any]:
        """Members named as the fields; bytes are 0x hexadecimal."""
        return typing.cast(dict[str, Any], _plain(self))

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises InvalidInput naming the member at fault."""
        if not isinstance(value, dict) or value.get("version") != VERSION:
            raise InvalidInput(
                f"expected a hello of version {VERSION}; worker and guest are of different releases"
            )
        return typing.cast(Self, _read(cls, value, "hello"))


def _plain(value: Any) -> Any:
    if isinstance(value, Assignment):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return hexstr(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _read(kind: Any, value: Any, where: str) -> Any:
    try:
        if kind is Assignment:
            return Assignment.from_json(value)
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            hints = typing.get_type_hints(kind)
            return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})  # type: ignore[operator]
        if kind is bytes and isinstance(value, str):
            return unhex(value)
        if typing.get_origin(kind) is tuple and isinstance(value, list):
            return tuple(_read(typing.get_args(kind)[0], v, where) for v in value)
        if kind is Address:
            kind = str
        if isinstance(kind, type) and type(value) is kind:
            return value
    except KeyError as missing:
        raise InvalidInput(f"{where} lacks {missing}") from None
    raise InvalidInput(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r:.80}")
