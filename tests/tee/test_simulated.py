"""The simulated platform."""

from __future__ import annotations

import json

import pytest

from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import tdx_registers
from sealdeal.tee import DcapVerifier, SimulatedPlatform

NOW = 1_790_000_000
REGISTERS = tdx_registers(b"\x11" * 32, b"\x22" * 32)


def test_a_kept_platform_is_the_same_platform() -> None:
    made = SimulatedPlatform.generate(NOW)
    kept = SimulatedPlatform.from_json(made.to_json())
    assert (kept.root_der, kept.ppid) == (made.root_der, made.ppid)
    evidence = kept.evidence(bytes(64), REGISTERS, NOW + 86_400)
    assert DcapVerifier(made.root_der).verify(evidence, NOW + 86_400).platform_id == made.ppid


def test_a_file_of_an_earlier_version_is_read() -> None:
    made = SimulatedPlatform.generate(NOW)
    kept = json.loads(made.to_json())
    del kept["fmspc"]
    assert SimulatedPlatform.from_json(json.dumps(kept)).fmspc == made.fmspc


def test_a_sibling_is_another_machine_under_the_same_root() -> None:
    made = SimulatedPlatform.generate(NOW)
    other = made.sibling(NOW, fmspc=b"\1" * 6)
    assert other.root_der == made.root_der and other.ppid != made.ppid and other.fmspc != made.fmspc
    assert SimulatedPlatform.from_json(other.to_json()).fmspc == other.fmspc
    assert DcapVerifier(made.root_der).verify(other.evidence(bytes(64), REGISTERS, NOW), NOW)


def test_two_platforms_share_nothing() -> None:
    one, other = SimulatedPlatform.generate(NOW), SimulatedPlatform.generate(NOW)
    assert one.root_der != other.root_der and one.ppid != other.ppid


def test_it_says_what_it_is_in_every_certificate() -> None:
    for certificate in SimulatedPlatform.generate(NOW).certificates.values():
        assert "SIMULATED TEE - NOT HARDWARE" in certificate.subject.rfc4514_string()


def test_it_measures_by_the_one_rule() -> None:
    assert SimulatedPlatform.measure(b"\x11" * 32, b"\x22" * 32) == REGISTERS


def test_secrets_are_not_in_its_text_form() -> None:
    platform = SimulatedPlatform.generate(NOW)
    assert "PRIVATE" not in repr(platform) and "PRIVATE" in platform.to_json()


@pytest.mark.parametrize("member", ["keys", "certificates", "ppid"])
def test_a_damaged_file_is_refused(member: str) -> None:
    kept = json.loads(SimulatedPlatform.generate(NOW).to_json())
    del kept[member]
    for text in (json.dumps(kept), "", "[]", "{"):
        with pytest.raises(InvalidInput, match="expected a simulated platform"):
            SimulatedPlatform.from_json(text)


def test_malformed_quotes_are_not_made() -> None:
    platform = SimulatedPlatform.generate(NOW)
    lacking = {name: value for name, value in REGISTERS.items() if name != "rtmr3"}
    with pytest.raises(InvalidInput):
        platform.quote(bytes(63), REGISTERS)
    with pytest.raises(InvalidInput):
        platform.quote(bytes(64), lacking)
    with pytest.raises(InvalidInput):
        platform.quote(bytes(64), {**REGISTERS, "mrtd": bytes(32)})
    with pytest.raises(InvalidInput):
        platform.quote(bytes(64), REGISTERS, version=3)
