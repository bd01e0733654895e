"""A node's own collateral: fetched over HTTP as vendors serve it, cached, kept, never older than before."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import EvidenceRefused, Unavailable
from sealdeal.model.evidence import (
    DCAP,
    NITRO,
    SEV_SNP,
    CollateralExpired,
    CollateralRollback,
    Evidence,
    NotAuthentic,
    Revoked,
    UnknownKind,
)
from sealdeal.sdk.vendors import vendor_get
from sealdeal.tee import DcapVerifier, SevVerifier, SimulatedPlatform
from sealdeal.tee.collateral import AmdKds, Collateral, FromFile, Need, Pccs, need_of
from tests.tee.amd import CHIP, Amd, pem

NOW = 1_790_000_000
DAY = 86_400
BOUND = b"\x33" * 64
PLATFORM = SimulatedPlatform.generate(NOW)
REGISTERS = PLATFORM.measure(b"\x11" * 32, b"\x22" * 32)
QUOTE = PLATFORM.quote(BOUND, REGISTERS)
BARE = Evidence(DCAP, QUOTE)
VERIFIER = DcapVerifier(PLATFORM.root_der)
AMD = Amd("Milan", NOW)
SEV = SevVerifier(pem(AMD.root))

Routes = dict[str, tuple[dict[str, str], bytes]]
"""Path and query -> headers and body."""


@contextmanager
def served(routes: Routes) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP service with these routes; its URL, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            headers, body = routes.get(self.path, ({}, b""))
            self.send_response(200 if self.path in routes else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pccs_routes(collateral: bytes, *, encoding: str = "der") -> Routes:
    """What a PCCS answers, from a QuoteCollateralV3. Real ones send lists as DER, PEM or hexadecimal."""
    members = json.loads(collateral)

    def listed(name: str) -> bytes:
        der = bytes.fromhex(members[name])
        forms = {
            "der": der,
            "hex": der.hex().encode(),
            "pem": x509.load_der_x509_crl(der).public_bytes(Encoding.PEM),
        }
        return forms[encoding]

    def chain(name: str) -> str:
        return urllib.parse.quote(members[name])

    def signed(inner: str, name: str) -> bytes:
        return f'{{"{inner}" : {members[name]}, "signature":"{members[f"{name}_signature"]}"}}'.encode()

    sgx, tdx = "/sgx/certification/v4", "/tdx/certification/v4"
    return {
        f"{sgx}/pckcrl?ca=platform&encoding=der": (
            {"SGX-PCK-CRL-Issuer-Chain": chain("pck_crl_issuer_chain")},
            listed("pck_crl"),
        ),
        f"{sgx}/rootcacrl": ({}, listed("root_ca_crl")),
        f"{tdx}/tcb?fmspc=50494D000000": (
            {"TCB-Info-Issuer-Chain": chain("tcb_info_issuer_chain")},
            signed("tcbInfo", "tcb_info"),
        ),
        f"{tdx}/qe/identity": (
            {"SGX-Enclave-Identity-Issuer-Chain": chain("qe_identity_issuer_chain")},
            signed("enclaveIdentity", "qe_identity"),
        ),
    }


@pytest.mark.parametrize("encoding", ["der", "hex", "pem"])
async def test_what_a_pccs_serves_verifies(encoding: str) -> None:
    with served(pccs_routes(PLATFORM.collateral(NOW), encoding=encoding)) as (url, asked):
        own = Collateral({DCAP: Pccs(vendor_get(), url)})
        collateral = await own.for_(BARE, NOW)
        assert VERIFIER.verify(dataclasses.replace(BARE, collateral=collateral), NOW).tcb_eval == 17
        again = await asyncio.gather(*(own.for_(BARE, NOW + i) for i in range(20)))
        assert set(again) == {collateral} and len(asked) == 4


async def test_many_at_once_are_one_question() -> None:
    with served(pccs_routes(PLATFORM.collateral(NOW))) as (url, asked):
        own = Collateral({DCAP: Pccs(vendor_get(), url)})
        assert len(set(await asyncio.gather(*(own.for_(BARE, NOW) for _ in range(20))))) == 1
        assert asked and len(asked) == len(set(asked))  # the first to be away ends the round


async def test_what_came_along_counts_for_nothing() -> None:
    """A worker may not choose the revocation list that it is judged by."""
    with served(pccs_routes(PLATFORM.collateral(NOW, revoke_pck=True))) as (url, _):
        lenient = PLATFORM.evidence(BOUND, REGISTERS, NOW)
        VERIFIER.verify(lenient, NOW)
        own = await Collateral({DCAP: Pccs(vendor_get(), url)}).for_(lenient, NOW)
        with pytest.raises(Revoked):
            VERIFIER.verify(dataclasses.replace(lenient, collateral=own), NOW)


async def test_it_is_fetched_anew_before_it_ends_and_used_while_the_vendor_is_away() -> None:
    routes = pccs_routes(PLATFORM.collateral(NOW))
    with served(routes) as (url, _):
        own = Collateral({DCAP: Pccs(vendor_get(), url)})
        first = await own.for_(BARE, NOW)
        routes.update(pccs_routes(PLATFORM.collateral(NOW + DAY, tcb_eval=18)))
        assert await own.for_(BARE, NOW + DAY - 1) == first
        second = await own.for_(BARE, NOW + DAY)
        assert second != first
        routes.clear()
        assert await own.for_(BARE, NOW + 29 * DAY) == second
        with pytest.raises(Unavailable, match=r"expected collateral from .* got status 404"):
            await own.for_(BARE, NOW + 32 * DAY)


async def test_a_vendor_that_is_away_is_not_asked_by_everyone() -> None:
    routes = pccs_routes(PLATFORM.collateral(NOW))
    with served(routes) as (url, asked):
        own = Collateral({DCAP: Pccs(vendor_get(), url)})
        first = await own.for_(BARE, NOW)
        routes.clear()
        asked.clear()
        for seconds in range(59):
            assert await own.for_(BARE, NOW + DAY + seconds) == first
        assert asked and len(asked) == len(set(asked))  # the first to be away ends the round
        routes.update(pccs_routes(PLATFORM.collateral(NOW + DAY)))
        assert await own.for_(BARE, NOW + DAY + 60) != first


async def test_nonsense_from_a_source_is_not_the_guests_fault() -> None:
    class Nonsense:
        async def fetch(self, need: Need, now: int) -> bytes:
            return b"{}"

    with pytest.raises(Unavailable, match="answers nonsense"):
        await Collateral({DCAP: Nonsense()}).for_(BARE, NOW)


async def test_a_source_that_goes_back_is_not_followed() -> None:
    routes = pccs_routes(PLATFORM.collateral(NOW, tcb_eval=18, days=10))
    with served(routes) as (url, _):
        own = Collateral({DCAP: Pccs(vendor_get(), url)})
        first = await own.for_(BARE, NOW)
        routes.update(pccs_routes(PLATFORM.collateral(NOW + 2 * DAY, tcb_eval=17, days=30)))
        assert await own.for_(BARE, NOW + 2 * DAY) == first
        with pytest.raises(CollateralRollback, match=r"no older than \(18, "):
            await own.for_(BARE, NOW + 11 * DAY)


async def test_a_folder_keeps_it_over_a_restart_and_serves_offline(tmp_path: Path) -> None:
    with served(pccs_routes(PLATFORM.collateral(NOW))) as (url, asked):
        first = await Collateral({DCAP: Pccs(vendor_get(), url)}, folder=tmp_path).for_(BARE, NOW)
        (file,) = tmp_path.iterdir()
        assert file.name == "dcap-tdx-platform-50494D000000" and file.read_bytes() == first
        os.utime(file, (NOW, NOW))
        restarted = Collateral({DCAP: Pccs(vendor_get(), url)}, folder=tmp_path)
        assert await restarted.for_(BARE, NOW + 60) == first and len(asked) == 4
    offline = Collateral(folder=tmp_path)
    assert await offline.for_(BARE, NOW + 20 * DAY) == first
    with pytest.raises(
        CollateralExpired, match="expected collateral dcap-tdx-platform-50494D000000 valid at"
    ):
        await offline.for_(BARE, NOW + 31 * DAY)
    file.write_bytes(b"damaged")
    with pytest.raises(NotAuthentic):
        await Collateral(folder=tmp_path).for_(BARE, NOW)
    with pytest.raises(Unavailable, match="there is no collateral dcap-tdx"):
        await Collateral().for_(BARE, NOW)


async def test_a_file_serves_whatever_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "collateral.json"
    own = Collateral({DCAP: FromFile(file)})
    with pytest.raises(Unavailable, match=r"expected collateral in .*: No such file"):
        await own.for_(BARE, NOW)
    file.write_bytes(PLATFORM.collateral(NOW))
    VERIFIER.verify(dataclasses.replace(BARE, collateral=await own.for_(BARE, NOW)), NOW)


@pytest.mark.parametrize("damage", ["no header", "no signature", "no list", "not JSON", "too large"])
async def test_a_service_that_answers_nonsense_is_unavailable(damage: str) -> None:
    routes = pccs_routes(PLATFORM.collateral(NOW))
    path = "/tdx/certification/v4/tcb?fmspc=50494D000000"
    headers, body = routes[path]
    if damage == "no list":
        routes["/sgx/certification/v4/rootcacrl"] = ({}, b"none")
    else:
        routes[path] = {
            "no header": ({}, body),
            "no signature": (headers, b'{"tcbInfo":{}}'),
            "not JSON": (headers, b"<html>"),
            "too large": (headers, body + b" " * (1 << 20)),
        }[damage]
    with served(routes) as (url, _), pytest.raises(Unavailable):
        await Collateral({DCAP: Pccs(vendor_get(), url)}).for_(BARE, NOW)
    with pytest.raises(Unavailable, match="does not answer"):
        await Collateral({DCAP: Pccs(vendor_get(), url)}).for_(BARE, NOW)


async def test_the_cache_is_bounded() -> None:
    own = Collateral({DCAP: PLATFORM})
    for model in range(80):
        sibling = PLATFORM.sibling(NOW, fmspc=model.to_bytes(6, "big"))
        await own.for_(Evidence(DCAP, sibling.quote(BOUND, REGISTERS)), NOW)
    assert len(own._held) == 64 and not own._fetching


# --- AMD ------------------------------------------------------------------------------------------


def kds_routes(amd: Amd, kind: str = "vcek", *, issued: int = NOW) -> Routes:
    """What AMD's server answers."""
    base = f"/{kind}/v1/{amd.product}"
    authority = amd.authority if kind == "vcek" else amd.cloud_authority
    levels = "blSPL=3&teeSPL=2&snpSPL=8&ucodeSPL=115"
    chip = CHIP.hex()
    if amd.product == "Turin":
        levels, chip = f"fmcSPL=1&{levels}", CHIP[:8].hex()
    return {
        f"{base}/cert_chain": ({}, pem(authority, amd.root)),
        f"{base}/crl": ({}, amd.revocations(issued=issued).public_bytes(Encoding.DER)),
        f"{base}/{chip}?{levels}": ({}, amd.key().public_bytes(Encoding.DER)),
    }


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
async def test_what_amds_server_serves_verifies(product: str) -> None:
    amd = Amd(product, NOW)
    with served(kds_routes(amd)) as (url, asked):
        own = Collateral({SEV_SNP: AmdKds(vendor_get(), url)})
        bare = Evidence(SEV_SNP, amd.report(BOUND))
        whole = dataclasses.replace(bare, collateral=await own.for_(bare, NOW))
        SevVerifier(pem(amd.root)).verify(whole, NOW)
        assert len(asked) == 3


@pytest.mark.parametrize("kind", ["VCEK", "VLEK"])
async def test_a_carried_key_is_put_before_what_the_source_gave(kind: str) -> None:
    """So one chip's certificate that came along spares a question for each chip; the rest is the node's."""
    with served(kds_routes(AMD, kind.lower())) as (url, asked):
        own = Collateral({SEV_SNP: AmdKds(vendor_get(), url)})
        for chip in range(1, 6):
            other = Amd("Milan", NOW, chip=bytes([chip]) * 64)
            carried = Evidence(SEV_SNP, other.report(BOUND, kind=kind), pem(other.key(kind)))
            whole = dataclasses.replace(carried, collateral=await own.for_(carried, NOW))
            assert SEV.verify(whole, NOW).platform_id == bytes([chip]) * 64
        assert len(asked) == 2


async def test_a_clouds_key_must_come_along() -> None:
    with served(kds_routes(AMD, "vlek")) as (url, _):
        own = Collateral({SEV_SNP: AmdKds(vendor_get(), url)})
        with pytest.raises(Unavailable, match="expected a VLEK's certificate with the evidence"):
            await own.for_(Evidence(SEV_SNP, AMD.report(kind="VLEK")), NOW)


async def test_amds_revocation_list_does_not_go_back_either() -> None:
    routes = kds_routes(AMD)
    with served(routes) as (url, _):
        own = Collateral({SEV_SNP: AmdKds(vendor_get(), url)})
        bare = Evidence(SEV_SNP, AMD.report(BOUND))
        first = await own.for_(bare, NOW)
        routes.update(kds_routes(AMD, issued=NOW - 5 * DAY))
        assert await own.for_(bare, NOW + 2 * DAY) == first


async def test_nitro_needs_none_and_unknown_kinds_get_none() -> None:
    assert await Collateral().for_(Evidence(NITRO, b"anything"), NOW) is None
    with pytest.raises(UnknownKind, match="got 'tpm'"):
        await Collateral().for_(Evidence("tpm", b"anything"), NOW)


@given(st.sampled_from([DCAP, SEV_SNP, "tpm"]), st.binary(max_size=1300), st.none() | st.binary(max_size=100))
def test_any_bytes_name_no_file_outside_and_raise_nothing_else(
    kind: str, quote: bytes, collateral: bytes | None
) -> None:
    try:
        need = need_of(Evidence(kind, quote, collateral))
    except EvidenceRefused:
        return
    assert need is None or all(letter.isalnum() or letter == "-" for letter in need.name)
