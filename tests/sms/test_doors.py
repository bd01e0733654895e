"""What becomes of secrets that are pushed whole, and what nodes say of what they hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from secrets import token_bytes
from typing import Any

import pytest

from sealdeal.model.deals import Change, quorum_domain
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import (
    BadSignature,
    Conflict,
    InvalidInput,
    NotFound,
    SealdealError,
    Unauthorized,
    Unavailable,
)
from sealdeal.model.keys import Key
from sealdeal.model.orders import Params
from sealdeal.model.sealing import (
    Door,
    Revocation,
    SecretKind,
    SecretShares,
    owner_challenge,
    secrets_domain,
    share_secret,
    vouch_challenge,
)
from sealdeal.model.types import Address, hexstr
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.sms import (
    RESULT_KEY_NAME,
    ManifestDiffers,
    NotInQuorum,
    SecretExpired,
    SecretRevoked,
    SmsClient,
    WholeRefused,
)
from sealdeal.sms.app import create_app
from sealdeal.sms.owners import AUDIT_LINES
from tests.network import CHAIN_ID, NODES, THRESHOLD, Network

from .conftest import CONFIRMATIONS, Guest, Nodes

GuestOf = Callable[..., Awaitable[Guest]]
KEY = (SecretKind.DATASET_KEY.value, "")
VALUE = "the dataset's key, as an unmodified client pushes it"


async def joined(nodes: Nodes, door: Door = Door.SPLIT) -> None:
    """Start all nodes again, as peers of each other."""
    for role in NODES:
        peers = [Later(nodes, nodes.network.address(other)) for other in NODES if other != role]
        await nodes.start(role, door=door, peers=peers)


class Later(SmsClient):
    """A peer that may be started later, or not at all."""

    def __init__(self, nodes: Nodes, address: Address) -> None:
        self.nodes, self.address = nodes, address
        self.base_url = f"http://{address}"

    async def request(self, method: str, path: str, **options: Any) -> Any:
        node = self.nodes.running.get(self.address)
        if node is None:
            raise Unavailable(f"{self.base_url} does not answer")
        async with SmsClient("http://peer", in_memory(create_app(node))) as client:
            return await client.request(method, path, **options)


async def stop(nodes: Nodes, role: str) -> None:
    address = nodes.network.address(role)
    await nodes.clients[address].close()
    await nodes.running.pop(address).close()


# --- door `split` ---------------------------------------------------------------------------------


async def test_a_pushed_secret_is_split_among_all_and_kept_whole_by_none(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    await joined(nodes)
    deal, owner = await network.deal(), network.key("data_provider")
    assert not await nodes.first.has_secret(*KEY[:1], deal.dataset.pointer)
    await nodes.first.push_dataset_key(owner, deal.dataset.pointer, VALUE)
    documents = set()
    for node, client in nodes.clients.items():
        assert await client.has_secret(KEY[0], deal.dataset.pointer)
        info = await client.share_info(KEY[0], deal.dataset.pointer)
        assert (info.node, info.door, info.threshold, info.version) == (node, "split", THRESHOLD, 1)
        assert sorted(info.nodes) == sorted(nodes.clients) and not info.revokedAt and not info.expires
        documents.add(info.documentHash)
        held = await nodes.running[node].store.find(KEY[0], deal.dataset.pointer, "")
        assert held is not None and held.door == Door.SPLIT and VALUE.encode() not in held.value
        push = owner.sign_message(owner_challenge(KEY[0], deal.dataset.pointer, "", VALUE.encode()))
        kept = b"".join(file.read_bytes() for file in nodes.folder.iterdir())
        assert push not in kept and push not in held.value  # guesses could be tried on it
        with pytest.raises(Conflict):  # as on the wire: never twice
            await client.push_dataset_key(owner, deal.dataset.pointer, VALUE)
    assert len(documents) == 1
    found = await (await guest_of(deal)).gather()
    assert found.secrets[KEY] == VALUE.encode() and found.doors[KEY] is Door.SPLIT

    own = await nodes.split(b"the owner's", deal.dataset.pointer, owner)
    assert own.document.version == 1
    info = await nodes.first.share_info(KEY[0], deal.dataset.pointer)
    assert (info.door, info.formerly) == ("own", "split")
    found = await (await guest_of(deal, initialise=False, attempt=2)).gather()
    assert found.secrets[KEY] == b"the owner's" and found.doors[KEY] is Door.SPLIT  # a node saw one of it


async def test_a_push_that_failed_half_way_is_made_again(nodes: Nodes, network: Network) -> None:
    await joined(nodes)
    _, dataset, _ = await network.assets()
    owner, last = network.key("data_provider"), network.address(NODES[2])
    node = nodes.running[last]
    put = node.owners.put_share
    node.owners.put_share = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable, match=r"every node to store its part, 1 did not.*the disk is full"):
        await nodes.first.push_dataset_key(owner, dataset, VALUE)
    with pytest.raises(NotFound):
        await nodes.first.share_info(KEY[0], dataset)
    other = nodes.clients[network.address(NODES[1])]
    with pytest.raises(Conflict, match="holds a dataset-key"):
        await other.push_dataset_key(owner, dataset, VALUE)
    node.owners.put_share = put  # type: ignore[method-assign]
    await nodes.first.push_dataset_key(owner, dataset, VALUE)
    infos = [await client.share_info(KEY[0], dataset) for client in nodes.clients.values()]
    assert {(i.version, i.documentHash) for i in infos} == {(2, infos[0].documentHash)}
    await stop(nodes, NODES[2])
    app, _, _ = await network.assets("another")
    with pytest.raises(Unavailable, match=rf"every member of the quorum.*{last}|{last}: .*does not answer"):
        await nodes.first.push_app_secret(network.key("app_provider"), app, VALUE)
    assert await nodes.first.has_secret(KEY[0], dataset)  # two of three are enough
    await stop(nodes, NODES[1])
    assert not await nodes.first.has_secret(KEY[0], dataset)


async def refuse(*_: Any) -> None:
    raise Unavailable("the disk is full")


async def test_only_the_owner_replaces_what_a_node_split(nodes: Nodes, network: Network) -> None:
    await joined(nodes)
    _, dataset, _ = await network.assets()
    await nodes.first.push_dataset_key(network.key("data_provider"), dataset, VALUE)
    held = await nodes.running[network.address(NODES[0])].store.find(KEY[0], dataset, "")
    assert held is not None and held.document is not None
    mine = held.document, held.signature, held.value
    with pytest.raises(Unauthorized):
        await nodes.first.post_share(*mine)
    with pytest.raises(BadSignature):
        await nodes.first.post_share(held.document, b"", held.value, door=Door.SPLIT)
    with pytest.raises(InvalidInput, match="others are not split"):
        await nodes.first.post_share(*mine, door=Door.SINGLE)
    await nodes.first.post_share(*mine, door=Door.SPLIT)  # the same again

    def again(version: int = 2, threshold: int = THRESHOLD, **changes: Any) -> tuple[SecretShares, bytes]:
        document, shares = share_secret(
            b"other",
            kind=KEY[0],
            subject=dataset,
            name="",
            version=version,
            threshold=threshold,
            nodes=list(nodes.clients),
            rng=token_bytes,
            **changes,
        )
        return document, shares[network.address(NODES[0])]

    def vouch(role: str, document: SecretShares) -> bytes:
        signed = digest(secrets_domain(CHAIN_ID, network.addresses.hub), document)
        return network.key(role).sign_message(vouch_challenge(signed))

    document, share = again()
    with pytest.raises(Conflict, match="only its owner may split that anew"):
        await nodes.first.post_share(document, vouch(NODES[1], document), share, door=Door.SPLIT)
    for wrong in (again(threshold=1), again(expires=2**40)):
        with pytest.raises(InvalidInput, match="expected a node's split"):
            await nodes.first.post_share(wrong[0], vouch(NODES[1], wrong[0]), wrong[1], door=Door.SPLIT)


async def test_named_values_are_copied_to_all_nodes(nodes: Nodes, network: Network) -> None:
    await joined(nodes)
    owner = network.key("requester")
    await nodes.first.push_named_secret(owner, "token", "one")
    for client in nodes.clients.values():
        assert await client.has_secret("named", owner.address, "token")
    second = nodes.clients[network.address(NODES[1])]
    await second.push_named_secret(owner, "token", "two")
    for node in nodes.running.values():
        held = await node.store.find("named", owner.address, "token")
        assert held is not None and held.value == b"two"
    signed = owner.sign_message(owner_challenge("named", owner.address, "token", b"three"))
    with pytest.raises(Unauthorized):
        await second.put_named(owner.address, "token", b"four", signed)


async def test_a_node_that_takes_shares_only(nodes: Nodes, network: Network) -> None:
    await joined(nodes, Door.OWN)
    assert (await nodes.first.node()).door == "own"
    owner, requester = network.key("data_provider"), network.key("requester")
    _, dataset, _ = await network.assets()
    with pytest.raises(WholeRefused, match="sealdeal secret gateway"):
        await nodes.first.push_dataset_key(owner, dataset, VALUE)
    with pytest.raises(WholeRefused):
        await nodes.first.push_requester_secret(requester, RESULT_KEY_NAME, VALUE)
    with pytest.raises(WholeRefused):
        await nodes.first.push_named_secret(requester, "a token", VALUE)
    await nodes.first.push_named_secret(requester, RESULT_KEY_NAME, "a public key")
    assert await nodes.first.has_secret("named", requester.address, RESULT_KEY_NAME)
    await nodes.split(b"in shares", dataset, owner)
    assert await nodes.first.has_secret(KEY[0], dataset)


# --- revocation, end, audit -----------------------------------------------------------------------


async def later(network: Network, assets: Any, seconds: int, **options: Any) -> Any:
    """A deal made some time from now."""
    await network.pass_time(seconds)
    dealid, receipt = await network.as_("requester").match_orders(
        *await network.orders(assets, salt=token_bytes(32), **options)
    )
    return await network.hub.deal(dealid, receipt.block)


async def test_deals_made_before_a_revocation_keep_their_key(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    assets, owner = await network.assets(), network.key("data_provider")
    domain = secrets_domain(CHAIN_ID, network.addresses.hub)

    def revocation(version: int = 1, time: int = 0, **changes: Any) -> tuple[Revocation, bytes]:
        terms = {"kind": KEY[0], "subject": assets[1], "name": "", **changes}
        made = Revocation(version=version, time=time, **terms)
        return made, owner.sign_digest(digest(domain, made))

    with pytest.raises(NotFound, match="nothing to revoke"):
        await nodes.first.revoke(*revocation())
    await nodes.split(VALUE.encode(), assets[1], owner)
    before = await network.deal(assets=assets)
    with pytest.raises(Unauthorized):
        await nodes.first.revoke(revocation()[0], network.key("worker").sign_digest(bytes(32)))
    with pytest.raises(InvalidInput, match="a dataset's, an app's or a requester's"):
        revocation(kind="named")

    now = (await network.hub.block()).timestamp
    assert await nodes.first.revoke(*revocation(time=now + 1000)) == now + 1000
    assert now < await nodes.first.revoke(*revocation(time=1)) < now + 100  # never for deals that are made
    assert now < await nodes.first.revoke(*revocation(time=now + 1000)) < now + 100  # the earlier counts
    for client in nodes.clients.values():
        await client.revoke(*revocation(time=1))
    held = await nodes.running[network.address(NODES[0])].store.find(KEY[0], assets[1], "")
    assert held is not None and held.document is not None
    with pytest.raises(Conflict, match="is revoked"):
        await nodes.first.post_share(held.document, held.signature, held.value)
    late = await guest_of(await later(network, assets, 5))
    with pytest.raises(SecretRevoked):
        await late.gather()
    assert (await (await guest_of(before)).gather()).secrets[KEY] == VALUE.encode()
    nodes.clock.offset = 10
    assert not await nodes.first.has_secret(KEY[0], assets[1])

    await nodes.split(b"anew", assets[1], owner, version=2)
    assert (await nodes.first.share_info(KEY[0], assets[1])).revokedAt == 0
    assert (await late.gather()).secrets[KEY] == b"anew"


async def test_a_secret_ends_for_deals_made_later(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    assets, owner = await network.assets(), network.key("data_provider")
    app_owner = network.key("app_provider")
    end = (await network.hub.block()).timestamp + 200
    with pytest.raises(SealdealError, match="got one that ended at 5"):
        await nodes.split(VALUE.encode(), assets[1], owner, expires=5)
    await nodes.split(VALUE.encode(), assets[1], owner, expires=end)
    await nodes.split(b"api", assets[0], app_owner, kind=SecretKind.APP_SECRET, name="1", expires=end)
    assert (await nodes.first.share_info(KEY[0], assets[1])).expires == end
    before = await guest_of(await network.deal(assets=assets))
    assert set((await before.gather()).secrets) == {KEY, ("app-secret", "1")}
    nodes.clock.offset = 201
    late = await guest_of(await later(network, assets, 201))
    with pytest.raises(SecretExpired, match="made before"):
        await late.gather()
    bare = await guest_of(await later(network, assets, 1, with_dataset=False))
    assert (await bare.gather()).secrets == {}  # an app's secret that ended is as one never given
    assert not await nodes.first.has_secret(KEY[0], assets[1])


async def test_the_owner_reads_who_got_the_secret(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    deal = await network.deal(params=Params(args="run", secrets={1: "token"}))
    owner, requester = network.key("data_provider"), network.key("requester")
    await nodes.split(VALUE.encode(), deal.dataset.pointer, owner)
    await nodes.first.push_requester_secret(requester, "token", "value")
    first = await guest_of(deal)
    await first.gather()
    second = await guest_of(deal, initialise=False, attempt=2, worker="second_worker")
    await second.gather()
    trail = await nodes.first.audit(owner, KEY[0], deal.dataset.pointer)
    assert [(line.worker, line.attempt, line.enclave) for line in trail.lines] == [
        (network.address("worker"), 1, first.key.address),
        (network.address("second_worker"), 2, second.key.address),
    ]
    line = trail.lines[0]
    assert (line.task, line.deal) == (hexstr(deal.task_ids()[0]), hexstr(deal.dealid))
    assert (line.version, line.door, line.app) == (1, "own", deal.app.pointer)
    assert line.appChecksum[2:] in line.measurement["mr_config_id"] and not trail.more
    rest = await nodes.first.audit(owner, KEY[0], deal.dataset.pointer, after=line.id)
    assert rest.lines == trail.lines[1:]
    token = await nodes.first.audit(requester, "requester-secret", requester.address, "token")
    assert [found.door for found in token.lines] == ["single"] * 2
    store = nodes.running[network.address(NODES[0])].store
    (kept, *_) = await store.audit()
    for number in range(AUDIT_LINES):
        changed = {"enclave": first.key.address, "attempt": 1, "task": kept.task}
        await store.commit_release(
            type(kept)(**{**{f: getattr(kept, f) for f in kept.__dataclass_fields__}, **changed}),
            first.sealing.public,
            number.to_bytes(32, "big"),
            kept.time + 9,
        )
    long = await nodes.first.audit(owner, KEY[0], deal.dataset.pointer)
    assert long.more and len(long.lines) == AUDIT_LINES
    assert (
        len((await nodes.first.audit(owner, KEY[0], deal.dataset.pointer, after=long.lines[-1].id)).lines)
        == 2
    )

    for stranger in (requester, network.key("worker"), network.key("pool_owner")):
        with pytest.raises(Unauthorized, match="the owner of"):
            await nodes.first.audit(stranger, KEY[0], deal.dataset.pointer)
    for wrong in (-901, 901):
        with pytest.raises(Unauthorized, match="the clocks differ"):
            await nodes.first.audit(owner, KEY[0], deal.dataset.pointer, now=nodes.clock() + wrong)
    altered = trail.model_copy(update={"lines": []})
    assert altered.digest() != trail.digest()


# --- the quorum -----------------------------------------------------------------------------------


async def changed(network: Network, **changes: Any) -> None:
    """Members agree on a change, and it happens."""
    terms = {"add": (), "remove": (), "threshold": THRESHOLD, "compromised": False, **changes}
    change = Change(nonce=await network.quorum.changes(), validUntil=2**60, **terms)
    signed = digest(quorum_domain(CHAIN_ID, network.quorum.address), change)
    keys = [network.key(role) for role in NODES[1:]]
    sender = network.as_("requester").sender
    await network.quorum.change_members(sender, change, {k.address: k.sign_digest(signed) for k in keys})
    await network.mine(CONFIRMATIONS)


async def test_a_change_of_members_spares_grants_under_way(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    deal = await network.deal()
    await nodes.split(VALUE.encode(), deal.dataset.pointer, network.key("data_provider"))
    guest = await guest_of(deal)
    nonces, manifest = await guest.nonces(), await guest.manifest()
    await changed(network, add=(Key(b"\x09" * 32).address,), remove=(network.address(NODES[0]),))
    answers = [await guest.ask(client, nonces, manifest=manifest) for client in nodes.clients.values()]
    assert len(answers) == 3
    with pytest.raises(NotInQuorum):  # it speaks for what is under way only
        await guest.nonces([nodes.first])
    lied = await guest.manifest(nodes=manifest.nodes[:2])
    with pytest.raises(ManifestDiffers):
        await guest.ask(nodes.clients[network.address(NODES[1])], nonces, manifest=lied)
    await nodes.start(NODES[1])  # and a new attempt meets the new members
    again = await guest_of(deal, initialise=False, attempt=2)
    assert (await again.gather(NODES[1:])).secrets[KEY] == VALUE.encode()


async def test_a_compromised_member_ends_what_is_under_way(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    guest = await guest_of(await network.deal(with_dataset=False))
    nonces, manifest = await guest.nonces(), await guest.manifest()
    gone = (network.address(NODES[0]),)
    await changed(network, add=(Key(b"\x09" * 32).address,), remove=gone, compromised=True)
    with pytest.raises(NotInQuorum):
        await guest.ask(nodes.first, nonces, manifest=manifest)
    with pytest.raises(ManifestDiffers, match="nodes: expected"):
        await guest.ask(nodes.clients[network.address(NODES[1])], nonces, manifest=manifest)
    again = await guest_of(guest.deal, initialise=False, attempt=2)
    assert (await again.gather(NODES[1:])).authorisation
