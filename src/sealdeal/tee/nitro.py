"""Attestation documents of AWS Nitro: COSE_Sign1 over CBOR, under AWS's root. They bring their certificates.

The certificates live for hours, so a document also has to be recent. AWS publishes no revocation lists for
them. What the guest binds is in `user_data`; nonce and public key of a document are not used.
"""

from __future__ import annotations

from typing import Any

import cbor2

from sealdeal.model.evidence import (
    MAX_QUOTE_BYTES,
    NITRO,
    Claims,
    DebugEnabled,
    Evidence,
    NotAuthentic,
    StaleEvidence,
    TrustClass,
    UnknownKind,
)

from .certificates import MAX_PARTS, check_chain, check_ecdsa384, foreign, key_hash, load, load_root

ROOT = "f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225"
"""SHA-256 of the public key of AWS's root for Nitro enclaves."""
MAX_AGE = 300
"""Seconds for which a document counts."""
_CLOCK_SKEW = 60
_MAX_DEPTH = 4
_SIGN1 = 18
"""CBOR tag of a COSE_Sign1; the device leaves it out."""


class NitroDocument:
    """A document's parts, unchecked."""

    def __init__(self, quote: bytes) -> None:
        """Raises NotAuthentic for what is no such document."""
        self._parse(quote)

    @foreign
    def _parse(self, quote: bytes) -> None:
        if len(quote) > MAX_QUOTE_BYTES:
            raise NotAuthentic(f"expected a document of at most {MAX_QUOTE_BYTES} bytes, got {len(quote)}")
        outer = decode(quote)
        if not (isinstance(outer, list) and len(outer) == 4):
            raise NotAuthentic("expected a COSE_Sign1 of four members, got something else")
        self.protected, _, self.payload, self.signature = outer
        if decode(_bytes(self.protected, "header")) != {1: -35}:
            raise NotAuthentic("expected a document signed with ES384 (-35), got another algorithm")
        if len(_bytes(self.signature, "signature")) != 96:
            raise NotAuthentic(f"expected a signature of 96 bytes, got {len(self.signature)}")
        said = decode(_bytes(self.payload, "payload"))
        self.module_id: str = said["module_id"]
        self.digest: str = said["digest"]
        self.timestamp: int = said["timestamp"]
        """Unix time in milliseconds."""
        pcrs: dict[int, bytes] = said["pcrs"]
        self.registers = {
            f"pcr{index}": _bytes(value, f"PCR {index}")
            for index, value in sorted(pcrs.items())
            if type(index) is int and 0 <= index < 32
        }
        bound = said.get("user_data")
        self.user_data = b"" if bound is None else _bytes(bound, "user data")
        bundle = said["cabundle"]
        if not isinstance(bundle, list) or len(bundle) >= MAX_PARTS:
            raise NotAuthentic(f"expected a bundle of fewer than {MAX_PARTS} certificates")
        self.certificates = [_bytes(part, "certificate") for part in (said["certificate"], *reversed(bundle))]
        """Leaf first, DER."""
        sound = isinstance(self.module_id, str) and type(self.timestamp) is int
        if not sound or self.digest != "SHA384" or not {"pcr0", "pcr1", "pcr2"} <= set(self.registers):
            raise NotAuthentic("expected a module id, a time, SHA384 and PCR 0 to 2 in the document")


class NitroVerifier:
    """Evidence of kind `nitro` to Claims, under AWS's root or one of somebody's own."""

    kind = NITRO

    def __init__(self, root: bytes | None = None, *, max_age: int = MAX_AGE) -> None:
        """`root`: another root's certificate (PEM or DER); None is AWS's, which alone makes `trust` hardware.
        `max_age`: seconds for which a document counts.
        """
        self.trust = TrustClass.HARDWARE if root is None else TrustClass.SIMULATED
        self._root = ROOT if root is None else key_hash(load_root(root))
        self._max_age = max_age

    def verify(self, evidence: Evidence, now: int) -> Claims:
        """Authentic claims at unix time `now`, not yet judged.

        Raises UnknownKind, WrongRoot, CollateralExpired, StaleEvidence, DebugEnabled, NotAuthentic.
        """
        if evidence.kind != self.kind:
            raise UnknownKind(f"expected evidence of kind {self.kind}, got {evidence.kind!r}")
        return self._verify(evidence.quote, now)

    @foreign
    def _verify(self, quote: bytes, now: int) -> Claims:
        document = NitroDocument(quote)
        chain = [load(der) for der in document.certificates]
        until = check_chain(chain, frozenset([self._root]), now)
        r, s = (int.from_bytes(half, "big") for half in (document.signature[:48], document.signature[48:]))
        signed = cbor2.dumps(["Signature1", document.protected, b"", document.payload])
        check_ecdsa384(chain[0], r, s, signed)
        age = now - document.timestamp // 1000
        if not -_CLOCK_SKEW <= age <= self._max_age:
            raise StaleEvidence(
                f"expected a document of the last {self._max_age} seconds, got one that is {age} seconds old"
            )
        if not any(document.registers["pcr0"]):
            raise DebugEnabled(
                "expected an enclave without debug, got one that measures nothing (PCR 0 is 0)"
            )
        return Claims(
            tee="nitro",
            trust=self.trust,
            registers=document.registers,
            report_data=document.user_data,
            tcb_status="",
            advisories=(),
            debug=False,
            platform_id=document.module_id.partition("-enc")[0].encode(),
            valid_until=min(until, document.timestamp // 1000 + self._max_age),
            tcb_eval=0,
        )


# --- the part of CBOR that these documents use ----------------------------------------------------


@foreign
def decode(data: bytes) -> Any:
    """One value of definite lengths: integers, bytes, text, lists, maps, null, booleans; a COSE tag in front.

    Not cbor2's decoder, which gives strangers far more: it evaluates tags (regular expressions, dates, shared
    references) and nests without a limit. Raises NotAuthentic.
    """
    if data[:1] == bytes([0xC0 | _SIGN1]):
        data = data[1:]
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise NotAuthentic(f"expected one CBOR value, got {len(data) - end} bytes behind it")
    return value


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return {20: False, 21: True, 22: None}[info], at
    argument = info
    if info >= 24:
        size = {24: 1, 25: 2, 26: 4, 27: 8}[info]
        argument = int.from_bytes(_slice(data, at, size), "big")
        at += size
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major == 2:
        return _slice(data, at, argument), at + argument
    if major == 3:
        return _slice(data, at, argument).decode(), at + argument
    if major == 6 or depth == _MAX_DEPTH or argument > len(data) - at:
        raise NotAuthentic("expected CBOR of a document: shallow, complete, without tags inside")
    if major == 4:
        members = []
        for _ in range(argument):
            member, at = _item(data, at, depth + 1)
            members.append(member)
        return members, at
    entries: dict[Any, Any] = {}
    for _ in range(argument):
        key, at = _item(data, at, depth + 1)
        if type(key) not in (int, str) or key in entries:  # True would be 1
            raise NotAuthentic("expected different names or numbers as keys of a CBOR map")
        entries[key], at = _item(data, at, depth + 1)
    return entries, at


def _slice(data: bytes, at: int, size: int) -> bytes:
    if size > len(data) - at:
        raise NotAuthentic(f"expected {size} bytes of CBOR at {at}, got {len(data) - at}: it is cut short")
    return data[at : at + size]


def _bytes(value: Any, what: str) -> bytes:
    if not isinstance(value, bytes):
        raise NotAuthentic(f"expected bytes as {what} of the document, got {type(value).__name__}")
    return value
