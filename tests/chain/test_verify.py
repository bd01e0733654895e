"""A deployment that is not what this package compiled is told apart, and told exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealdeal.chain import Compared, DeployOptions, QuorumTerms, Sender, artefact, deploy, verify
from sealdeal.chain.contract import hub_pieces, piece
from sealdeal.chain.local import ETHER
from sealdeal.chain.wallet import create_address
from sealdeal.model.types import Address, address, hexstr, unhex
from tests.chain.counter import wallet
from tests.network import Network

STRANGER = address(b"\x77" * 20)
NAMES = [
    *hub_pieces(),
    *(
        "AppRegistry",
        "App",
        "DatasetRegistry",
        "Dataset",
        "WorkerpoolRegistry",
        "Workerpool",
        "DataProtector",
        "Rlc",
        "Quorum",
    ),
]


@pytest.fixture
async def sender(network: Network) -> Sender:
    made = Sender(network.rpc, wallet("deployer"))
    await network.anvil.fund(made.address, 100 * ETHER)
    return made


OFFICIAL = {"kitty_capped": False, "changes_delayed": False}
"""Options of a hub that does as the official one."""


async def differing(network: Network, **options: bool | int) -> dict[str, tuple[str, ...]]:
    found = await verify(network.rpc, network.addresses, **options)  # type: ignore[arg-type]
    return {one.name: one.differences for one in found if one.differences}


async def by_name(network: Network) -> dict[str, Compared]:
    return {one.name: one for one in await verify(network.rpc, network.addresses)}


async def code(network: Network, at: Address) -> bytes:
    return unhex(await network.rpc.call("eth_getCode", at, "latest"))


async def put(network: Network, at: Address, content: bytes) -> None:
    await network.rpc.call("anvil_setCode", at, hexstr(content))


async def test_every_contract_is_compared(network: Network) -> None:
    found = await by_name(network)
    assert list(found) == NAMES
    assert len({one.address for one in found.values()}) == len(NAMES)
    assert not any(one.differences for one in found.values())
    assert all(one.ours for one in found.values())
    assert len(found["Hub"].choices["categories"]) == 6
    assert found["Hub"].choices["teebroker"] == network.addresses.quorum
    assert {name: found["Hub"].choices[name] for name in OFFICIAL} == OFFICIAL
    assert found["Quorum"].choices["trust"] == "simulated"


@pytest.mark.parametrize("name", NAMES)
async def test_one_changed_byte_is_found(network: Network, name: str) -> None:
    at = (await by_name(network))[name].address
    good, compiled = await code(network, at), artefact(name).runtime
    place = len(compiled) // 2
    bad = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    await put(network, at, bad)
    if name == "Rlc":  # then it is not this package's token
        found = await verify(network.rpc, network.addresses)
        assert Compared("token", at, ours=False) in found
        return
    here, there = (hexstr(content[place : place + 8]) for content in (compiled, bad))
    says = f"1 of {len(compiled)} bytes differ, from byte {place} on: expected {here}…, found {there}…"
    assert await differing(network) == {name: (f"code: {says}",)}


@pytest.mark.parametrize("name", [name for name in NAMES if artefact(name).immutables])
async def test_every_changed_immutable_is_found(network: Network, name: str) -> None:
    at = (await by_name(network))[name].address
    good, size = await code(network, at), len(artefact(name).runtime)
    for immutable in artefact(name).immutables:
        if name == "Quorum" and immutable.name in ("trust", "grace"):
            continue  # its deployer chose them
        last = size + immutable.offset + immutable.length - 1
        await put(network, at, good[:last] + bytes([good[last] ^ 1]) + good[last + 1 :])
        found = await differing(network)
        if other := piece(immutable):
            assert found[other] == ("code: none is there",)
        else:
            assert any(
                one.startswith(f"{immutable.name}: expected ") for said in found.values() for one in said
            )
        await put(network, at, good)


async def test_texts_are_compared_to_their_padding(network: Network) -> None:
    at = network.addresses.appregistry
    symbol = next(i for i in artefact("AppRegistry").immutables if i.name == "symbol")
    good, last = await code(network, at), len(artefact("AppRegistry").runtime) + symbol.offset + 63
    await put(network, at, good[:last] + b"\x01" + good[last + 1 :])
    assert await differing(network) == {
        "AppRegistry": (f"symbol: expected zeros behind it, found {hexstr(good[last - 63 :][:63])}01",)
    }


async def test_code_that_is_cut_short_or_missing(network: Network) -> None:
    at = network.addresses.datasetregistry
    good = await code(network, at)
    await put(network, at, good[:-32])
    assert await differing(network) == {
        "DatasetRegistry": ("immutables: expected 384 bytes of them, found 352",)
    }
    await put(network, at, b"")
    assert await differing(network) == {"DatasetRegistry": ("code: none is there",)}
    await put(network, at, good)
    await put(network, create_address(at, 1), b"")
    assert await differing(network) == {"Dataset": ("code: none is there",)}


async def test_what_is_no_hub(network: Network) -> None:
    found = await verify(network.rpc, replace(network.addresses, hub=STRANGER))
    says = {one.name: one.differences for one in found if one.differences}
    assert says["Hub"][0] == "code: none is there"
    assert set(says) == {"Hub", "AppRegistry", "DatasetRegistry", "WorkerpoolRegistry"}


async def test_a_hub_of_other_contracts(network: Network, sender: Sender) -> None:
    other = await deploy(sender)
    found = await verify(network.rpc, replace(network.addresses, appregistry=other.appregistry))
    says = {one.name: one.differences for one in found if one.differences}
    ours, theirs = network.addresses.appregistry, other.appregistry
    assert says == {
        "Hub": (
            f"appregistry(): expected {theirs}, found {ours}",
            f"constructor argument appregistry: expected {theirs}, found {ours}",
        ),
        "AppRegistry": (
            f"HUB: expected {network.addresses.hub}, found {other.hub}",
            f"constructor argument hub: expected {network.addresses.hub}, found {other.hub}",
        ),
    }


async def test_a_data_protector_of_another_registry(network: Network, sender: Sender) -> None:
    other = await deploy(sender)
    found = await verify(network.rpc, replace(network.addresses, dataprotector=other.dataprotector))
    ours, theirs = network.addresses.datasetregistry, other.datasetregistry
    says = {one.name: one.differences for one in found if one.differences}
    assert says == {"DataProtector": (f"registry: expected {ours}, found {theirs}",)}
    unnamed = await verify(network.rpc, replace(network.addresses, dataprotector=None))
    assert [one.name for one in unnamed] == [name for name in NAMES if name != "DataProtector"]


async def test_options_are_told(network: Network, sender: Sender) -> None:
    for one in ("kitty_capped", "changes_delayed"):
        made = await deploy(sender, replace(DeployOptions(), **{one: True}))  # type: ignore[arg-type]
        for code_only in (False, True):
            hub = (await verify(network.rpc, made, code_only=code_only))[0]
            assert {name: hub.choices[name] for name in OFFICIAL} == OFFICIAL | {one: True}
            assert hub.differences == ()


async def test_a_quorum_that_is_not_the_broker(network: Network, sender: Sender) -> None:
    made = await deploy(sender, DeployOptions(broker=QuorumTerms([STRANGER], 1, "hardware")))
    says = await verify(network.rpc, replace(network.addresses, quorum=made.quorum))
    assert says[0].differences == (f"teebroker(): expected {made.quorum}, found {network.addresses.quorum}",)


async def test_what_is_not_ours_is_said_not_to_be(network: Network, sender: Sender) -> None:
    token = await sender.send(None, unhex("6001600c60003960016000f300"))  # a contract of one byte
    made = await deploy(sender, DeployOptions(token=token.contract, broker=STRANGER))
    others = [one for one in await verify(network.rpc, made) if not one.ours]
    assert others == [
        Compared("token", made.token, ours=False),
        Compared("TEE broker", STRANGER, ours=False),
    ]
    gone = await verify(network.rpc, replace(made, token=STRANGER))
    assert ("code: none is there",) in [one.differences[:1] for one in gone if one.name == "Rlc"]


# ---- How it was created ------------------------------------------------------------------------------------


def push(value: int | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return bytes([0x5F + len(raw)]) + raw


def generous(runtime: bytes, log: bytes) -> bytes:
    """Creation code of a token that fills a slot of its storage before it becomes the compiled token."""
    act = push(10**30) + push(b"\x42" * 32) + b"\x55" + log  # SSTORE
    size = push(len(runtime).to_bytes(2, "big"))
    start = push((len(act) + 13).to_bytes(2, "big"))
    return act + size + start + b"\x5f\x39" + size + b"\x5f\xf3" + runtime  # CODECOPY, RETURN


async def token_differences(network: Network, token: Address | None, since: int = 0) -> tuple[str, ...]:
    assert token
    found = await verify(network.rpc, replace(network.addresses, token=token), since=since)
    (one,) = [one for one in found if one.address == token]
    return one.differences


async def test_equal_code_that_was_created_otherwise(network: Network, sender: Sender) -> None:
    rlc = artefact("Rlc")
    transfer = push(rlc.abi.topic("Transfer"))
    log = push(1) + push(0) + transfer + push(0) + push(0) + b"\xa3"  # LOG3
    for extra, says in [(b"", "creation: not seen"), (log, "creation code: ")]:
        receipt = await sender.send(None, generous(rlc.runtime, extra))
        assert receipt.contract and await code(network, receipt.contract) == rlc.runtime
        (difference,) = await token_differences(network, receipt.contract)
        assert difference.startswith(says)


async def test_a_contract_that_another_contract_created(network: Network, sender: Sender) -> None:
    creation = artefact("Rlc").creation(sender.address)
    factory = unhex("365f5f37365f5ff000")  # CALLDATACOPY, CREATE
    at = (await sender.send(None, push(factory) + unhex("5f5260096017f3"))).contract  # MSTORE, RETURN
    assert at and await code(network, at) == factory
    await sender.send(at, creation, gas=3_000_000)
    (difference,) = await token_differences(network, create_address(at, 1))
    assert difference.startswith("creation: by another contract, in transaction 0x")


async def test_arguments_that_no_constructor_reads(network: Network, sender: Sender) -> None:
    receipt = await sender.send(None, artefact("Rlc").creation(sender.address) + bytes(32))
    assert await token_differences(network, receipt.contract) == (
        "constructor arguments: more than the constructor has",
    )


async def test_a_creation_is_looked_for_since_a_block(network: Network, sender: Sender) -> None:
    receipt = await sender.send(None, artefact("Rlc").creation(sender.address))
    await network.mine(2)
    number = receipt.block.number
    assert await token_differences(network, receipt.contract, number) == ()
    assert await token_differences(network, receipt.contract, number + 1) == (
        f"creation: not seen, it is not in the blocks from {number + 1} on",
    )
    assert await differing(network, since=number, code_only=True) == {}
    assert (await verify(network.rpc, network.addresses, code_only=True))[0].choices == OFFICIAL


async def test_a_node_that_does_not_search_is_said_not_to(network: Network) -> None:
    """A number of block that no node takes stands for a range that one does not search."""
    found = await differing(network, since=2**64)
    assert set(found) == {"Hub", "AppRegistry", "DatasetRegistry", "WorkerpoolRegistry", "Rlc", "Quorum"}
    assert all("name the block of the deployment" in said for (said,) in found.values())
