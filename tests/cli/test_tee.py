"""`sealdeal tee …`, in this process: evidence in files, in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sealdeal.cli import command
from sealdeal.model.errors import Conflict, InvalidInput, NotFound
from sealdeal.model.evidence import CollateralExpired, DebugEnabled, NotAuthentic, WrongRoot
from sealdeal.tee import SimulatedPlatform
from tests.tee.amd import Amd, pem
from tests.tee.aws import Aws
from tests.tee.test_collateral import pccs_routes, served

NOW = 1_790_000_000
BOUND = b"\x33" * 64
PLATFORM = SimulatedPlatform.generate(NOW)
REGISTERS = PLATFORM.measure(b"\x11" * 32, b"\x22" * 32)
GOOD = PLATFORM.evidence(BOUND, REGISTERS, NOW)


class Shell:
    """A folder of files, and what commands print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def file(self, name: str, content: bytes | str) -> str:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def run(self, *arguments: str) -> Any:
        """The JSON document that a command prints."""
        command(["tee", *arguments, "--json"])
        return json.loads(self._capsys.readouterr().out)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_verify_takes_every_vendors_evidence(shell: Shell) -> None:
    evidence = shell.file("evidence.json", json.dumps(GOOD.to_json()))
    root = shell.file("root.der", PLATFORM.root_der)
    shown = shell.run("verify", evidence, "--root", root, "--at", str(NOW))
    assert (shown["verified"], shown["tee"], shown["trust"], shown["at"]) == (True, "tdx", "simulated", NOW)

    quote, collateral = shell.file("quote", GOOD.quote), shell.file("collateral", GOOD.collateral or b"")
    network = shell.file("network.json", json.dumps({"tee_root": "0x" + PLATFORM.root_der.hex()}))
    options = ("--collateral", collateral, "--root", network, "--at", "2026-09-21T14:13:20Z")
    assert shell.run("verify", quote, *options) == shown

    amd = Amd("Genoa", NOW)
    report, certificates = shell.file("report", amd.report(BOUND)), shell.file("amd.pem", amd.collateral())
    ark = shell.file("ark.pem", pem(amd.root))
    options = ("--collateral", certificates, "--root", ark, "--at", str(NOW))
    assert shell.run("verify", report, *options)["tee"] == "sev-snp"
    alone = shell.file("alone.pem", pem(amd.key(), amd.authority, amd.root))
    options = ("--collateral", alone, "--root", ark, "--at", str(NOW))
    with pytest.raises(NotAuthentic, match="expected the revocation list"):
        shell.run("verify", report, *options)
    assert shell.run("verify", report, *options, "--skip-revocation")["verified"]

    document, aws = shell.file("document", Aws(NOW).document(BOUND)), Aws(NOW).root.public_bytes(Encoding.PEM)
    with pytest.raises(WrongRoot):
        shell.run("verify", document, "--at", str(NOW))
    with pytest.raises(NotAuthentic):  # another root of the same key has other certificates
        shell.run("verify", document, "--root", shell.file("evil.pem", pem(amd.root)), "--at", str(NOW))
    assert (
        shell.run("verify", document, "--root", shell.file("aws.pem", aws), "--at", str(NOW))["tee"]
        == "nitro"
    )


def test_verify_refuses_and_says_why(shell: Shell) -> None:
    evidence = shell.file("evidence.json", json.dumps(GOOD.to_json()))
    root = shell.file("root.der", PLATFORM.root_der)
    with pytest.raises(WrongRoot, match="expected an Intel quote signed under Intel's root"):
        shell.run("verify", evidence, "--at", str(NOW))
    with pytest.raises(CollateralExpired):
        shell.run("verify", evidence, "--root", root, "--at", "2027-01-01")
    debug = shell.file("debug", PLATFORM.quote(BOUND, REGISTERS, debug=True))
    collateral = shell.file("collateral", GOOD.collateral or b"")
    with pytest.raises(DebugEnabled):
        shell.run("verify", debug, "--root", root, "--collateral", collateral, "--at", str(NOW))
    with pytest.raises(InvalidInput, match="unix seconds or a date"):
        shell.run("verify", evidence, "--root", root, "--at", "yesterday")
    with pytest.raises(NotFound, match="cannot be read: No such file"):
        shell.run("verify", "nothing-here")
    for bad in (b"{}", b'{"tee_root":null}', b"noise"):
        with pytest.raises((InvalidInput, NotAuthentic)):
            shell.run("verify", evidence, "--root", shell.file("bad", bad), "--at", str(NOW))


def test_inspect_shows_what_is_not_verified(shell: Shell) -> None:
    shown = shell.run("inspect", shell.file("debug", PLATFORM.quote(BOUND, REGISTERS, debug=True)))
    assert shown["verified"] is False and shown["report"]["td_attributes"].startswith("0x01")


def test_fetch_writes_the_collateral_that_verify_takes(shell: Shell) -> None:
    quote, root = shell.file("quote", GOOD.quote), shell.file("root.der", PLATFORM.root_der)
    out = str(shell.folder / "fetched")
    with served(pccs_routes(GOOD.collateral or b"")) as (url, _):
        assert shell.run("fetch", quote, out, "--url", url)["kind"] == "dcap"
        with pytest.raises(Conflict):
            shell.run("fetch", quote, out, "--url", url)
    assert shell.run("verify", quote, "--collateral", out, "--root", root, "--at", str(NOW))["verified"]
    with pytest.raises(InvalidInput, match="brings everything along"):
        shell.run("fetch", shell.file("document", Aws(NOW).document(BOUND)), out + "2")


def test_doctor_says_what_is_there(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    found = shell.run("doctor")
    assert {"TDX host", "KVM", "control groups", "user namespaces", "bubblewrap", "OCI runtime"} <= set(found)
    assert all(set(ability) == {"there", "found", "use", "install"} for ability in found.values())
    code = command(["tee", "doctor"])
    assert code == (0 if found["bubblewrap"]["there"] else 1)
    printed = capsys.readouterr().out
    assert all(
        f"{'yes' if ability['there'] else 'no '}  {name}" in printed for name, ability in found.items()
    )
