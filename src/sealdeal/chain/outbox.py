"""Transactions on their way, kept where a crash can't lose them: one small file each.

A signed transaction is written here, and synced, before it is sent. After a crash the same bytes are sent
again, so that one intent never becomes two transactions.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealdeal.model.errors import ChainError, InvalidInput
from sealdeal.model.types import Address, hexstr, keccak, unhex

KEPT = 30 * 24 * 3600
"""Seconds that a finished intent is remembered."""


@dataclass
class Entry:
    """One intent and the transaction that carries it; bumped ones share the nonce, so one at most counts."""

    sender: Address
    chain_id: int
    intent: bytes
    named: bool
    """The caller named the intent; else it is a name made up to survive a crash, forgotten once mined."""
    nonce: int
    raws: list[bytes] = field(default_factory=list)
    """Signed transactions of this nonce, the latest last."""
    mined: bytes | None = None
    """The hash that succeeded."""

    @property
    def hashes(self) -> list[bytes]:
        return [keccak(raw) for raw in self.raws]

    def to_json(self) -> dict[str, Any]:
        return {
            "sender": self.sender,
            "chainId": self.chain_id,
            "intent": hexstr(self.intent),
            "named": self.named,
            "nonce": self.nonce,
            "raws": [hexstr(raw) for raw in self.raws],
            "mined": hexstr(self.mined) if self.mined else None,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Entry:
        return cls(
            Address(found["sender"]),
            found["chainId"],
            unhex(found["intent"]),
            found["named"],
            found["nonce"],
            [unhex(raw) for raw in found["raws"]],
            unhex(found["mined"]) if found["mined"] else None,
        )


class Outbox:
    """The entries of one sender on one chain, in `folder`, or in memory only when it is None."""

    def __init__(self, folder: Path | None, sender: Address, chain_id: int) -> None:
        self._folder = folder
        self._start = f"{chain_id}-{sender.lower()}-"
        self.entries: dict[bytes, Entry] = {}
        if folder:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in folder.glob(f"{self._start}*.json"):
                try:
                    entry = Entry.from_json(json.loads(path.read_text()))
                except (ValueError, KeyError, TypeError, InvalidInput):
                    raise ChainError(
                        f"expected a transaction in {path}, got something unreadable; before you move it "
                        f"away, see that no transaction of {sender} is missing"
                    ) from None
                if entry.mined and time.time() - path.stat().st_mtime > KEPT:
                    path.unlink()
                else:
                    self.entries[entry.intent] = entry

    def _path(self, entry: Entry) -> Path | None:
        return self._folder / f"{self._start}{keccak(entry.intent)[:16].hex()}.json" if self._folder else None

    def write(self, entry: Entry) -> None:
        """Keep the entry. It is on the disk when this returns."""
        self.entries[entry.intent] = entry
        if path := self._path(entry):
            draft = path.with_suffix(".new")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(entry.to_json(), file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def remove(self, entry: Entry) -> None:
        """Forget the entry: its transaction can't be mined any more, or failed, or nobody will ask for it."""
        if self.entries.get(entry.intent) is not entry:
            return  # another waiter has replaced it already
        del self.entries[entry.intent]
        if path := self._path(entry):
            path.unlink(missing_ok=True)
