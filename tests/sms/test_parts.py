"""A node's small parts: nonces, limits, options."""

from __future__ import annotations

import sys
from pathlib import Path
from secrets import token_bytes

import pytest

from sealdeal.model.deals import Assignment
from sealdeal.model.errors import InvalidInput, RateLimited, SecretRefused, Unavailable
from sealdeal.model.policy import MinTcbEvaluation, PlatformIn, PlatformNotIn
from sealdeal.model.types import address
from sealdeal.sdk.keyfile import parse_key
from sealdeal.sdk.sms import NonceRefused
from sealdeal.sms import limits
from sealdeal.sms.limits import Gate, Limits
from sealdeal.sms.nonces import HANDOVER_SECONDS, NONCE_SECONDS, Nonces, members_mark
from sealdeal.sms.options import SmsOptions, platform_ids

NODE, OTHER, WORKER = (address(bytes([n]) * 20) for n in (1, 2, 3))
ASSIGNMENT = Assignment(b"\x05" * 32, WORKER, 1, 2**40)
MARK = members_mark([NODE, OTHER], 2)
KEY = b"\x07" * 32


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


# --- nonces ---------------------------------------------------------------------------------------


def test_a_nonce_says_when_it_ends_and_which_members_there_were() -> None:
    clock = Clock()
    nonces = Nonces(NODE, KEY, clock, token_bytes)
    nonce, expires = nonces.give(ASSIGNMENT, MARK)
    fresh = nonces.check([(OTHER, b"x"), (NODE, nonce)], ASSIGNMENT)
    assert (fresh.expires, fresh.members, len(fresh.id)) == (expires, MARK, 32)
    assert members_mark([OTHER, NODE], 2) == MARK != members_mark([OTHER, NODE], 1)
    for at in range(len(nonce)):
        with pytest.raises(NonceRefused):
            nonces.check([(NODE, nonce[:at] + bytes([nonce[at] ^ 1]) + nonce[at + 1 :])], ASSIGNMENT)
    clock.now += NONCE_SECONDS
    with pytest.raises(NonceRefused, match="expired"):
        nonces.check([(NODE, nonce)], ASSIGNMENT)


@pytest.mark.parametrize(
    ("pause", "good"), [(0, True), (HANDOVER_SECONDS, True), (HANDOVER_SECONDS + 1, False)]
)
def test_nonces_outlive_an_orderly_restart_of_a_minute(pause: int, good: bool) -> None:
    clock = Clock()
    before = Nonces(NODE, KEY, clock, token_bytes)
    nonce, _ = before.give(ASSIGNMENT, MARK)
    left = (before.epoch, int(clock.now))
    clock.now += pause
    if good:
        assert Nonces(NODE, KEY, clock, token_bytes, left).check([(NODE, nonce)], ASSIGNMENT).nonce == nonce
    for other in (None, (token_bytes(32), left[1]), (left[0], left[1] + pause + 5)) + (
        () if good else (left,)
    ):
        with pytest.raises(NonceRefused, match="since it was started"):
            Nonces(NODE, KEY, clock, token_bytes, other).check([(NODE, nonce)], ASSIGNMENT)


# --- limits ---------------------------------------------------------------------------------------


async def attempt(gate: Gate, who: str, about: object = 1, error: Exception | None = None) -> None:
    async with gate.admit(who, about):
        if error:
            raise error


async def test_failures_of_one_are_not_those_of_another() -> None:
    clock = Clock()
    gate = Gate(Limits(failures=2, asks=100, seconds=60), clock)
    for _ in range(3):
        with pytest.raises(SecretRefused):
            await attempt(gate, "bad", error=SecretRefused("no"))
    with pytest.raises(RateLimited, match="come again in 61") as limited:
        await attempt(gate, "bad")
    assert limited.value.retry_after == 61
    await attempt(gate, "good")
    for _ in range(9):  # what is not ready yet is nobody's fault
        with pytest.raises(Unavailable):
            await attempt(gate, "good", error=Unavailable("later"))
    await attempt(gate, "good")
    clock.now += 61
    await attempt(gate, "bad")


async def test_an_attempt_asks_so_often_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(Limits(asks=3), Clock())
    for _ in range(3):
        await attempt(gate, "worker", "this")
    with pytest.raises(RateLimited):
        await attempt(gate, "worker", "this")
    await attempt(gate, "worker", "that")
    for _ in range(20):  # a guest waits for blocks
        with pytest.raises(Unavailable):
            await attempt(gate, "worker", "patient", Unavailable("later"))
    await attempt(gate, "worker", "patient")
    impatient = Gate(Limits(polls=20), Clock())
    for _ in range(20):
        with pytest.raises(Unavailable):
            await attempt(impatient, "worker", error=Unavailable("later"))
    with pytest.raises(RateLimited):
        await attempt(impatient, "worker")
    monkeypatch.setattr(limits, "REMEMBERED", 10)
    for number in range(50):
        await attempt(gate, f"worker {number}", number)
        with pytest.raises(SecretRefused):
            await attempt(gate, f"bad {number}", number, SecretRefused("no"))
    assert max(len(kept) for kept in (gate._failures._counts, gate._asks._counts, gate._known)) <= 14


async def test_strangers_wait_for_each_other_and_not_those_who_are_known() -> None:
    gate = Gate(Limits(strangers=1, queue=0), Clock())
    await attempt(gate, "known")
    async with gate.admit("stranger", 1):
        with pytest.raises(RateLimited, match="too many new workers"):
            await attempt(gate, "another")
        await attempt(gate, "known")
    await attempt(gate, "another")


# --- options --------------------------------------------------------------------------------------


async def test_the_storage_key_comes_from_a_file_or_a_command(tmp_path: Path) -> None:
    assert await SmsOptions().storage_key("sms-0") is None
    file = tmp_path / "key"
    file.write_text(f"0x{KEY.hex()}\n")
    file.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        await SmsOptions(storage_key_file=file).storage_key("sms-0")
    file.chmod(0o600)
    assert await SmsOptions(storage_key_file=file).storage_key("sms-0") == KEY
    script = "import sys, hashlib; print(hashlib.sha256(sys.argv[1].encode()).hexdigest())"
    command = f"{sys.executable} -c '{script}' {{node}}"
    options = SmsOptions(storage_key_file=file, storage_key_command=command)
    keys = [await options.storage_key(name) for name in ("sms-0", "sms-1")]
    assert keys[0] != keys[1] and KEY not in keys and all(len(key or b"") == 32 for key in keys)
    for broken in (f"{tmp_path}/nothing", "sh -c 'exit 3'", f"echo {KEY.hex()[:-2]}", "'", ""):
        with pytest.raises(InvalidInput) as refused:
            await SmsOptions(storage_key_file=tmp_path / "none", storage_key_command=broken).storage_key("n")
        assert KEY.hex()[:20] not in str(refused.value)


def test_platforms_and_collateral_are_policies() -> None:
    options = SmsOptions(
        platforms=platform_ids("0xaa, bb"), banned_platforms=platform_ids("cc"), min_tcb_evaluation=17
    )
    assert options.policies() == [
        PlatformIn(frozenset([b"\xaa", b"\xbb"])),
        PlatformNotIn(frozenset([b"\xcc"])),
        MinTcbEvaluation(17),
    ]
    assert SmsOptions().policies() == [] and platform_ids(" ") == ()
    with pytest.raises(InvalidInput, match="32 bytes in hexadecimal in x"):
        parse_key("secret", "x")
