"""A network's contracts, put on a real chain: as the official networks are, otherwise, and in two halves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sealdeal.chain import (
    CATEGORIES,
    Addresses,
    Anvil,
    Contract,
    DeploymentStopped,
    DeployOptions,
    Heartbeat,
    Hub,
    Quorum,
    QuorumTerms,
    Reverted,
    Rpc,
    Sender,
    artefact,
    deploy,
    verify,
)
from sealdeal.chain import sender as sender_module
from sealdeal.chain.contract import hub_pieces
from sealdeal.chain.errors import OutOfGasMoney
from sealdeal.chain.local import ETHER
from sealdeal.chain.reads import Reader
from sealdeal.chain.wallet import Transaction, create_address
from sealdeal.model.deals import Execute, quorum_domain
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import ChainError, IntegrityError, InvalidInput
from sealdeal.model.keys import Key
from sealdeal.model.types import RLC, ZERO, address, hexstr
from tests.chain.counter import wallet

STRANGER = address(b"\x77" * 20)
SUPPLY = 87_000_000 * RLC
CREATIONS = len(hub_pieces()) + 5
"""Token, pieces of the hub, registries, DataProtector; a quorum is one more. The hub is the last."""
TERMS = QuorumTerms([wallet("node").address, STRANGER], 2, "hardware", grace=60)


@pytest.fixture
async def sender(chain: Rpc, anvil: Anvil) -> Sender:
    """A funded account that was never used."""
    made = Sender(chain, wallet("deployer"), patience=20.0)
    await anvil.fund(made.address, 100 * ETHER)
    return made


async def nonce(sender: Sender) -> int:
    return int(await sender.rpc.call("eth_getTransactionCount", sender.address, "latest"), 16)


async def owners(rpc: Rpc, at: Addresses) -> set[str]:
    abi = artefact("AppRegistry").abi  # the hub answers owner() likewise
    places = (at.hub, at.appregistry, at.datasetregistry, at.workerpoolregistry)
    return set(await Reader(rpc).read_many([(Contract(place, abi), "owner") for place in places]))


async def registries(rpc: Rpc, at: Addresses, function: str) -> list[Any]:
    places = (at.appregistry, at.datasetregistry, at.workerpoolregistry)
    abi = artefact("AppRegistry").abi
    return await Reader(rpc).read_many([(Contract(place, abi), function) for place in places])


async def test_by_default_it_is_an_official_network(sender: Sender) -> None:
    made = await deploy(sender)
    hub = Hub(sender.rpc, made)
    found = [(c.name, c.description, c.reference_time) for c in await hub.categories()]
    assert found == list(CATEGORIES)
    assert [seconds for *_, seconds in found] == [300, 1_200, 3_600, 10_800, 36_000]
    assert (made.quorum, await hub.tee_broker()) == (None, ZERO)
    assert await owners(sender.rpc, made) == {sender.address}
    assert await hub.token_balance(sender.address) == SUPPLY
    chain_id = await sender.rpc.chain_id()
    assert await registries(sender.rpc, made, "baseURI") == [
        f"https://nfts-metadata.iex.ec/{kind}/{chain_id}/" for kind in ("app", "dataset", "workerpool")
    ]
    assert await registries(sender.rpc, made, "initialized") == [True] * 3
    assert await registries(sender.rpc, made, "previous") == [ZERO] * 3
    assert (await Hub.connect(sender.rpc, made.hub)).addresses == replace(made, dataprotector=None)
    assert made.dataprotector
    door = Contract(made.dataprotector, artefact("DataProtector").abi)
    assert await Reader(sender.rpc).read(door, "registry") == made.datasetregistry


async def test_otherwise(sender: Sender) -> None:
    earlier = await deploy(sender)
    previous = (earlier.appregistry, earlier.datasetregistry, earlier.workerpoolregistry)
    categories = [(f"size {n}", f"to {n}: many", n) for n in range(11)]
    made = await deploy(
        sender,
        DeployOptions(
            categories=categories,
            token=earlier.token,
            broker=TERMS,
            owner=STRANGER,
            previous=previous,
            base_uri="",
        ),
    )
    hub = Hub(sender.rpc, made)
    assert [(c.name, c.description, c.reference_time) for c in await hub.categories()] == categories
    assert made.token == earlier.token
    assert made.quorum == await hub.tee_broker() != ZERO
    assert await owners(sender.rpc, made) == {STRANGER}
    assert await registries(sender.rpc, made, "previous") == list(previous)
    assert await registries(sender.rpc, made, "baseURI") == [""] * 3
    (quorum,) = [one for one in await verify(sender.rpc, made) if one.name == "Quorum"]
    chosen = {"members": list(TERMS.members), "threshold": 2, "trust": "hardware", "grace": 60}
    assert (quorum.choices, quorum.differences) == (chosen, ())


async def test_a_quorum_may_own_it(sender: Sender) -> None:
    """Then what an owner does takes as many signatures as the quorum asks for, and may wait as well."""
    nodes = [Key(bytes([n]) * 32) for n in (1, 2)]
    terms = QuorumTerms([node.address for node in nodes], 2, "hardware")
    tiny = [("tiny", "ended after ten seconds", 1)]
    strict = DeployOptions(tiny, broker=terms, owner="quorum", kitty_capped=True, changes_delayed=True)
    made = await deploy(sender, strict)
    assert made.quorum
    assert await owners(sender.rpc, made) == {made.quorum}
    hub, quorum = Hub(sender.rpc, made), Quorum(sender.rpc, made.quorum)
    assert await hub.tee_broker() == made.quorum  # at once, though a change of it would wait
    data = hub.hub.abi.encode("setTeeBroker", STRANGER)
    head = await sender.rpc.call("eth_getBlockByNumber", "latest", False)
    until = int(head["timestamp"], 16) + 600
    decision = Execute(made.hub, data, await quorum.changes(), until)
    signed = digest(quorum_domain(await sender.rpc.chain_id(), made.quorum), decision)
    signatures = {node.address: node.sign_digest(signed) for node in nodes}
    with pytest.raises(Reverted, match="not authorised"):
        await quorum.execute(sender, decision, dict([*signatures.items()][:1]))
    await quorum.execute(sender, decision, signatures)
    function = data[:4]
    change = await hub.read(hub.hub, "viewChange", function)
    assert change.arguments[0] == int(STRANGER, 16)
    with pytest.raises(Reverted, match="too early"):
        await sender.transact(hub.hub, "applyChange", function)
    await sender.rpc.call("evm_setNextBlockTimestamp", hex(change.effective))
    await sender.transact(hub.hub, "applyChange", function)
    assert await hub.tee_broker() == STRANGER


async def test_a_quorum_that_is_not_deployed_owns_nothing(sender: Sender) -> None:
    for broker in (None, STRANGER):
        with pytest.raises(InvalidInput, match="the terms of a quorum"):
            await deploy(sender, DeployOptions(broker=broker, owner="quorum"))
    assert await nonce(sender) == 0


async def test_nobody_may_own_it(sender: Sender) -> None:
    made = await deploy(sender, DeployOptions(owner=ZERO, holder=STRANGER))
    assert await owners(sender.rpc, made) == {ZERO}
    assert await Hub(sender.rpc, made).token_balance(STRANGER) == SUPPLY


async def test_a_broker_that_exists(sender: Sender) -> None:
    first = await deploy(sender, DeployOptions(broker=TERMS))
    again = await deploy(sender, DeployOptions(broker=first.quorum))
    assert again.quorum == first.quorum
    plain = await deploy(sender, DeployOptions(broker=STRANGER))
    assert plain.quorum is None
    assert await Hub(sender.rpc, plain).tee_broker() == STRANGER


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (DeployOptions(categories=[("long", "", 2**31)]), "create Hub: settings: time reference"),
        (DeployOptions(broker=replace(TERMS, threshold=3)), "create Quorum: Quorum: threshold is above"),
    ],
)
async def test_what_a_constructor_refuses_costs_nothing(
    sender: Sender, options: DeployOptions, says: str
) -> None:
    with pytest.raises(Reverted, match=says):
        await deploy(sender, options)
    assert await nonce(sender) == 0


async def test_without_enough_money_nothing_is_sent(sender: Sender, anvil: Anvil) -> None:
    await anvil.fund(sender.address, ETHER // 1000)
    with pytest.raises(OutOfGasMoney, match="fund it"):
        await deploy(sender)
    assert await nonce(sender) == 0


async def test_a_chain_of_small_blocks_is_told_so() -> None:
    async with Anvil(chain_id=1234) as small:
        await small.rpc.call("evm_setBlockGasLimit", hex(4_000_000))
        await small.rpc.call("evm_mine")
        sender = Sender(small.rpc, wallet("deployer"))
        await small.fund(sender.address)
        with pytest.raises(ChainError, match="a block holds 4000000 gas"):
            await deploy(sender)
        assert await nonce(sender) == 0


# ---- In two halves -----------------------------------------------------------------------------------------


@pytest.fixture
async def stalled() -> AsyncIterator[Sender]:
    """An account on a chain of its own that mines when it is told, a few creations per block."""
    async with Anvil(chain_id=1234) as chain:
        await chain.rpc.call("evm_setBlockGasLimit", hex(12_000_000))
        await chain.rpc.call("evm_mine")
        await chain.rpc.call("evm_setAutomine", False)
        made = Sender(chain.rpc, wallet("deployer"), patience=0.5)
        await chain.fund(made.address)
        yield made


async def restarted(sender: Sender) -> Sender:
    """The same account in a process that remembers nothing."""
    rpc = Rpc(sender.rpc.url + "/")  # nonces are shared by URL
    return Sender(rpc, sender.wallet, patience=20.0)


@pytest.mark.parametrize("blocks", range(3))
async def test_it_goes_on_from_where_it_stopped(stalled: Sender, blocks: int) -> None:
    options = DeployOptions(broker=TERMS, owner=STRANGER)
    with pytest.raises(DeploymentStopped, match="--resume 0") as stopped:
        await deploy(stalled, options)
    assert stopped.value.first == 0
    for _ in range(blocks):
        await stalled.rpc.call("evm_mine")
    assert (await nonce(stalled) > 0) == (blocks > 0)
    assert await nonce(stalled) < CREATIONS + 1
    await stalled.rpc.call("anvil_dropAllTransactions")
    await stalled.rpc.call("evm_setAutomine", True)
    sender = await restarted(stalled)
    try:
        made = await deploy(sender, options, first=0)
    finally:
        await sender.rpc.aclose()
    assert made.hub == create_address(stalled.address, CREATIONS)
    assert await owners(stalled.rpc, made) == {STRANGER}
    assert await nonce(stalled) == CREATIONS + 1 + 6 + 4  # 6 of registries, 4 owners
    assert not [one for one in await verify(stalled.rpc, made) if one.differences]


async def test_it_waits_for_what_is_still_on_its_way(stalled: Sender) -> None:
    with pytest.raises(DeploymentStopped):
        await deploy(stalled)
    heartbeat = Heartbeat(stalled.rpc, interval=0.2)
    beating = asyncio.create_task(heartbeat.run())
    with heartbeat.waiting("blocks"):  # anvil forgets what fits into no block at first
        made = await deploy(Sender(stalled.rpc, stalled.wallet, patience=20.0), first=0)
    beating.cancel()
    assert made.hub == create_address(stalled.address, CREATIONS - 1)


async def test_a_whole_deployment_needs_nothing_more(sender: Sender) -> None:
    made = await deploy(sender)
    used = await nonce(sender)
    assert await deploy(sender, first=0) == made
    assert await nonce(sender) == used


async def test_other_options_are_noticed(sender: Sender) -> None:
    await deploy(sender, DeployOptions(broker=TERMS))
    renamed = [("tiny", "", 300), *CATEGORIES[1:]]
    for options, says in [
        (
            DeployOptions(broker=replace(TERMS, trust="simulated")),
            "trust: expected simulated, found hardware",
        ),
        (
            DeployOptions(broker=TERMS, holder=STRANGER),
            f"holder: expected {STRANGER}, found {sender.address}",
        ),
        (DeployOptions(broker=TERMS, categories=renamed), "categories: expected .*tiny"),
    ]:
        with pytest.raises(IntegrityError, match=says):
            await deploy(sender, options, first=0)
    with pytest.raises(DeploymentStopped, match=r"Hub, expected at .* is not there"):
        await deploy(sender, first=0)


async def test_a_nonce_that_went_elsewhere_ends_it(sender: Sender) -> None:
    await sender.send(STRANGER, value=1)
    with pytest.raises(DeploymentStopped, match=r"Rlc, expected at .* begin another") as stopped:
        await deploy(sender, first=0)
    assert stopped.value.first is None
    with pytest.raises(InvalidInput, match="has used 1, got 2"):
        await deploy(sender, first=2)
    assert await deploy(sender, first=1)


async def test_a_transaction_in_between_ends_it(stalled: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "LOST_AFTER", 0.1)
    monkeypatch.setattr(sender_module, "CHECK_AFTER", 0.1)
    rpc = stalled.rpc
    deploying = asyncio.create_task(deploy(Sender(rpc, stalled.wallet, patience=20.0)))
    while int(await rpc.call("eth_getTransactionCount", stalled.address, "pending"), 16) < CREATIONS:
        await asyncio.sleep(0.02)
    await rpc.call("anvil_dropAllTransactions")
    other = Transaction(1234, 0, ETHER // 10**9, ETHER // 10**8, 21_000, STRANGER, 1, b"")
    await rpc.call("eth_sendRawTransaction", hexstr(stalled.wallet.sign_transaction(other)))
    await rpc.call("evm_mine")
    await rpc.call("evm_setAutomine", True)
    with pytest.raises(DeploymentStopped, match="because another transaction came in between") as stopped:
        await deploying
    assert stopped.value.first is None
