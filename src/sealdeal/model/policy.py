"""What is required of a TEE's claims: small objects that compose. An empty one refuses.

A verifier (`sealdeal.tee`) says what is authentic; a policy says what is acceptable. What a deal requires is
read from the chain: the app entry's checksum is its measurement, and the dataset's order says which app.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from .errors import EvidenceRefused
from .evidence import (
    Claims,
    CollateralExpired,
    DebugEnabled,
    EmptyPolicy,
    MeasurementExpired,
    PlatformRefused,
    TrustClass,
    WrongRegister,
    WrongReportData,
    WrongTcb,
    WrongTee,
    WrongTrust,
)
from .types import hexstr


class Policy(Protocol):
    """A requirement on claims."""

    def check(self, claims: Claims, now: int) -> None:
        """Returns when `claims` satisfy it at unix time `now`. Raises EvidenceRefused otherwise."""
        ...


class AllOf:
    """Every one of `policies`; the first that refuses speaks."""

    def __init__(self, *policies: Policy) -> None:
        self.policies = policies

    def check(self, claims: Claims, now: int) -> None:
        if not self.policies:
            raise EmptyPolicy("expected at least one requirement in AllOf, got none: an empty policy refuses")
        for policy in self.policies:
            policy.check(claims, now)


class AnyOf:
    """At least one of `policies`; when none fits, all their reasons are given."""

    def __init__(self, *policies: Policy) -> None:
        self.policies = policies

    def check(self, claims: Claims, now: int) -> None:
        if not self.policies:
            raise EmptyPolicy("expected at least one alternative in AnyOf, got none: an empty policy refuses")
        refusals: list[EvidenceRefused] = []
        for policy in self.policies:
            try:
                return policy.check(claims, now)
            except EvidenceRefused as refusal:
                refusals.append(refusal)
        kinds = {type(refusal) for refusal in refusals}
        kind = kinds.pop() if len(kinds) == 1 else EvidenceRefused
        raise kind("none of the accepted alternatives fits: " + "; or ".join(str(r) for r in refusals))


@dataclass(frozen=True)
class TrustIs:
    """The root's class is exactly this one: a hardware network takes no simulation, nor the reverse."""

    trust: TrustClass

    def check(self, claims: Claims, now: int) -> None:
        if claims.trust is not self.trust:
            raise WrongTrust(f"expected evidence of trust class {self.trust}, got {claims.trust}")


@dataclass(frozen=True)
class TeeIs:
    """The evidence comes from this kind of TEE."""

    tee: str

    def check(self, claims: Claims, now: int) -> None:
        if claims.tee != self.tee:
            raise WrongTee(f"expected evidence of a {self.tee} TEE, got {claims.tee}")


@dataclass(frozen=True)
class NoDebug:
    """The TEE was not started in debug mode."""

    def check(self, claims: Claims, now: int) -> None:
        if claims.debug:
            raise DebugEnabled("expected a TEE without debug, got one whose memory its host can read")


@dataclass(frozen=True)
class TcbStatusIn:
    """The platform's level is called one of these, and none of `denied` advisories is open."""

    allowed: frozenset[str]
    denied: frozenset[str] = frozenset()

    def check(self, claims: Claims, now: int) -> None:
        if claims.tcb_status not in self.allowed:
            raise WrongTcb(
                f"expected TCB status {' or '.join(sorted(self.allowed)) or '(none is allowed)'}, "
                f"got {claims.tcb_status} ({', '.join(claims.advisories) or 'no advisories'})"
            )
        if found := self.denied.intersection(claims.advisories):
            raise WrongTcb(f"expected none of the denied advisories, got {', '.join(sorted(found))}")


@dataclass(frozen=True)
class MinTcbEvaluation:
    """The collateral's evaluation number is at least this: stops a rollback to older collateral."""

    number: int

    def check(self, claims: Claims, now: int) -> None:
        if claims.tcb_eval < self.number:
            raise WrongTcb(
                f"expected TCB evaluation number {self.number} or later, got {claims.tcb_eval} (old)"
            )


@dataclass(frozen=True)
class MinTcb:
    """Each named part of the platform's firmware has at least this security version (`Claims.tcb`).

    AMD gives no status to a platform's level, so this is how one is required of it.
    """

    levels: Mapping[str, int]

    def check(self, claims: Claims, now: int) -> None:
        if not self.levels:
            raise EmptyPolicy("expected at least one security version, got none: an empty policy refuses")
        for part, least in self.levels.items():
            came = claims.tcb.get(part)
            if came is None or came < least:
                raise WrongTcb(
                    f"expected security version {least} or later of {part}, got "
                    f"{'none' if came is None else came}: update the platform's firmware"
                )


@dataclass(frozen=True)
class NotExpired:
    """The collateral is valid at the time of the check."""

    def check(self, claims: Claims, now: int) -> None:
        if now > claims.valid_until:
            raise CollateralExpired(
                f"expected collateral valid at {now}, got one that expired at {claims.valid_until}"
            )


@dataclass(frozen=True)
class Registers:
    """Each listed register holds one of its allowed values."""

    allowed: Mapping[str, frozenset[bytes]]

    @classmethod
    def exactly(cls, values: Mapping[str, bytes]) -> Self:
        """Each listed register holds exactly this value."""
        return cls({name: frozenset([value]) for name, value in values.items()})

    def check(self, claims: Claims, now: int) -> None:
        if not self.allowed:
            raise EmptyPolicy("expected at least one register to compare, got none: an empty policy refuses")
        for name, allowed in self.allowed.items():
            came = claims.registers.get(name)
            if came not in allowed:
                wanted = " or ".join(sorted(hexstr(value) for value in allowed)) or "(no value is allowed)"
                raise WrongRegister(
                    f"expected register {name} = {wanted}, got {hexstr(came) if came is not None else 'none'}"
                )


@dataclass(frozen=True)
class Measurement:
    """One accepted measurement of a list, for as long as it is accepted."""

    registers: Mapping[str, bytes]
    """Every one of these holds exactly this value."""
    valid_until: int | None = None
    """Unix time after which it is refused: set when a flaw of it is known. None: not limited."""


@dataclass(frozen=True)
class MeasurementIn:
    """The registers are those of a listed release, whose time is not over.

    An expiry for each entry is what stops a host from starting an old release, once good and since known
    to be flawed.
    """

    entries: Mapping[str, Measurement]
    """By a name for people, such as the release's version."""

    def check(self, claims: Claims, now: int) -> None:
        if not self.entries or not all(entry.registers for entry in self.entries.values()):
            raise EmptyPolicy(
                "expected measurements with at least one register each, got none: an empty policy refuses"
            )
        ended: list[str] = []
        for name, entry in self.entries.items():
            if all(claims.registers.get(register) == value for register, value in entry.registers.items()):
                if entry.valid_until is None or now <= entry.valid_until:
                    return
                ended.append(f"{name}, until {entry.valid_until}")
        if ended:
            raise MeasurementExpired(
                f"expected a release that is still accepted at {now}, got {' and '.join(ended)}: "
                "start a newer one"
            )
        registers = sorted({register for entry in self.entries.values() for register in entry.registers})
        came = {register: claims.registers.get(register) for register in registers}
        raise WrongRegister(
            f"expected the measurement of {' or '.join(sorted(self.entries))}, got "
            + ", ".join(f"{name} = {'none' if v is None else hexstr(v)}" for name, v in came.items())
        )


@dataclass(frozen=True)
class ReportData:
    """The evidence was made for exactly this session."""

    expected: bytes

    def check(self, claims: Claims, now: int) -> None:
        if claims.report_data != self.expected:
            raise WrongReportData(
                f"expected report data {hexstr(self.expected)}, got {hexstr(claims.report_data)}: "
                "the evidence does not cover this manifest, these keys and these nonces"
            )


@dataclass(frozen=True)
class PlatformIn:
    """The machine is one of these (by platform id)."""

    allowed: frozenset[bytes]

    def check(self, claims: Claims, now: int) -> None:
        if claims.platform_id not in self.allowed:
            raise PlatformRefused(
                f"expected one of {len(self.allowed)} listed platforms, got {hexstr(claims.platform_id)}"
            )


@dataclass(frozen=True)
class PlatformNotIn:
    """The machine is none of these (by platform id). One that hides its id could be any of them."""

    banned: frozenset[bytes]

    def check(self, claims: Claims, now: int) -> None:
        if self.banned and not claims.platform_id:
            raise PlatformRefused(
                "expected a machine that shows its id, got one that may be banned and hides it"
            )
        if claims.platform_id in self.banned:
            raise PlatformRefused(f"platform {hexstr(claims.platform_id)} is banned")
