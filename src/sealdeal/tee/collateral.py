"""Vendors' collateral: what a verifier needs beside the evidence, from a service, a cache or a file.

Each SMS node has its own, so that no worker chooses which revocation list or TCB level it is judged by. What
is cached lasts as long as the vendor says and is fetched anew before; a source that then gives an older one
than before is refused. Nothing here is trusted: a verifier checks every byte against its pinned root.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import re
import urllib.parse
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dcap_qvl  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealdeal.model.errors import SealdealError, Unavailable
from sealdeal.model.evidence import (
    DCAP,
    MAX_COLLATERAL_BYTES,
    NITRO,
    SEV_SNP,
    CollateralExpired,
    CollateralRollback,
    Evidence,
    NotAuthentic,
    UnknownKind,
)

from .certificates import common_name, foreign, load, load_pem
from .sev import SevReport, key_product

INTEL_URL = "https://api.trustedservices.intel.com"
"""Intel's own service; a PCCS in the data centre speaks the same routes."""
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
AMD_URL = "https://kdsintf.amd.com"
"""AMD's key distribution server."""
REFRESH = 24 * 3600
"""Seconds after which collateral is fetched anew though still valid: new flaws are published at any time."""
RETRY = 60
"""Seconds between attempts while a vendor does not answer and what is held still counts."""
MAX_ENTRIES = 64
"""How many platforms' collateral a cache holds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered to a GET."""

    body: bytes
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Names in lower case."""


Get = Callable[[str], Awaitable[Answer]]
"""A GET of a URL: raises a SealdealError when it does not answer with 200. `sealdeal.sdk.vendors` has one."""


@dataclass(frozen=True, slots=True)
class Need:
    """Which collateral evidence calls for: read from it, and not verified."""

    kind: str
    name: str
    """Of the cache's entry: letters, digits and '-'."""
    evidence: Evidence
    details: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Source(Protocol):
    """Where collateral comes from."""

    async def fetch(self, need: Need, now: int) -> bytes:
        """Collateral for `need` at unix time `now`. Raises Unavailable."""
        ...


@foreign
def need_of(evidence: Evidence) -> Need | None:
    """What collateral this evidence needs; None for a kind that brings everything along (Nitro).

    Raises NotAuthentic for evidence that cannot be read, UnknownKind.
    """
    if evidence.kind == NITRO:
        return None
    if evidence.kind == DCAP:
        quote = dcap_qvl.Quote.parse(evidence.quote)
        tee, fmspc, authority = str(quote.quote_type()).lower(), str(quote.fmspc()).upper(), str(quote.ca())
        if tee not in ("tdx", "sgx") or not re.fullmatch("[0-9A-F]{12}", fmspc):
            raise NotAuthentic(f"expected a TDX or SGX quote with an FMSPC, got {tee[:20]} {fmspc[:20]}")
        if authority not in ("platform", "processor"):
            raise NotAuthentic(f"expected a PCK of Intel's platform or processor CA, got {authority[:40]}")
        details = {"tee": tee, "fmspc": fmspc, "authority": authority}
        return Need(DCAP, f"dcap-{tee}-{authority}-{fmspc}", evidence, details)
    if evidence.kind != SEV_SNP:
        raise UnknownKind(f"expected evidence of kind {DCAP}, {SEV_SNP} or {NITRO}, got {evidence.kind!r}")
    report = SevReport.parse(evidence.quote)
    key = "vlek" if report.signing_key == 1 else "vcek"
    carried, _ = load_pem(evidence.collateral or b"")
    if carried:  # the chip's certificate came along, and has to be signed like any other
        product = key_product(carried[0])
        name = f"sev-snp-{key}-{product}"
    else:
        product = report.product or "Milan"  # reports before version 3 come from no other
        name = f"sev-snp-{key}-{product}-{report.chip_id.hex()}-{report.reported_tcb.hex()}"
    if product not in ("Milan", "Genoa", "Turin"):
        raise NotAuthentic(f"expected a Milan, Genoa or Turin processor, got {product[:20]!r}")
    return Need(SEV_SNP, name, evidence, {"key": key, "product": product})


class Collateral:
    """One node's own collateral: cached, bounded, never older than before."""

    def __init__(
        self,
        sources: Mapping[str, Source] | None = None,
        *,
        folder: Path | None = None,
        refresh: int = REFRESH,
    ) -> None:
        """`sources`: by kind of evidence; none works offline, from `folder`, which keeps what is fetched."""
        self._sources, self._folder, self._refresh = dict(sources or {}), folder, refresh
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._fetching: dict[str, asyncio.Lock] = {}

    async def for_(self, evidence: Evidence, now: int) -> bytes | None:
        """Collateral for this evidence, valid at unix time `now`; None for a kind that needs none.

        What came along with the evidence counts for nothing, but for the certificate of an AMD chip's key.
        Raises NotAuthentic, UnknownKind, CollateralExpired, CollateralRollback, Unavailable.
        """
        need = need_of(evidence)
        if need is None:
            return None
        lock = self._fetching.setdefault(need.name, asyncio.Lock())
        try:
            async with lock:  # many enclaves of one platform, one question to the vendor
                held = await self._current(need, now)
        finally:
            if not lock.locked():
                self._fetching.pop(need.name, None)
        return _fitted(held.collateral, need)

    async def _current(self, need: Need, now: int) -> _Held:
        held = self._held.get(need.name) or self._stored(need)
        if held and held.fetched <= now < min(held.fetched + self._refresh, held.valid_until):
            return self._keep(need, held)
        source = self._sources.get(need.kind)
        if source is None:
            if held is None:
                raise Unavailable(
                    f"there is no collateral {need.name} here, and no service to fetch {need.kind} from: "
                    "name one in the settings, or put a file there"
                )
            if now > held.valid_until:
                raise CollateralExpired(
                    f"expected collateral {need.name} valid at {now}, the one here ended {held.valid_until}"
                )
            return self._keep(need, held)
        try:
            fresh = await self._fetched(source, need, held, now)
        except SealdealError:
            if held is None or now > held.valid_until:
                raise
            again = now - self._refresh + RETRY  # the vendor is out of reach, and its word still holds
            return self._keep(need, dataclasses.replace(held, fetched=again))
        if self._folder is not None:
            await asyncio.to_thread(self._store, need.name, fresh.collateral)
        return self._keep(need, fresh)

    async def _fetched(self, source: Source, need: Need, held: _Held | None, now: int) -> _Held:
        try:
            fresh = _Held.read(await source.fetch(need, now), need.kind, fetched=now)
        except NotAuthentic as wrong:  # not the guest's doing
            raise Unavailable(f"the source of collateral {need.name} answers nonsense: {wrong}") from None
        if held and fresh.age < held.age:
            raise CollateralRollback(
                f"expected collateral {need.name} no older than {held.age} (evaluation, issued), the source "
                f"gave {fresh.age}"
            )
        return fresh

    def _keep(self, need: Need, held: _Held) -> _Held:
        self._held[need.name] = held
        self._held.move_to_end(need.name)
        while len(self._held) > MAX_ENTRIES:
            self._held.popitem(last=False)
        return held

    def _stored(self, need: Need) -> _Held | None:
        if self._folder is None or not (path := self._folder / need.name).is_file():
            return None
        return _Held.read(path.read_bytes(), need.kind, fetched=int(path.stat().st_mtime))

    def _store(self, name: str, collateral: bytes) -> None:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{name}.new"
        partial.write_bytes(collateral)
        partial.replace(self._folder / name)


@dataclass(frozen=True, slots=True)
class _Held:
    collateral: bytes
    fetched: int
    valid_until: int
    age: tuple[int, int]
    """(TCB evaluation number, time of issue): what must not go back."""

    @classmethod
    def read(cls, collateral: bytes, kind: str, *, fetched: int) -> _Held:
        """Raises NotAuthentic."""
        if len(collateral) > MAX_COLLATERAL_BYTES:
            raise NotAuthentic(f"expected collateral of at most {MAX_COLLATERAL_BYTES} bytes, got more")
        until, age = (_dates_of_intel if kind == DCAP else _dates_of_amd)(collateral)
        return cls(collateral, fetched, until, age)


@foreign
def _dates_of_intel(collateral: bytes) -> tuple[int, tuple[int, int]]:
    members = json.loads(collateral)
    ends: list[float] = []
    info, identity = (json.loads(members[name]) for name in ("tcb_info", "qe_identity"))
    for signed in (info, identity):
        ends.append(_unix(signed["nextUpdate"]))
    for name in ("root_ca_crl", "pck_crl"):
        if (end := x509.load_der_x509_crl(bytes.fromhex(members[name])).next_update_utc) is not None:
            ends.append(end.timestamp())
    for name in ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain"):
        chain, _ = load_pem(members[name].encode())
        ends += [certificate.not_valid_after_utc.timestamp() for certificate in chain]
    number = min(int(signed["tcbEvaluationDataNumber"]) for signed in (info, identity))
    return int(min(ends)), (number, int(_unix(info["issueDate"])))


@foreign
def _dates_of_amd(collateral: bytes) -> tuple[int, tuple[int, int]]:
    chain, lists = load_pem(collateral)
    ends = [certificate.not_valid_after_utc.timestamp() for certificate in chain]
    ends += [found.next_update_utc.timestamp() for found in lists if found.next_update_utc]
    return int(min(ends)), (0, int(max(found.last_update_utc.timestamp() for found in lists)))


def _unix(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


@foreign
def _fitted(collateral: bytes, need: Need) -> bytes:
    """AMD: the carried certificate of the chip's key in front of authority, root and list from the source."""
    carried, _ = load_pem(need.evidence.collateral or b"") if need.kind == SEV_SNP else ([], [])
    return carried[0].public_bytes(Encoding.PEM) + collateral if carried else collateral


# --- sources --------------------------------------------------------------------------------------


class FromFile:
    """Collateral from one file, whatever is asked for: a verifier refuses what does not fit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def fetch(self, need: Need, now: int) -> bytes:
        try:
            return await asyncio.to_thread(self.path.read_bytes)
        except OSError as wrong:
            raise Unavailable(f"expected collateral in {self.path}: {wrong.strerror}") from None


class Pccs:
    """Intel's certification service, version 4, or a PCCS that caches it."""

    def __init__(self, get: Get, url: str = INTEL_URL) -> None:
        self._get, self._url = get, url.rstrip("/")

    async def fetch(self, need: Need, now: int) -> bytes:
        tee, fmspc, authority = (need.details[name] for name in ("tee", "fmspc", "authority"))
        sgx, own = (f"{self._url}/{part}/certification/v4" for part in ("sgx", tee))
        at_intel = self._url == INTEL_URL
        urls = (
            f"{sgx}/pckcrl?ca={authority}&encoding=der",
            f"{own}/tcb?fmspc={fmspc}",
            f"{own}/qe/identity",
            INTEL_ROOT_CRL if at_intel else f"{sgx}/rootcacrl",
        )
        crl, tcb, identity, root = await asyncio.gather(*(self._get(url) for url in urls))
        try:
            members = {
                "pck_crl_issuer_chain": _header(crl, "sgx-pck-crl-issuer-chain"),
                "root_ca_crl": _der(root.body).hex(),
                "pck_crl": _der(crl.body).hex(),
                "tcb_info_issuer_chain": _header(tcb, "tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"),
                "qe_identity_issuer_chain": _header(identity, "sgx-enclave-identity-issuer-chain"),
            }
            for name, answer, inner in (
                ("tcb_info", tcb, "tcbInfo"),
                ("qe_identity", identity, "enclaveIdentity"),
            ):
                members[name], members[f"{name}_signature"] = _signed(answer.body, inner)
        except (ValueError, KeyError, TypeError) as wrong:
            raise Unavailable(f"expected collateral for {need.name} from {self._url}, got: {wrong}") from None
        return json.dumps(members).encode()


class AmdKds:
    """AMD's key distribution server, or a cache of it."""

    def __init__(self, get: Get, url: str = AMD_URL) -> None:
        self._get, self._url = get, url.rstrip("/")

    async def fetch(self, need: Need, now: int) -> bytes:
        base = f"{self._url}/{need.details['key']}/v1/{need.details['product']}"
        chain, crl = await asyncio.gather(self._get(f"{base}/cert_chain"), self._get(f"{base}/crl"))
        own = b""
        if not need.evidence.collateral:
            own = _pem((await self._get(self._key_url(base, need))).body)
        try:
            listed = x509.load_der_x509_crl(_der(crl.body)).public_bytes(Encoding.PEM)
        except ValueError as wrong:
            raise Unavailable(f"expected a revocation list from {base}/crl, got: {wrong}") from None
        return own + chain.body.strip() + b"\n" + listed

    def _key_url(self, base: str, need: Need) -> str:
        report, product = SevReport.parse(need.evidence.quote), need.details["product"]
        if need.details["key"] == "vlek":
            raise Unavailable("expected a VLEK's certificate with the evidence: only its cloud's host has it")
        chip = report.chip_id[:8] if product == "Turin" else report.chip_id
        names = {
            "fmc": "fmcSPL",
            "bootloader": "blSPL",
            "tee": "teeSPL",
            "snp": "snpSPL",
            "microcode": "ucodeSPL",
        }
        levels = "&".join(f"{names[part]}={level}" for part, level in report.tcb(product).items())
        return f"{base}/{chip.hex()}?{levels}"


def _pem(der: bytes) -> bytes:
    certificate = load(der)
    if not common_name(certificate).startswith("SEV-"):
        raise Unavailable(f"expected the certificate of a chip's key, got {common_name(certificate)[:40]!r}")
    return certificate.public_bytes(Encoding.PEM)


def _header(answer: Answer, *names: str) -> str:
    for name in names:
        if name in answer.headers:
            return urllib.parse.unquote(answer.headers[name])
    raise ValueError(f"an answer without the header {names[0]}")


def _der(body: bytes) -> bytes:
    """A list as DER: services send it so, in hexadecimal, or as PEM."""
    if body[:1] == b"\x30":
        return body
    if b"-----BEGIN" in body:
        return x509.load_pem_x509_crl(body).public_bytes(Encoding.DER)
    return bytes.fromhex(body.decode())


def _signed(body: bytes, inner: str) -> tuple[str, str]:
    """The exact text that was signed, and its signature: `{"<inner>": {…}, "signature": "…"}`."""
    text = body.decode()
    whole: dict[str, Any] = json.loads(text)
    found = re.search(rf'"{inner}"\s*:\s*', text)
    if found is None:
        raise ValueError(f"an answer without {inner}")
    _, end = json.JSONDecoder().raw_decode(text, found.end())
    return text[found.end() : end], str(whole["signature"])
