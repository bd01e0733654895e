"""Quorum: the TEE broker of t-of-n SMS nodes, its grants and its members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import boa
import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.deals import Change, Execute, Grant, authorisation_blob, quorum_domain
from sealdeal.model.eip712 import digest
from sealdeal.model.keys import Key
from sealdeal.model.types import Address, address, keccak
from tests.contracts.evm import ZERO, compiled, inline, refused

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
YES, NO = bytes.fromhex("1626ba7e"), bytes.fromhex("ffffffff")
HASH = keccak(b"a worker, a task and an enclave")
GRACE = 600
NODES = sorted((Key(keccak(f"node {n}".encode())) for n in range(16)), key=lambda key: int(key.address, 16))
STRANGER = Key(keccak(b"stranger"))


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    with boa.env.anchor():
        yield


def deploy(members: Sequence[Key], threshold: int = 2, grace: int = GRACE, trust: str = "simulated") -> Any:
    return compiled("Quorum").deploy([node.address for node in members], threshold, grace, trust)


@pytest.fixture
def quorum() -> Any:
    """Two of the first three nodes."""
    return deploy(NODES[:3])


def now() -> int:
    return int(boa.env.timestamp)


def domain_of(quorum: Any) -> Any:
    return quorum_domain(int(boa.env.evm.patch.chain_id), address(quorum.address))


def grants(quorum: Any, signers: Sequence[Key], until: int, hash: bytes = HASH) -> dict[Address, bytes]:
    signed = digest(domain_of(quorum), Grant(hash, until))
    return {signer.address: signer.sign_digest(signed) for signer in signers}


def blob(quorum: Any, *signers: Key, until: int | None = None, hash: bytes = HASH) -> bytes:
    until = now() + 60 if until is None else until
    return authorisation_blob(until, grants(quorum, signers, until, hash))


def joined(until: int, signatures: Sequence[bytes]) -> bytes:
    return until.to_bytes(32, "big") + b"".join(signatures)


# ---- Grants ------------------------------------------------------------------------------------------------


def test_enough_members_grant(quorum: Any) -> None:
    for signers in (NODES[:2], NODES[1:3], (NODES[0], NODES[2]), NODES[:3]):
        assert quorum.isValidSignature(HASH, blob(quorum, *signers)) == YES


def test_the_last_second_counts(quorum: Any) -> None:
    until = now() + 60
    signed = blob(quorum, *NODES[:2], until=until)
    boa.env.timestamp = until
    assert quorum.isValidSignature(HASH, signed) == YES
    boa.env.timestamp = until + 1
    assert quorum.isValidSignature(HASH, signed) == NO


def test_fifteen_of_fifteen() -> None:
    quorum = deploy(NODES[:15], 15)
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[:15])) == YES
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[:14])) == NO
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[1:15], STRANGER)) == NO


def attacks(quorum: Any) -> Mapping[str, bytes]:
    until = now() + 60
    signed = grants(quorum, [*NODES[:3], STRANGER], until)
    first, second, third = (signed[node.address] for node in NODES[:3])
    stranger = signed[STRANGER.address]
    pair = sorted(((NODES[0].address, first), (STRANGER.address, stranger)), key=lambda p: int(p[0], 16))
    s = int.from_bytes(second[32:64], "big")
    high_s = second[:32] + (ORDER - s).to_bytes(32, "big") + bytes([55 - second[64]])
    other = deploy(NODES[:3])
    return {
        "nothing": b"",
        "half an expiry": b"\xff" * 31,
        "an expiry alone": joined(until, []),
        "one signature": joined(until, [first]),
        "one signature twice": joined(until, [first, first]),
        "descending signers": joined(until, [second, first]),
        "a duplicate after enough": joined(until, [first, second, second]),
        "a stranger and a member": joined(until, [signature for _, signature in pair]),
        "junk after enough": joined(until, [first, second, b"\x00"]),
        "a missing byte": joined(until, [first, second[:-1]]),
        "a third signature that is junk": joined(until, [first, second, b"\x01" * 65]),
        "signatures that recover to nobody": joined(until, [b"\x00" * 64 + b"\x1b"] * 2),
        "v of 0 and 1": joined(until, [first[:64] + bytes([first[64] - 27]), second]),
        "v of 29": joined(until, [first, second[:64] + b"\x1d"]),
        "the upper half of s": joined(until, [first, high_s]),
        "another expiry than signed": joined(until + 1, [first, second]),
        "expired": blob(quorum, *NODES[:2], until=now() - 1),
        "another hash": blob(quorum, *NODES[:2], hash=keccak(b"another")),
        "another quorum": blob(other, *NODES[:2]),
        "the hash itself signed": joined(until, [node.sign_digest(HASH) for node in NODES[:2]]),
        "the hash signed as a message": joined(until, [node.sign_message(HASH) for node in NODES[:2]]),
        "compact signatures": joined(until, [first[:64], second[:64]]),
        "fifteen times the same": joined(until, [third] * 15),
    }


def test_every_attack_is_refused(quorum: Any) -> None:
    for name, junk in attacks(quorum).items():
        assert quorum.isValidSignature(HASH, junk) == NO, name


def test_more_than_fifteen_signatures_revert(quorum: Any) -> None:
    with refused():
        quorum.isValidSignature(HASH, blob(quorum, *NODES[:2]) + b"\x00" * 65 * 14)


@given(junk=st.binary(max_size=32 + 4 * 65))
def test_junk_is_answered_not_reverted(junk: bytes) -> None:
    with boa.env.anchor():
        assert deploy(NODES[:3]).isValidSignature(HASH, junk) == NO


@given(
    threshold=st.integers(1, 5),
    chosen=st.lists(st.integers(0, 6), min_size=1, max_size=6),
)
def test_exactly_sets_of_enough_members_in_order_count(threshold: int, chosen: list[int]) -> None:
    """Nodes 0 to 4 are members, 5 and 6 are not."""
    with boa.env.anchor():
        quorum = deploy(NODES[:5], threshold)
        until = now() + 60
        signed = grants(quorum, NODES[:7], until)
        answer = quorum.isValidSignature(HASH, joined(until, [signed[NODES[n].address] for n in chosen]))
        good = len(chosen) >= threshold and chosen == sorted(set(chosen)) and max(chosen) < 5
        assert answer == (YES if good else NO)


def test_typed_data_is_what_wallets_sign(quorum: Any) -> None:
    """An oracle that is not ours: eth-account's EIP-712."""
    until = now() + 60
    shown = encode_typed_data(
        domain_data={
            "name": "Sealdeal Quorum",
            "version": "1",
            "chainId": int(boa.env.evm.patch.chain_id),
            "verifyingContract": quorum.address,
        },
        message_types={
            "Grant": [{"name": "digest", "type": "bytes32"}, {"name": "validUntil", "type": "uint256"}]
        },
        message_data={"digest": HASH, "validUntil": until},
    )
    assert quorum.eip712domain_separator() == shown.header
    signed = keccak(b"\x19\x01" + shown.header + shown.body)
    signatures = [node.sign_digest(signed) for node in NODES[:2]]
    assert quorum.isValidSignature(HASH, joined(until, signatures)) == YES


def test_a_chain_split_does_not_share_grants(quorum: Any) -> None:
    before = blob(quorum, *NODES[:2])
    assert quorum.isValidSignature(HASH, before) == YES
    boa.env.evm.patch.chain_id = 31338
    assert quorum.eip712domain_separator() == domain_of(quorum).separator
    assert quorum.isValidSignature(HASH, before) == NO
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[:2])) == YES


def test_a_hub_asks_by_static_call(quorum: Any) -> None:
    asker = inline(
        """
interface Broker:
    def isValidSignature(hash: bytes32, blob: Bytes[1024]) -> bytes4: view

@external
@view
def ask(broker: address, hash: bytes32, blob: Bytes[1024]) -> bool:
    return staticcall Broker(broker).isValidSignature(hash, blob) == 0x1626ba7e
"""
    )
    assert asker.ask(quorum.address, HASH, blob(quorum, *NODES[:2]))
    assert not asker.ask(quorum.address, HASH, blob(quorum, NODES[0]))


# ---- Birth -------------------------------------------------------------------------------------------------


def test_what_it_says_about_itself(quorum: Any) -> None:
    logs = quorum.get_logs()
    assert [log.member for log in logs[:3]] == [node.address for node in NODES[:3]]
    assert logs[3].threshold == 2
    assert quorum.members() == [node.address for node in NODES[:3]]
    assert (quorum.threshold(), quorum.grace(), quorum.trust(), quorum.nonce()) == (2, GRACE, "simulated", 0)
    assert all(quorum.isMember(node.address) for node in NODES[:3])
    assert not quorum.isMember(NODES[3].address)
    assert not quorum.isMember(ZERO)
    assert deploy(NODES[:1], 1, 0, "hardware").trust() == "hardware"


def test_births_refused() -> None:
    def refusal(reason: str, *args: Any) -> None:
        with pytest.raises(boa.BoaError, match=reason):
            deploy(*args)

    refusal("Quorum: trust is hardware or simulated", NODES[:3], 2, GRACE, "maybe")
    refusal("Quorum: trust is hardware or simulated", NODES[:3], 2, GRACE, "")
    refusal("Quorum: grace is above 90 days", NODES[:3], 2, 90 * 86400 + 1)
    refusal("Quorum: threshold is zero", NODES[:3], 0)
    refusal("Quorum: threshold is above the number of members", NODES[:3], 4)
    refusal("Quorum: threshold is zero", [], 0)
    refusal("Quorum: already a member", [NODES[0], NODES[0]], 2)
    with pytest.raises(boa.BoaError, match="Quorum: the zero address cannot sign"):
        compiled("Quorum").deploy([ZERO], 1, GRACE, "hardware")


# ---- Changes -----------------------------------------------------------------------------------------------


def change(
    quorum: Any,
    signers: Sequence[Key],
    *,
    add: Sequence[Key] = (),
    remove: Sequence[Key] = (),
    threshold: int = 2,
    compromised: bool = False,
    nonce: int | None = None,
    until: int | None = None,
) -> None:
    """Have `signers` sign a change and anyone send it."""
    until = now() + 60 if until is None else until
    wanted = Change(
        tuple(key.address for key in add),
        tuple(key.address for key in remove),
        threshold,
        compromised,
        quorum.nonce() if nonce is None else nonce,
        until,
    )
    signed = digest(domain_of(quorum), wanted)
    signatures = {signer.address: signer.sign_digest(signed) for signer in signers}
    *fields, _ = wanted.as_tuple()
    quorum.changeMembers(*fields, authorisation_blob(until, signatures))


def test_members_change_their_number(quorum: Any) -> None:
    change(quorum, NODES[:2], add=NODES[3:5], threshold=3)
    assert [log.member for log in quorum.get_logs()[:2]] == [node.address for node in NODES[3:5]]
    assert quorum.members() == [node.address for node in NODES[:5]]
    assert (quorum.threshold(), quorum.nonce()) == (3, 1)
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[:2])) == NO
    assert quorum.isValidSignature(HASH, blob(quorum, NODES[0], *NODES[3:5])) == YES


def test_a_removed_member_counts_until_the_end_of_grace(quorum: Any) -> None:
    later = now() + 10 * GRACE
    signed = blob(quorum, *NODES[:2], until=later)
    change(quorum, NODES[1:3], remove=NODES[:1])
    [removed, _] = quorum.get_logs()
    end = now() + GRACE
    assert (removed.member, removed.validUntil) == (NODES[0].address, end)
    assert not quorum.isMember(NODES[0].address)
    assert quorum.validUntil(NODES[0].address) == end
    assert sorted(quorum.members()) == sorted(node.address for node in NODES[1:3])
    boa.env.timestamp = end
    assert quorum.isValidSignature(HASH, signed) == YES
    boa.env.timestamp = end + 1
    assert quorum.isValidSignature(HASH, signed) == NO


def test_a_compromised_member_counts_no_more(quorum: Any) -> None:
    signed = blob(quorum, *NODES[:2])
    change(quorum, NODES[1:3], remove=NODES[:1], compromised=True)
    assert quorum.isValidSignature(HASH, signed) == NO
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[1:3])) == YES


def test_grace_can_be_cut_short(quorum: Any) -> None:
    change(quorum, NODES[1:3], remove=NODES[:1])
    signed = blob(quorum, *NODES[:2])
    assert quorum.isValidSignature(HASH, signed) == YES
    change(quorum, NODES[1:3], remove=NODES[:1], compromised=True)
    assert quorum.isValidSignature(HASH, signed) == NO


def test_a_removed_member_in_grace_changes_nothing(quorum: Any) -> None:
    change(quorum, NODES[1:3], remove=NODES[:1])
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[:2])) == YES
    with refused("Quorum: not authorised"):
        change(quorum, NODES[:2], add=NODES[:1])


def test_a_removed_member_may_return(quorum: Any) -> None:
    change(quorum, NODES[1:3], remove=NODES[:1])
    change(quorum, NODES[1:3], add=NODES[:1], threshold=3)
    boa.env.timestamp = now() + GRACE + 1
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[:3])) == YES


def test_a_key_is_replaced_in_one_change() -> None:
    quorum = deploy(NODES[:15], 8)
    change(quorum, NODES[:8], add=NODES[15:16], remove=NODES[7:8], threshold=8)
    kept = [*NODES[:7], *NODES[8:16]]
    assert sorted(quorum.members()) == sorted(node.address for node in kept)
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[8:16])) == YES


def test_changes_refused(quorum: Any) -> None:
    with refused("Quorum: not authorised"):
        change(quorum, NODES[:1], add=NODES[3:4])
    with refused("Quorum: not authorised"):
        change(quorum, [NODES[0], STRANGER], add=NODES[3:4])
    with refused("Quorum: not authorised"):
        change(quorum, NODES[:2], add=NODES[3:4], until=now() - 1)
    with refused("Quorum: not authorised"):
        quorum.changeMembers([NODES[3].address], [], 2, False, 0, b"")
    with refused("Quorum: nonce is not the current one"):
        change(quorum, NODES[:2], add=NODES[3:4], nonce=1)
    with refused("Quorum: not a member"):
        change(quorum, NODES[:2], remove=[STRANGER])
    with refused("Quorum: not a member"):
        change(quorum, NODES[:2], remove=[NODES[0], NODES[0]], threshold=1)
    with refused("Quorum: not a member"):
        change(quorum, NODES[:2], remove=[NODES[0], NODES[0]], threshold=1, compromised=True)
    with refused("Quorum: already a member"):
        change(quorum, NODES[:2], add=NODES[:1])
    with refused("Quorum: more than 15 members"):
        change(quorum, NODES[:2], add=NODES[3:16])
    with refused("Quorum: threshold is above the number of members"):
        change(quorum, NODES[:2], remove=NODES[:2])
    with refused("Quorum: threshold is zero"):
        change(quorum, NODES[:2], threshold=0)
    assert quorum.nonce() == 0
    assert quorum.members() == [node.address for node in NODES[:3]]


def test_a_change_cannot_be_altered_or_replayed(quorum: Any) -> None:
    until = now() + 60
    wanted = Change((NODES[3].address,), (), 2, False, 0, until)
    signed = digest(domain_of(quorum), wanted)
    approval = authorisation_blob(until, {node.address: node.sign_digest(signed) for node in NODES[:2]})
    added = [NODES[3].address]
    alterations: list[tuple[Any, ...]] = [
        ([NODES[4].address], [], 2, False, 0),
        ([], added, 2, False, 0),
        (added, [], 1, False, 0),
        (added, [], 2, True, 0),
        ([], [], 2, False, 0),
    ]
    for altered in alterations:
        with refused("Quorum: not authorised"):
            quorum.changeMembers(*altered, approval)
    quorum.changeMembers(added, [], 2, False, 0, approval)
    with refused("Quorum: nonce is not the current one"):
        quorum.changeMembers(added, [], 2, False, 0, approval)
    with refused("Quorum: not authorised"):
        quorum.changeMembers(added, [], 2, False, 1, approval)


def test_a_grant_is_no_change(quorum: Any) -> None:
    """Nodes sign whatever hash a hub asks about: none of these may read as a change."""
    until = now() + 60
    wanted = Change((STRANGER.address,), (), 1, False, 0, until)
    for hash in (wanted.struct_hash(), digest(domain_of(quorum), wanted)):
        with refused("Quorum: not authorised"):
            quorum.changeMembers([STRANGER.address], [], 1, False, 0, blob(quorum, *NODES[:2], hash=hash))


steps = st.lists(st.tuples(st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6)), st.booleans()), max_size=5)


@given(steps=steps)
def test_members_follow_a_model(steps: list[tuple[set[int], set[int], bool]]) -> None:
    with boa.env.anchor():
        quorum = deploy(NODES[:3])
        members = {0, 1, 2}
        for adding, removing, compromised in steps:
            gone = removing & members
            new = adding - (members - gone)
            left = (members - gone) | new
            if not left:
                continue
            signers = [NODES[n] for n in sorted(members)]
            change(
                quorum,
                signers,
                add=[NODES[n] for n in sorted(new)],
                remove=[NODES[n] for n in sorted(gone)],
                threshold=len(left),
                compromised=compromised,
            )
            members = left
        assert sorted(quorum.members()) == sorted(NODES[n].address for n in members)
        assert [n for n in range(7) if quorum.isMember(NODES[n].address)] == sorted(members)
        everyone = [NODES[n] for n in sorted(members)]
        assert quorum.threshold() <= len(members)
        assert quorum.isValidSignature(HASH, blob(quorum, *everyone)) == YES


# ---- Executions --------------------------------------------------------------------------------------------

TARGET = """
COPY: constant(address) = 0x0000000000000000000000000000000000000004

last: public(address)
calls: public(uint256)
data: public(Bytes[3000])
refuses: bool

@external
def refuse(refuses: bool):
    self.refuses = refuses

@external
@payable
def __default__():
    assert not self.refuses, "Target: not now"
    self.last = msg.sender
    self.calls += 1
    self.data = raw_call(COPY, msg.data, max_outsize=3000, is_static_call=True)
"""


@pytest.fixture
def target() -> Any:
    """A contract that notes who called it with what."""
    return inline(TARGET)


def execution(quorum: Any, target: Any, data: bytes) -> Execute:
    """The next one, good for a minute."""
    return Execute(address(target.address), data, quorum.nonce(), now() + 60)


def execute(quorum: Any, signers: Sequence[Key], wanted: Execute, signed: Execute | None = None) -> None:
    """Have `signers` sign an execution, or another one, and anyone send it."""
    hash = digest(domain_of(quorum), signed or wanted)
    signatures = {signer.address: signer.sign_digest(hash) for signer in signers}
    *fields, until = wanted.as_tuple()
    quorum.execute(*fields, authorisation_blob(until, signatures))


DATA = b"\x12\x34\x56\x78" + b"\x9a" * 100


def test_members_make_a_call_as_the_quorum(quorum: Any, target: Any) -> None:
    execute(quorum, NODES[:2], execution(quorum, target, DATA))
    [executed] = quorum.get_logs()
    assert (executed.target, executed.nonce, executed.data) == (target.address, 0, DATA)
    assert (target.last(), target.data(), target.calls()) == (quorum.address, DATA, 1)
    assert quorum.nonce() == 1
    execute(quorum, NODES[1:3], execution(quorum, target, b""))
    assert (target.data(), target.calls()) == (b"", 2)


def test_executions_refused(quorum: Any, target: Any) -> None:
    good = execution(quorum, target, DATA)
    with refused("Quorum: not authorised"):
        execute(quorum, NODES[:1], good)
    with refused("Quorum: not authorised"):
        execute(quorum, [NODES[0], STRANGER], good)
    other = inline(TARGET)
    others: list[dict[str, Any]] = [
        {"target": address(other.address)},
        {"data": DATA[:-1]},
        {"nonce": 1},
        {"validUntil": now() + 61},
    ]
    for changes in others:
        with refused("Quorum: not authorised"):
            execute(quorum, NODES[:2], good, replace(good, **changes))
    with refused("Quorum: not authorised"):
        execute(quorum, NODES[:2], replace(good, validUntil=now() - 1))
    with refused("Quorum: nonce is not the current one"):
        execute(quorum, NODES[:2], replace(good, nonce=1))
    with refused("Quorum: the target has no code"):
        execute(quorum, NODES[:2], replace(good, target=STRANGER.address))
    with refused("Quorum: not authorised"):
        quorum.execute(target.address, DATA, 0, b"")
    with refused():
        execute(quorum, NODES[:2], execution(quorum, target, b"\x01" * 2049))
    assert target.calls() == 0
    execute(quorum, NODES[:2], execution(quorum, target, b"\x01" * 2048))
    assert target.calls() == 1


def test_nothing_is_executed_twice(quorum: Any, target: Any) -> None:
    once = execution(quorum, target, DATA)
    execute(quorum, NODES[:2], once)
    with refused("Quorum: nonce is not the current one"):
        execute(quorum, NODES[:2], once)
    # Nor after a change, nor in another quorum, nor on another chain.
    stale = execution(quorum, target, DATA)
    change(quorum, NODES[:2], add=NODES[3:4])
    with refused("Quorum: nonce is not the current one"):
        execute(quorum, NODES[:2], stale)
    twin = deploy(NODES[:3])
    mine = execution(twin, target, DATA)
    hash = digest(domain_of(quorum), mine)
    signatures = {node.address: node.sign_digest(hash) for node in NODES[:2]}
    *fields, until = mine.as_tuple()
    with refused("Quorum: not authorised"):
        twin.execute(*fields, authorisation_blob(until, signatures))
    hash = digest(domain_of(twin), mine)
    signatures = {node.address: node.sign_digest(hash) for node in NODES[:2]}
    boa.env.evm.patch.chain_id = 31338
    with refused("Quorum: not authorised"):
        twin.execute(*fields, authorisation_blob(until, signatures))


def test_a_change_that_was_signed_before_an_execution_is_void(quorum: Any, target: Any) -> None:
    execute(quorum, NODES[:2], execution(quorum, target, DATA))
    with refused("Quorum: nonce is not the current one"):
        change(quorum, NODES[:2], add=NODES[3:4], nonce=0)


def test_former_members_decide_nothing(quorum: Any, target: Any) -> None:
    """Though their grants still count."""
    change(quorum, NODES[1:3], remove=NODES[:1])
    assert quorum.isValidSignature(HASH, blob(quorum, *NODES[:2])) == YES
    with refused("Quorum: not authorised"):
        execute(quorum, NODES[:2], execution(quorum, target, DATA))


def test_a_grant_is_no_execution(quorum: Any, target: Any) -> None:
    """Whatever hash is granted, the types differ."""
    wanted = execution(quorum, target, DATA)
    granted = Grant(wanted.struct_hash(), wanted.validUntil)
    hash = digest(domain_of(quorum), granted)
    signatures = {node.address: node.sign_digest(hash) for node in NODES[:2]}
    *fields, until = wanted.as_tuple()
    with refused("Quorum: not authorised"):
        quorum.execute(*fields, authorisation_blob(until, signatures))


def test_a_refusal_is_passed_on_and_may_be_tried_again(quorum: Any, target: Any) -> None:
    wanted = execution(quorum, target, DATA)
    target.refuse(True)
    with refused("Target: not now"):
        execute(quorum, NODES[:2], wanted)
    assert quorum.nonce() == 0
    target.refuse(False)
    execute(quorum, NODES[:2], wanted)
    assert target.calls() == 1


def test_a_target_cannot_execute_again_from_inside(quorum: Any) -> None:
    """The nonce is spent before the call."""
    again = inline(
        """
interface Quorum:
    def execute(target: address, data: Bytes[2048], nonce: uint256, blob: Bytes[1024]): nonpayable

blob: Bytes[1024]
count: public(uint256)

@external
def prepare(blob: Bytes[1024]):
    self.blob = blob

@external
@payable
def __default__():
    self.count += 1
    extcall Quorum(msg.sender).execute(self, b"", 0, self.blob)
"""
    )
    wanted = execution(quorum, again, b"")
    hash = digest(domain_of(quorum), wanted)
    *fields, until = wanted.as_tuple()
    signed = authorisation_blob(until, {node.address: node.sign_digest(hash) for node in NODES[:2]})
    again.prepare(signed)
    with refused("Quorum: nonce is not the current one"):
        quorum.execute(*fields, signed)
    assert again.count() == 0


def test_what_wallets_sign_to_execute(quorum: Any, target: Any) -> None:
    """An oracle that is not ours: eth-account's EIP-712."""
    wanted = execution(quorum, target, DATA)
    shown = encode_typed_data(
        domain_data={
            "name": "Sealdeal Quorum",
            "version": "1",
            "chainId": int(boa.env.evm.patch.chain_id),
            "verifyingContract": quorum.address,
        },
        message_types={
            "Execute": [
                {"name": "target", "type": "address"},
                {"name": "data", "type": "bytes"},
                {"name": "nonce", "type": "uint256"},
                {"name": "validUntil", "type": "uint256"},
            ]
        },
        message_data={
            "target": wanted.target,
            "data": DATA,
            "nonce": 0,
            "validUntil": wanted.validUntil,
        },
    )
    hash = keccak(b"\x19\x01" + shown.header + shown.body)
    *fields, until = wanted.as_tuple()
    quorum.execute(*fields, joined(until, [node.sign_digest(hash) for node in NODES[:2]]))
    assert target.calls() == 1
