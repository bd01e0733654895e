"""An owner's own copies of secrets, in files that only the owner's wallet opens.

SMS nodes never give a secret back, not even to its owner: who wants to move it to other nodes one day must
have kept it. A copy is encrypted (AES-256-GCM) under a key that follows from the wallet's key.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound
from sealdeal.model.evidence import canonical_json
from sealdeal.model.keys import Key
from sealdeal.model.types import hexstr, unhex

from .custody import SecretId

_PURPOSE = b"sealdeal owner's copies 1"


class Vault:
    """A folder of such copies, one file for each secret."""

    def __init__(self, folder: Path, owner: Key) -> None:
        self.folder = folder
        self._aead = AESGCM(HKDF(SHA256(), 32, None, _PURPOSE).derive(owner.secret))

    def path(self, secret: SecretId) -> Path:
        """Where the copy of a secret lies, or would."""
        name = hashlib.sha256(secret.name.encode()).hexdigest()[:16]
        return self.folder / f"{secret.kind}-{secret.subject}-{name}.json"

    def keep(self, secret: SecretId, value: bytes) -> Path:
        """Write a copy (mode 0600, in one step), in place of an older one."""
        nonce = secrets.token_bytes(12)
        sealed = nonce + self._aead.encrypt(nonce, value, _context(secret))
        members = {"version": 1, **_members(secret), "sealed": hexstr(sealed)}
        path = self.path(secret)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(members, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return path

    def get(self, secret: SecretId) -> bytes:
        """The value. Raises NotFound without a copy, IntegrityError for one of another wallet, or altered."""
        path = self.path(secret)
        try:
            sealed = unhex(json.loads(path.read_text())["sealed"])
            return self._aead.decrypt(sealed[:12], sealed[12:], _context(secret))
        except FileNotFoundError:
            raise NotFound(
                f"there is no copy of the {secret} in {self.folder}, and nodes give none back: give the value"
            ) from None
        except (ValueError, KeyError, TypeError, InvalidInput, InvalidTag):
            raise IntegrityError(
                f"{path} does not open: it is another wallet's copy, or was altered"
            ) from None


def _members(secret: SecretId) -> dict[str, str]:
    return {"kind": secret.kind.value, "subject": secret.subject, "name": secret.name}


def _context(secret: SecretId) -> bytes:
    """What a ciphertext belongs to: copies can't be exchanged."""
    return _PURPOSE + canonical_json(_members(secret))
