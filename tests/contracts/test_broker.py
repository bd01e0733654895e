"""The quorum as the hub's TEE broker: on a chain, through a whole task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.deals import (
    Change,
    Grant,
    TaskStatus,
    authorisation_blob,
    authorisation_message,
    quorum_domain,
)
from sealdeal.model.eip712 import digest
from sealdeal.model.keys import Key, message_digest
from tests.contracts.world import CHAIN_ID, Contract, Enclave, World, code, key, refusal

NODES = sorted((key(f"node {n}") for n in range(3)), key=lambda node: int(node.address, 16))
RESULTS = b"/ipfs/QmResult"
GRACE = 600


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    started = World.start()
    try:
        yield started
    finally:
        started.chain.close()


@pytest.fixture(scope="module")
def quorum(world: World) -> Contract:
    """Two of three nodes, named as the hub's broker."""
    arguments = encode(
        ["address[]", "uint256", "uint256", "string"],
        [[node.address for node in NODES], 2, GRACE, "simulated"],
    )
    at = world.chain.deploy(code("Quorum") + arguments, world.owner.address)
    world.hub.setTeeBroker(at)
    return Contract(world.chain, "Quorum", at, world.who("stranger"))


@pytest.fixture
def task(world: World, quorum: Contract) -> Iterator[bytes]:
    with world.chain.undone():
        yield world.task(tee=True, dataset=True)


Granted = Callable[..., tuple[Any, ...]]


@pytest.fixture
def granted(world: World, quorum: Contract, task: bytes) -> Granted:
    """Arguments of contributeAndFinalize, authorised by these nodes."""

    def grant(*nodes: Key, until: int | None = None, worker: str = "worker") -> tuple[Any, ...]:
        made: Enclave = world.enclave(task, worker=worker, tee=True)
        until = world.chain.now() + 3600 if until is None else until
        asked = message_digest(authorisation_message(world.who(worker), task, made.challenge))
        signed = digest(quorum_domain(CHAIN_ID, quorum.address), Grant(asked, until))
        blob = authorisation_blob(until, {node.address: node.sign_digest(signed) for node in nodes})
        made = replace(made, authorization=blob)
        return task, made.digest, RESULTS, b"", made.challenge, made.sign, made.authorization

    return grant


def test_two_of_three_nodes_let_a_result_in(world: World, task: bytes, granted: Granted) -> None:
    world.hub.contributeAndFinalize(*granted(*NODES[:2]), sender=world.who("worker"))
    assert world.hub.viewTask(task).status == TaskStatus.COMPLETED


def test_anything_less_is_refused_without_data(world: World, task: bytes, granted: Granted) -> None:
    *rest, blob = granted(*NODES[:2])
    scheduler = world.enclave(task, tee=True).authorization
    attempts = {
        "one node": granted(NODES[0]),
        "expired": granted(*NODES[:2], until=world.chain.now() - 1),
        "another worker's grant": (*rest, granted(*NODES[:2], worker="worker2")[-1]),
        "junk behind": (*rest, blob + b"\x00"),
        "more than fifteen signatures": (*rest, blob + bytes(65 * 14)),
        "nothing": (*rest, b""),
        "a second expiry": (*rest, blob[:32] + blob),
    }
    for name, arguments in attempts.items():
        said = refusal(world.hub, "contributeAndFinalize", *arguments, sender=world.who("worker"))
        assert said == b"", name
    said = refusal(world.hub, "contributeAndFinalize", *rest, scheduler, sender=world.who("worker"))
    assert said == b""  # what would be enough without a broker
    assert world.hub.viewTask(task).status == TaskStatus.ACTIVE


def test_a_removed_node_leaves_its_grants_for_the_grace(
    world: World, task: bytes, granted: Granted, quorum: Contract
) -> None:
    until = world.chain.now() + 3600
    arguments = granted(*NODES[:2], until=until)
    change = Change((), (NODES[0].address,), 2, False, 0, until)
    signed = digest(quorum_domain(CHAIN_ID, quorum.address), change)
    approval = authorisation_blob(until, {node.address: node.sign_digest(signed) for node in NODES[1:]})
    quorum.changeMembers([], [NODES[0].address], 2, False, 0, approval)
    removed = world.chain.now()
    world.hub.call("contributeAndFinalize", *arguments, sender=world.who("worker"))
    world.chain.at(removed + GRACE + 1)
    late = refusal(world.hub, "contributeAndFinalize", *arguments, sender=world.who("worker"))
    assert late == b""


def test_gas_of_two_of_three(world: World, task: bytes, granted: Granted) -> None:
    """Three words of storage, one more recovery, 97 more bytes: not a cost that may creep."""
    with_quorum = world.hub.contributeAndFinalize(*granted(*NODES[:2]), sender=world.who("worker")).gas
    world.hub.setTeeBroker(world.who("broker"))
    alone = world.task(tee=True, dataset=True)
    without = world.direct(alone, RESULTS, tee=True, signer="broker").gas
    assert 0 < with_quorum - without < 18_000
