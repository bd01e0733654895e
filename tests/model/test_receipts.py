"""A receipt stands for exactly one task: whatever is changed in it, it no longer verifies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from sealdeal.model import deals
from sealdeal.model.batches import batch_result
from sealdeal.model.cid import cid_of
from sealdeal.model.deals import Deal, Grant, Resource, ResultStatement
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import IntegrityError, InvalidInput
from sealdeal.model.evidence import Evidence, Manifest
from sealdeal.model.keys import Key, message_digest
from sealdeal.model.receipts import Receipt
from sealdeal.model.types import ZERO, address, hexstr, keccak

CHAIN = 65_432
HUB, QUORUM, OTHER = (address(bytes([n]) * 20) for n in (1, 2, 3))
ENCLAVE, WORKER, STRANGER = (Key(bytes([n]) * 32) for n in (4, 5, 6))
NODES = [Key(bytes([n]) * 32) for n in (7, 8, 9)]
RESULTS = '{"storage":"ipfs","location":"/ipfs/Qm"}'
DIGEST = keccak(b"result")
KEY_TEXT = "the beneficiary's key"


def receipt(results: str = RESULTS) -> Receipt:
    """The receipt of a task that went as it should."""
    deal = Deal(
        dealid=keccak(b"deal"),
        app=Resource(OTHER, OTHER, 3),
        dataset=Resource(ZERO, ZERO, 0),
        workerpool=Resource(OTHER, OTHER, 5),
        trust=1,
        category=0,
        tag=bytes(32),
        requester=OTHER,
        beneficiary=OTHER,
        callback=ZERO,
        params="",
        start_time=1,
        bot_first=0,
        bot_size=1,
        worker_stake=0,
        scheduler_reward_ratio=1,
        sponsor=OTHER,
    )
    manifest = Manifest.of(
        chain_id=CHAIN,
        hub=HUB,
        quorum=QUORUM,
        deal=deal,
        task_index=0,
        worker=WORKER.address,
        attempt=1,
        app_multiaddr="/ipfs/Qm",
        app_checksum=keccak(b"app"),
        dataset_multiaddr="",
        dataset_checksum=bytes(32),
        result_key=KEY_TEXT,
        nodes=[node.address for node in NODES],
        threshold=2,
    )
    taskid = manifest.task_id
    statement = ResultStatement(
        task=taskid,
        worker=WORKER.address,
        digest=DIGEST,
        results=keccak(results.encode()),
        beneficiaryKey=hashlib.sha256(KEY_TEXT.encode()).digest(),
    )
    asked = message_digest(deals.authorisation_message(WORKER.address, taskid, ENCLAVE.address))
    grant = digest(deals.quorum_domain(CHAIN, QUORUM), Grant(asked, 99))
    message = deals.enclave_message(WORKER.address, taskid, DIGEST)
    return Receipt(
        version=1,
        trust="simulated",
        chain_id=CHAIN,
        hub=HUB,
        quorum=QUORUM,
        dealid=hexstr(deal.dealid),
        taskid=hexstr(taskid),
        worker=WORKER.address,
        price=8,
        digest=hexstr(DIGEST),
        results=results,
        transaction=hexstr(keccak(b"transaction")),
        block=7,
        proof={
            "manifest": manifest.to_json(),
            "evidence": Evidence("dcap", b"quote", None).to_json(),
            "hpkeKey": hexstr(bytes(32)),
            "enclave": ENCLAVE.address,
            "nonces": {node.address: hexstr(b"nonce") for node in NODES},
            "grants": {
                node.address: {"validUntil": 99, "signature": hexstr(node.sign_digest(grant))}
                for node in NODES[:2]
            },
            "enclaveSignature": hexstr(ENCLAVE.sign_message(message)),
            "statement": statement.to_json(),
            "statementSignature": hexstr(
                ENCLAVE.sign_digest(digest(deals.result_domain(CHAIN, HUB), statement))
            ),
        },
    )


def test_a_sound_receipt_names_the_nodes_that_granted() -> None:
    sound = receipt()
    assert sound.check() == {node.address for node in NODES[:2]}
    assert len(sound.expected_report_data()) == 64
    assert Receipt.from_json(json.loads(json.dumps(sound.to_json()))) == sound


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 1},
        {"hub": OTHER},
        {"quorum": OTHER},
        {"taskid": hexstr(bytes(32))},
        {"worker": STRANGER.address},
        {"digest": hexstr(bytes(32))},
        {"results": RESULTS + " "},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_member_is_found(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        dataclasses.replace(receipt(), **change).check()


@pytest.mark.parametrize(
    "name",
    ["manifest", "evidence", "hpkeKey", "enclave", "nonces", "grants", "statement", "enclaveSignature"],
)
def test_an_incomplete_proof_is_found(name: str) -> None:
    sound = receipt()
    proof = {key: value for key, value in sound.proof.items() if key != name}
    with pytest.raises(IntegrityError):
        dataclasses.replace(sound, proof=proof).check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enclave", STRANGER.address),
        ("enclaveSignature", hexstr(STRANGER.sign_message(bytes(32)))),
        ("statementSignature", hexstr(STRANGER.sign_digest(bytes(32)))),
        (
            "grants",
            {NODES[0].address: {"validUntil": 98, "signature": hexstr(NODES[0].sign_digest(bytes(32)))}},
        ),
        ("evidence", {"kind": "dcap"}),
        ("nonces", []),
    ],
)
def test_a_forged_proof_is_found(name: str, value: object) -> None:
    sound = receipt()
    with pytest.raises(IntegrityError):
        dataclasses.replace(sound, proof={**sound.proof, name: value}).check()


def test_another_beneficiarys_key_is_found() -> None:
    sound = receipt()
    manifest = {**sound.proof["manifest"], "resultKey": "another key"}
    with pytest.raises(IntegrityError, match="statement"):
        dataclasses.replace(sound, proof={**sound.proof, "manifest": manifest}).check()


@pytest.mark.parametrize("wrong", [None, [], {}, {"version": 2}, {"version": 1, "trust": "simulated"}])
def test_what_is_no_receipt_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="receipt"):
        Receipt.from_json(wrong)


def test_the_receipt_of_a_task_that_was_settled_in_a_batch() -> None:
    """The enclave signed the result's own link; on chain is its index in a directory."""
    own, directory = cid_of(b"result"), cid_of(b"directory")
    link = json.dumps({"storage": "ipfs", "location": f"/ipfs/{own}"})
    alone = receipt(link)
    proof = {**alone.proof, "storeReceipt": {"receipt": {"cid": own}}}
    settled = dataclasses.replace(alone, results=batch_result(directory, 0).decode(), proof=proof)
    assert settled.check() == alone.check()
    for wrong in (
        dataclasses.replace(settled, results=batch_result(directory, 1).decode()),
        dataclasses.replace(settled, proof=alone.proof),
        dataclasses.replace(settled, proof={**proof, "storeReceipt": {"receipt": {"cid": directory}}}),
    ):
        with pytest.raises(IntegrityError):
            wrong.check()
