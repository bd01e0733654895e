"""`sealdeal tee`: evidence in files, and what this machine can do."""

from __future__ import annotations

import datetime as dt
import json as json_format
import time
from pathlib import Path
from typing import Any

from cyclopts import App

from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.evidence import DCAP, SEV_SNP, Evidence, Verifier
from sealdeal.model.types import unhex
from sealdeal.sdk.vendors import vendor_get
from sealdeal.tee import DcapVerifier, NitroVerifier, SevVerifier
from sealdeal.tee import verify as verify_evidence
from sealdeal.tee.certificates import load_root
from sealdeal.tee.collateral import AMD_URL, INTEL_URL, AmdKds, Collateral, Pccs, Source
from sealdeal.tee.host import Ability, survey
from sealdeal.tee.inspect import MAX_FILE_BYTES, read_evidence
from sealdeal.tee.inspect import inspect as inspected

from . import session
from .session import AsJson

tee = App(name="tee", help="Evidence of TEEs, and what this machine can do.")


@tee.command
async def verify(
    file: Path,
    *,
    collateral: Path | None = None,
    at: str | None = None,
    root: Path | None = None,
    skip_revocation: bool = False,
    json: AsJson = False,
) -> None:
    """Verify evidence under its vendor's root, and show what it proves.

    It says who signed what. Whether that is acceptable (which guest, which app, which level) is for a policy.

    Parameters
    ----------
    file
        Evidence as JSON, a receipt, or a vendor's bare quote, report or document.
    collateral
        The vendor's collateral, in place of what the file has.
    at
        Time to verify at: unix seconds, or a date such as 2025-06-20T12:00:00Z; now by default.
    root
        Another root than the vendor's: a certificate, or a simulated network's file. The trust class is
        `simulated` then.
    skip_revocation
        Take AMD's evidence without a revocation list.
    """
    evidence = read_evidence(_read(file), _read(collateral) if collateral else None)
    now = _time(at)
    claims = verify_evidence([_verifier(evidence, root, not skip_revocation)], evidence, now)
    session.show({"verified": True, "at": now, **claims.to_json()}, as_json=json)


@tee.command
def inspect(file: Path, *, json: AsJson = False) -> None:
    """Show what evidence says, verified or not.

    Parameters
    ----------
    file
        Evidence as JSON, a receipt, or a vendor's bare quote, report or document.
    """
    session.show(inspected(read_evidence(_read(file))), as_json=json)


@tee.command
async def fetch(file: Path, out: Path, *, url: str | None = None, json: AsJson = False) -> None:
    """Fetch the collateral that evidence needs from its vendor, and write it to a file.

    Parameters
    ----------
    file
        The evidence: Intel's or AMD's. Nitro's needs none.
    out
        Where to write the collateral. It must not exist yet.
    url
        Another service than the vendor's own: a PCCS, or a cache of AMD's key server.
    """
    evidence, get = read_evidence(_read(file)), vendor_get()
    session.refuse_existing(out)
    sources: dict[str, Source] = {DCAP: Pccs(get, url or INTEL_URL), SEV_SNP: AmdKds(get, url or AMD_URL)}
    found = await Collateral(sources).for_(evidence, int(time.time()))
    if found is None:
        raise InvalidInput(
            f"expected evidence that needs collateral, {evidence.kind} brings everything along"
        )
    out.write_bytes(found)
    session.show({"kind": evidence.kind, "collateral": str(out), "bytes": len(found)}, as_json=json)


@tee.command
def doctor(*, json: AsJson = False) -> int:
    """Say what this machine can do for confidential computation, and what to install.

    The exit code is 1 when not even the default sandbox works here.
    """
    from sealdeal.worker import cgroups

    found = {ability.name: ability for ability in survey()}
    bounds = found["control groups"]
    if bounds.there and (lacking := cgroups.missing()):
        why = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        found["control groups"] = Ability(
            bounds.name, False, why, bounds.use, "delegate a writable group to the worker, or run it as root"
        )
    if json:
        print(json_format.dumps({name: _plain(ability) for name, ability in found.items()}, indent=2))
    else:
        width = max(map(len, found))
        for ability in found.values():
            print(f"{'yes' if ability.there else 'no ':3}  {ability.name:<{width}}  {ability.found}")
            if not ability.there:
                print(f"     {'':<{width}}  for: {ability.use}")
                if ability.install:
                    print(f"     {'':<{width}}  needs: {ability.install}")
    return 0 if found["bubblewrap"].there else 1


def _verifier(evidence: Evidence, root: Path | None, revocation: bool) -> Verifier:
    own = _root(root) if root else None
    if evidence.kind == SEV_SNP:
        return SevVerifier(own, revocation=revocation)
    return DcapVerifier(own) if evidence.kind == DCAP else NitroVerifier(own)


def _root(path: Path) -> bytes:
    """A root certificate (DER) from a PEM or DER file, or from the file of a simulated network."""
    from cryptography.hazmat.primitives.serialization import Encoding

    data = _read(path)
    if data.lstrip()[:1] == b"{":
        try:
            data = unhex(json_format.loads(data)["tee_root"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidInput(
                f"expected a certificate or a simulated network's file, {path} is neither"
            ) from None
    return load_root(data).public_bytes(Encoding.DER)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as wrong:
        raise NotFound(f"{path} cannot be read: {wrong.strerror}") from None


def _time(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return int(text)
    except ValueError:
        pass
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"expected unix seconds or a date such as 2025-06-20T12:00:00Z, got {text!r}"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())


def _plain(ability: Ability) -> dict[str, Any]:
    return {
        "there": ability.there,
        "found": ability.found,
        "use": ability.use,
        "install": None if ability.there else ability.install or None,
    }
