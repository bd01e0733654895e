"""What a guest believes of the nodes' answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from sealdeal.model.deals import authorisation_blob
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import BadSignature, InvalidInput, SecretRefused
from sealdeal.model.evidence import Manifest
from sealdeal.model.keys import Key
from sealdeal.model.release import Gathered, Release, SealedItem, gather, grant_digest
from sealdeal.model.sealing import (
    Door,
    SealingKey,
    SecretShares,
    owner_challenge,
    release_info,
    seal,
    secrets_domain,
    share_secret,
    vouch_challenge,
    with_push,
)
from sealdeal.model.types import ZERO, Address, address

OWNER, REQUESTER, STRANGER = (Key(bytes([n]) * 32) for n in (1, 2, 3))
NODE_KEYS = {key.address: key for key in (Key(bytes([n]) * 32) for n in (11, 12, 13))}
NODES = tuple(sorted(NODE_KEYS, key=str.lower))
ENCLAVE = Key(b"\x21" * 32).address
GUEST = SealingKey(b"\x22" * 32)
UNTIL = 5000


def rng(size: int) -> bytes:
    return b"\x5a" * size


def manifest(**changes: Any) -> Manifest:
    dataset, app = address(b"\x07" * 20), address(b"\x06" * 20)
    values: dict[str, Any] = {
        "chain_id": 65432,
        "hub": address(b"\x01" * 20),
        "quorum": address(b"\x02" * 20),
        "deal_id": b"\x05" * 32,
        "deal_hash": b"\x06" * 32,
        "task_id": b"\x07" * 32,
        "task_index": 0,
        "worker": address(b"\x03" * 20),
        "attempt": 1,
        "params": "",
        "app": app,
        "app_owner": OWNER.address,
        "app_multiaddr": "",
        "app_checksum": b"\x08" * 32,
        "dataset": dataset,
        "dataset_owner": OWNER.address,
        "dataset_multiaddr": "",
        "dataset_checksum": b"\x09" * 32,
        "requester": REQUESTER.address,
        "beneficiary": REQUESTER.address,
        "callback": ZERO,
        "result_key": "",
        "nodes": NODES,
        "threshold": 2,
    }
    return Manifest(**{**values, **changes})


def split_key(
    secret: bytes = b"the key", owner: Key = OWNER, version: int = 1, threshold: int = 2, **changes: Any
) -> Callable[[Address], SealedItem]:
    """For each node, its item of a split dataset key."""
    terms = {"kind": "dataset-key", "subject": manifest().dataset, "name": "", **changes}
    document, shares = share_secret(
        secret, version=version, threshold=threshold, nodes=NODES, rng=rng, **terms
    )
    signature = owner.sign_digest(digest(secrets_domain(65432, manifest().hub), document))

    def item(node: Address) -> SealedItem:
        return sealed(node, terms["kind"], terms["name"], version, document, signature, shares[node])

    return item


def sealed(
    node: Address,
    kind: str,
    name: str,
    version: int,
    document: SecretShares | None,
    signature: bytes,
    value: bytes,
) -> SealedItem:
    info = release_info(manifest().hash(), node, kind, name, version)
    door = Door.OWN if document else Door.SINGLE
    return SealedItem(kind, name, version, door, document, signature, seal(GUEST.public, value, info))


def whole(node: Address, kind: str, name: str, owner: Key, subject: Address, value: bytes) -> SealedItem:
    signature = owner.sign_message(owner_challenge(kind, subject, name, value))
    return sealed(node, kind, name, 1, None, signature, value)


def release(node: Address, *items: SealedItem, **changes: Any) -> Release:
    until = changes.get("valid_until", UNTIL)
    made = Release(
        node=node,
        manifest_hash=manifest().hash(),
        hpke_key=GUEST.public,
        enclave=ENCLAVE,
        sealed=items,
        missing=(),
        valid_until=until,
        grant=NODE_KEYS[node].sign_digest(grant_digest(manifest(), ENCLAVE, until)),
    )
    return dataclasses.replace(made, **changes).signed(NODE_KEYS[node])


def ask(*releases: Release, **changes: Any) -> Gathered:
    return gather(manifest(**changes), GUEST, ENCLAVE, releases)


def test_two_of_three_nodes_give_the_secret_and_the_authorisation() -> None:
    item = split_key()
    for nodes in (NODES[:2], NODES[1:], (NODES[2], NODES[0]), NODES):
        found = ask(*(release(node, item(node)) for node in nodes))
        assert found.secrets == {("dataset-key", ""): b"the key"}
        assert found.doors == {("dataset-key", ""): Door.OWN}
        assert found.blamed == {}
        signers = sorted(nodes, key=str.lower)[:2]
        grants = {
            node: NODE_KEYS[node].sign_digest(grant_digest(manifest(), ENCLAVE, UNTIL)) for node in signers
        }
        assert found.authorisation == authorisation_blob(UNTIL, grants)


def test_one_node_alone_yields_neither_secret_nor_grant() -> None:
    item = split_key()
    for node in NODES:
        with pytest.raises(SecretRefused, match="expected 2 grants, got 1"):
            ask(release(node, item(node)))
        with pytest.raises(SecretRefused, match="expected 2 shares of dataset-key, got 1"):
            ask(release(node, item(node)), threshold_of_grants(node))


def threshold_of_grants(node: Address) -> Release:
    """A second node's answer, which grants and holds no share."""
    return release(next(other for other in NODES if other != node))


def test_a_lying_node_is_named_and_the_others_suffice() -> None:
    item = split_key()
    document = item(NODES[0]).document
    false = sealed(NODES[0], "dataset-key", "", 1, document, item(NODES[0]).signature, b"\x00" * 64)
    found = ask(release(NODES[0], false), *(release(node, item(node)) for node in NODES[1:]))
    assert found.secrets == {("dataset-key", ""): b"the key"}
    assert "lied" in found.blamed[NODES[0]]
    with pytest.raises(SecretRefused, match=f"set aside: node {NODES[0]} lied"):
        ask(release(NODES[0], false), release(NODES[1], item(NODES[1])))


def test_a_forged_document_of_one_node_does_not_count() -> None:
    forged, true = split_key(b"forged", owner=STRANGER, version=9, threshold=1), split_key()
    found = ask(release(NODES[0], forged(NODES[0])), *(release(node, true(node)) for node in NODES[1:]))
    assert found.secrets[("dataset-key", "")] == b"the key"
    with pytest.raises(SecretRefused):
        ask(release(NODES[0], forged(NODES[0])), release(NODES[1]))


def test_a_former_owners_document_counts_when_enough_nodes_show_it() -> None:
    item = split_key(owner=STRANGER)
    assert ask(*(release(node, item(node)) for node in NODES[:2])).secrets[("dataset-key", "")] == b"the key"


def test_the_newest_complete_version_wins() -> None:
    old, new = split_key(b"old"), split_key(b"new", version=2)
    found = ask(release(NODES[0], old(NODES[0])), *(release(node, new(node)) for node in NODES[1:]))
    assert found.secrets[("dataset-key", "")] == b"new"


def test_no_single_node_takes_a_guest_back_to_an_old_version() -> None:
    """The old split needed one share; a node that shows it must not win while the new one can come."""
    old, new = split_key(b"old", threshold=1), split_key(b"new", version=2)
    stale, fresh = release(NODES[0], old(NODES[0])), [release(node, new(node)) for node in NODES[1:]]
    with pytest.raises(SecretRefused, match="expected 2 shares of dataset-key, got 1"):
        ask(stale, fresh[0])
    assert ask(stale, *fresh).secrets[("dataset-key", "")] == b"new"


def test_an_unfinished_replacement_leaves_the_old_version_usable() -> None:
    old, new = split_key(b"old"), split_key(b"new", version=2)
    answers = [release(NODES[0], new(NODES[0])), *(release(node, old(node)) for node in NODES[1:])]
    assert ask(*answers).secrets[("dataset-key", "")] == b"old"


def test_a_document_of_another_secret_is_refused() -> None:
    other = split_key(subject=address(b"\x0f" * 20))
    with pytest.raises(SecretRefused, match="showed a document of another secret"):
        ask(*(release(node, other(node)) for node in NODES))


def test_whole_secrets_count_when_their_owner_signed_them() -> None:
    item, app = split_key(), manifest().app
    mine = whole(NODES[0], "app-secret", "1", OWNER, app, b"api key")
    own = whole(NODES[0], "requester-secret", "token", REQUESTER, REQUESTER.address, b"mine")
    answers = [release(NODES[0], item(NODES[0]), mine, own), release(NODES[1], item(NODES[1]))]
    found = ask(*answers)
    assert (
        found.secrets[("app-secret", "1")] == b"api key"
        and found.secrets[("requester-secret", "token")] == b"mine"
    )
    assert found.doors[("app-secret", "1")] is Door.SINGLE

    injected = whole(NODES[1], "app-secret", "1", STRANGER, app, b"the node's own")
    found = ask(release(NODES[0], item(NODES[0])), release(NODES[1], item(NODES[1]), injected))
    assert ("app-secret", "1") not in found.secrets and "not by its owner" in found.blamed[NODES[1]]

    second = whole(NODES[1], "app-secret", "1", OWNER, app, b"another")
    with pytest.raises(SecretRefused, match="expected one value of app-secret, got several"):
        ask(release(NODES[0], item(NODES[0]), mine), release(NODES[1], item(NODES[1]), second))


def test_a_whole_dataset_key_is_never_called_t_of_n() -> None:
    key = whole(NODES[0], "dataset-key", "", OWNER, manifest().dataset, b"whole")
    found = ask(release(NODES[0], key), release(NODES[1]))
    assert found.doors == {("dataset-key", ""): Door.SINGLE}


def test_a_split_secret_is_not_downgraded_by_a_whole_one() -> None:
    item = split_key()
    false = whole(NODES[0], "dataset-key", "", STRANGER, manifest().dataset, b"false")
    found = ask(release(NODES[0], false), *(release(node, item(node)) for node in NODES[1:]))
    assert found.secrets[("dataset-key", "")] == b"the key"
    with pytest.raises(SecretRefused, match="expected 2 shares"):
        ask(release(NODES[0], false), release(NODES[1], item(NODES[1])))


def test_without_a_dataset_grants_are_enough() -> None:
    bare = manifest(dataset=ZERO)
    answers = []
    for node in NODES[:2]:
        made = dataclasses.replace(
            release(node),
            manifest_hash=bare.hash(),
            grant=NODE_KEYS[node].sign_digest(grant_digest(bare, ENCLAVE, UNTIL)),
        )
        answers.append(made.signed(NODE_KEYS[node]))
    assert gather(bare, GUEST, ENCLAVE, answers).secrets == {}


def test_grants_of_different_deadlines_are_not_mixed() -> None:
    item = split_key()
    answers = [release(NODES[0], item(NODES[0]), valid_until=1), release(NODES[1], item(NODES[1]))]
    with pytest.raises(SecretRefused, match="expected 2 grants, got 1"):
        ask(*answers)
    assert ask(*answers, release(NODES[2], item(NODES[2]))).authorisation[:32] == UNTIL.to_bytes(32, "big")


def test_the_same_node_twice_counts_once() -> None:
    item = split_key()
    with pytest.raises(SecretRefused, match="expected 2 grants, got 1"):
        ask(release(NODES[0], item(NODES[0])), release(NODES[0], item(NODES[0])))


def altered(resign: bool = True, **changes: Any) -> Callable[[Release], Release]:
    def alter(answer: Release) -> Release:
        made = dataclasses.replace(answer, **changes)
        return made.signed(NODE_KEYS[answer.node]) if resign else made

    return alter


BAD: list[tuple[str, Callable[[Release], Release], type[Exception]]] = [
    ("signed by another", lambda answer: answer.signed(STRANGER), BadSignature),
    ("altered after signing", altered(resign=False, missing=(("app-secret", "1"),)), BadSignature),
    ("not signed", altered(resign=False, signature=b""), BadSignature),
    ("for another manifest", altered(manifest_hash=b"\x01" * 32), SecretRefused),
    ("for another key", altered(hpke_key=b"\x01" * 32), SecretRefused),
    ("for another enclave", altered(enclave=ZERO), SecretRefused),
    ("grant for another time", altered(valid_until=1), BadSignature),
    ("grant of another", altered(grant=STRANGER.sign_digest(b"\x01" * 32)), BadSignature),
    (
        "of a stranger",
        lambda r: dataclasses.replace(r, node=STRANGER.address).signed(STRANGER),
        SecretRefused,
    ),
]


@pytest.mark.parametrize(("alter", "refusal"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_answers_that_do_not_hold_are_set_aside(alter: Callable[[Release], Release], refusal: Any) -> None:
    item = split_key()
    bad = alter(release(NODES[0], item(NODES[0])))
    with pytest.raises(refusal):
        bad.check(manifest(), GUEST.public, ENCLAVE)
    found = ask(bad, *(release(node, item(node)) for node in NODES[1:]))
    assert list(found.blamed) == [bad.node]


def test_release_json_round_trip() -> None:
    item = split_key()
    made = release(NODES[0], item(NODES[0]), whole(NODES[0], "app-secret", "1", OWNER, manifest().app, b"x"))
    again = Release.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    again.check(manifest(), GUEST.public, ENCLAVE)
    malformed: list[Any] = [None, [], {}]
    for bad in (*malformed, {**made.to_json(), "grant": None}, {**made.to_json(), "sealed": [{}]}):
        with pytest.raises(InvalidInput):
            Release.from_json(bad)
    odd = made.to_json()
    odd["sealed"][0]["door"] = "t-of-n"
    with pytest.raises(InvalidInput):
        Release.from_json(odd)


# --- door `split` -------------------------------------------------------------------------------------


def pushed(
    value: bytes = b"pushed",
    *,
    owner: Key = OWNER,
    voucher: Address = NODES[0],
    kind: str = "app-secret",
    name: str = "1",
    subject: Address | None = None,
    version: int = 1,
    threshold: int = 2,
) -> Callable[[Address], SealedItem]:
    """For each node, its item of a secret that `owner` pushed to `voucher`, which split it."""
    whose = subject or manifest().app
    push = owner.sign_message(owner_challenge(kind, whose, name, value))
    document, shares = share_secret(
        with_push(value, push),
        kind=kind,
        subject=whose,
        name=name,
        version=version,
        threshold=threshold,
        nodes=NODES,
        rng=rng,
    )
    signed = digest(secrets_domain(65432, manifest().hub), document)
    vouched = NODE_KEYS[voucher].sign_message(vouch_challenge(signed))

    def item(node: Address) -> SealedItem:
        made = sealed(node, kind, name, version, document, vouched, shares[node])
        return dataclasses.replace(made, door=Door.SPLIT)

    return item


APP = ("app-secret", "1")


def both(key: Callable[[Address], SealedItem], *others: Callable[[Address], SealedItem]) -> list[Release]:
    """Answers of all nodes, each with its share of the dataset's key and of `others`."""
    return [release(node, key(node), *(other(node) for other in others)) for node in NODES]


def test_a_secret_that_a_node_split_is_checked_against_its_owners_push() -> None:
    found = ask(*both(split_key(), pushed()))
    assert found.secrets[APP] == b"pushed" and found.doors[APP] is Door.SPLIT and found.blamed == {}
    found = ask(*both(split_key(), pushed())[1:])
    assert found.secrets[APP] == b"pushed"


@pytest.mark.parametrize("owner", [STRANGER, NODE_KEYS[NODES[0]]])
def test_a_node_that_vouches_for_another_secret_is_named(owner: Key) -> None:
    found = ask(*both(split_key(), pushed(b"forged", owner=owner)))
    assert APP not in found.secrets
    assert "and not by its owner" in found.blamed[NODES[0]] and set(found.blamed) == {NODES[0]}


def test_shares_that_give_no_secret_are_blamed_on_who_vouched() -> None:
    true, key = pushed(), split_key()
    document = true(NODES[0]).document
    assert document is not None
    false = dataclasses.replace(document, secretHash=b"\x01" * 32)
    signed = digest(secrets_domain(65432, manifest().hub), false)
    vouched = NODE_KEYS[NODES[0]].sign_message(vouch_challenge(signed))
    answers = [
        release(node, key(node), dataclasses.replace(true(node), document=false, signature=vouched))
        for node in NODES
    ]
    found = ask(*answers)
    assert APP not in found.secrets and "do not give the secret" in found.blamed[NODES[0]]


def test_an_owners_document_beats_a_nodes_of_any_version() -> None:
    own = split_key(b"own", kind="app-secret", name="1", subject=manifest().app)
    forged = pushed(b"node's", version=9)
    key = split_key()
    answers = [release(NODES[0], key(NODES[0]), forged(NODES[0]))]
    answers += [release(node, key(node), own(node)) for node in NODES[1:]]
    found = ask(*answers)
    assert found.secrets[APP] == b"own" and found.doors[APP] is Door.OWN


def test_a_node_keeps_nobody_waiting_for_shares_that_it_made_up() -> None:
    key, forged = split_key(), pushed(threshold=3)
    found = ask(release(NODES[0], key(NODES[0]), forged(NODES[0])), *(release(n, key(n)) for n in NODES[1:]))
    assert APP not in found.secrets
    with pytest.raises(SecretRefused, match="expected 2 shares of app-secret 1, got 1"):
        ask(*[release(NODES[0], key(NODES[0]), pushed()(NODES[0])), release(NODES[1], key(NODES[1]))])


def test_an_owners_share_after_a_nodes_still_says_that_the_node_saw_it() -> None:
    key = split_key()
    answers = [release(node, dataclasses.replace(key(node), formerly="split")) for node in NODES]
    assert ask(*answers).doors == {("dataset-key", ""): Door.SPLIT}


def test_a_former_owners_push_of_a_datasets_key_counts_when_enough_nodes_show_it() -> None:
    item = pushed(owner=STRANGER, kind="dataset-key", name="", subject=manifest().dataset)
    found = ask(*(release(node, item(node)) for node in NODES[:2]))
    assert found.secrets[("dataset-key", "")] == b"pushed"
    assert found.doors[("dataset-key", "")] is Door.SPLIT and NODES[0] in found.blamed
