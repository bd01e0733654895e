"""A key that pays: transactions it signs, and the encrypted file it sleeps in.

Transactions: EIP-1559 (type 2). Files: Web3 Secret Storage version 3, which every Ethereum wallet reads
(https://ethereum.org/developers/docs/data-structures-and-encoding/web3-secret-storage).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sealdeal.model.errors import Conflict, InvalidInput, NotFound
from sealdeal.model.keys import Key
from sealdeal.model.types import Address, Bytes32, address, address_bytes, hexstr, keccak, unhex

from .errors import KeystoreError

SCRYPT_N = 2**18
"""Cost of guessing a password: about 1 s and 256 MiB each (the value other wallets use)."""

_MAX_SCRYPT = 2**30  # bytes; a hostile file must not take the machine's memory


@dataclass(frozen=True)
class Transaction:
    """An EIP-1559 transaction, unsigned. Fees are wei per gas; `to` is None for a deployment."""

    chain_id: int
    nonce: int
    max_priority_fee: int
    max_fee: int
    gas: int
    to: Address | None
    value: int
    data: bytes

    def fields(self) -> list[Any]:
        """The list that is signed (EIP-1559), with an empty access list."""
        to = address_bytes(self.to) if self.to else b""
        fees = [self.max_priority_fee, self.max_fee]
        return [self.chain_id, self.nonce, *fees, self.gas, to, self.value, self.data, []]


def rlp(item: bytes | int | Sequence[Any]) -> bytes:
    """Recursive length prefix, the encoding of transactions."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < 0x80 else _prefix(0x80, len(item)) + item
    body = b"".join(map(rlp, item))
    return _prefix(0xC0, len(body)) + body


def _prefix(base: int, size: int) -> bytes:
    if size < 56:
        return bytes([base + size])
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(length)]) + length


def create_address(deployer: Address, nonce: int) -> Address:
    """The address of the contract that `deployer` creates with the transaction of that nonce."""
    return address(keccak(rlp([address_bytes(deployer), nonce]))[12:])


class Wallet:
    """A key that signs transactions."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.address = key.address

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    def sign_digest(self, digest: Bytes32) -> bytes:
        """The key's signature, 65 bytes."""
        return self.key.sign_digest(digest)

    def sign_transaction(self, transaction: Transaction) -> bytes:
        """The raw bytes to send; their keccak is the transaction's hash."""
        fields = transaction.fields()
        signature = self.key.sign_digest(keccak(b"\x02" + rlp(fields)))
        r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
        return b"\x02" + rlp([*fields, signature[64] - 27, r, s])

    def save(self, path: Path, password: str, *, scrypt_n: int = SCRYPT_N, overwrite: bool = False) -> None:
        """Write the key, encrypted, to `path` (mode 0600, in one step). Raises Conflict if it is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(encrypt(self.key, password, scrypt_n=scrypt_n), file)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                draft.replace(path)
            else:
                os.link(draft, path)  # fails when the name is taken, even by another process just now
        except FileExistsError:
            raise Conflict(f"expected no file at {path}: a keystore is never overwritten unasked") from None
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, password: str) -> Wallet:
        """The wallet in a keystore file. Raises NotFound, or KeystoreError (not one, or wrong password)."""
        try:
            text = path.read_text()
        except FileNotFoundError:
            raise NotFound(
                f"expected a keystore at {path}; create one with `sealdeal wallet create`"
            ) from None
        except (OSError, UnicodeDecodeError) as failed:
            raise KeystoreError(f"cannot read the keystore {path}: {failed}") from None
        try:
            return cls(decrypt(json.loads(text), password))
        except json.JSONDecodeError:
            raise KeystoreError(f"expected a V3 keystore (JSON) in {path}, got other text") from None
        except KeystoreError as wrong:
            raise KeystoreError(f"{path}: {wrong}") from None


def encrypt(key: Key, password: str, *, scrypt_n: int = SCRYPT_N) -> dict[str, Any]:
    """The V3 keystore of a key. `scrypt_n`: a power of two; small ones are for tests only."""
    salt, iv = secrets.token_bytes(32), secrets.token_bytes(16)
    derived = hashlib.scrypt(password.encode(), salt=salt, n=scrypt_n, r=8, p=1, maxmem=_MAX_SCRYPT, dklen=32)
    ciphertext = _aes_ctr(derived[:16], iv, key.secret)
    return {
        "version": 3,
        "id": str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
        "address": key.address[2:].lower(),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "scrypt",
            "kdfparams": {"n": scrypt_n, "r": 8, "p": 1, "dklen": 32, "salt": salt.hex()},
            "mac": keccak(derived[16:] + ciphertext).hex(),
        },
    }


def decrypt(keystore: Any, password: str) -> Key:
    """The key in a V3 keystore (scrypt or PBKDF2). Raises KeystoreError."""
    try:
        crypto = keystore.get("crypto") or keystore["Crypto"]
        if keystore["version"] != 3 or crypto["cipher"] != "aes-128-ctr":
            raise KeystoreError("expected a keystore of version 3 with aes-128-ctr")
        derived = _derive(crypto["kdf"], crypto["kdfparams"], password)
        iv, ciphertext, mac = (
            unhex(crypto["cipherparams"]["iv"]),
            unhex(crypto["ciphertext"]),
            unhex(crypto["mac"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError, InvalidInput) as wrong:
        if isinstance(wrong, KeystoreError):
            raise
        raise KeystoreError(f"expected a V3 keystore, got one that lacks or garbles {wrong}") from None
    if not hmac.compare_digest(keccak(derived[16:32] + ciphertext), mac):
        raise KeystoreError("wrong password (or a damaged keystore)")
    key = Key(_aes_ctr(derived[:16], iv, ciphertext))
    named = keystore.get("address")
    if named and address(named) != key.address:
        raise KeystoreError(f"the keystore says it holds {hexstr(unhex(named))} and holds {key.address}")
    return key


def _derive(kdf: str, params: dict[str, Any], password: str) -> bytes:
    salt, size = unhex(params["salt"]), int(params["dklen"])
    if not 32 <= size <= 64:
        raise KeystoreError(f"expected a dklen from 32 to 64, got {size}")
    if kdf == "scrypt":
        cost = {name: int(params[name]) for name in ("n", "r", "p")}
        return hashlib.scrypt(password.encode(), salt=salt, **cost, maxmem=_MAX_SCRYPT, dklen=size)
    if kdf == "pbkdf2" and params["prf"] == "hmac-sha256" and int(params["c"]) <= 10_000_000:
        return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, int(params["c"]), size)
    raise KeystoreError(f"expected scrypt or pbkdf2 with hmac-sha256, got {kdf!r}")


def _aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    context = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return context.update(data) + context.finalize()
