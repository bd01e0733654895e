"""Nodes that lie, stay silent, lag behind or disagree: named, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sealdeal.model.orders import Params
from sealdeal.model.release import Release
from sealdeal.model.results import decrypt_result, generate_result_key
from sealdeal.model.types import hexstr
from sealdeal.worker.relay import AttemptFailed

from .test_task import ECHO, MakeScene
from .world import NODE_KEYS, NODES, Scene

FIRST, SECOND, THIRD = NODES
DATA = b"patients"


def refuse(status: int, code: str) -> Callable[[str, Any], Any]:
    return lambda path, said: (status, {"error": f"{code}, says the node", "code": code})


async def silence(*_: Any) -> None:
    await asyncio.sleep(3600)


def resigned(change: Callable[[dict[str, Any]], None], node: str) -> Callable[[str, Any], Any]:
    """A changed answer under the node's own, valid signature."""

    def said(path: str, honest: Any) -> Any:
        if path == "/tee/nonces":
            return honest
        change(honest)
        return Release.from_json(honest).signed(NODE_KEYS[node]).to_json()  # type: ignore[index]

    return said


async def works(task: Scene) -> dict[str, str]:
    """The task succeeds; returns whom the guest set aside."""
    await task.run()
    assert task.result()["result.txt"] == DATA.upper()
    blamed: dict[str, str] = task.store.proof["blamed"]
    return blamed


async def fails(task: Scene) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as failed:
        await task.run()
    assert not task.store.upload
    return failed.value


async def test_all_honest_nodes_blame_nobody(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=DATA)
    assert await works(task) == {}
    assert task.store.proof["doors"] == {"dataset-key": "own"}


@pytest.mark.parametrize("at", ["/tee/nonces", "/tee/releases"])
async def test_a_silent_node_is_not_waited_for(scene: MakeScene, at: str) -> None:
    task = scene(ECHO, dataset=DATA)
    task.nodes[FIRST].misbehave = lambda path, said: silence() if path == at else said
    await works(task)
    assert FIRST not in task.store.proof["grants"]
    assert (FIRST in task.store.proof["nonces"]) == (at == "/tee/releases")


async def test_a_secret_that_one_node_alone_may_hold_is_waited_for_a_little(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=DATA, wanted=(("app-secret", "1"),))
    task.nodes[FIRST].misbehave = lambda path, said: silence() if path == "/tee/releases" else said
    assert set(await works(task)) == {FIRST}


async def test_a_refusing_node_is_named_with_its_words(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=DATA)
    task.nodes[SECOND].misbehave = refuse(403, "NonceRefused")
    blamed = await works(task)
    assert set(blamed) == {SECOND} and "NonceRefused" in blamed[SECOND]
    assert any(SECOND in s.get("message", "") for s in task.statuses)


async def test_a_node_with_a_false_share_is_named(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=DATA)
    kind, name, document, signature, share = task.nodes[FIRST].secrets[0]
    task.nodes[FIRST].secrets[0] = (kind, name, document, signature, bytes([share[0] ^ 1]) + share[1:])
    # The liar must be among the first heard: the other two wait for it.
    heard = asyncio.Event()

    def liar(path: str, said: Any) -> Any:
        if path == "/tee/releases":
            asyncio.get_running_loop().call_later(0.3, heard.set)
        return said

    async def after(said: Any) -> Any:
        await heard.wait()
        return said

    task.nodes[FIRST].misbehave = liar
    for node in (SECOND, THIRD):
        task.nodes[node].misbehave = lambda path, said: after(said) if path == "/tee/releases" else said
    blamed = await works(task)
    assert set(blamed) == {FIRST}


LIES = {
    "another node's name": lambda said: said.update(node=SECOND),
    "another enclave": lambda said: said.update(enclave=SECOND),
    "another manifest": lambda said: said.update(manifestHash=hexstr(bytes(32))),
    "a false grant": lambda said: said["grant"].update(validUntil=said["grant"]["validUntil"] + 1),
    "a secret sealed for another": lambda said: said["sealed"][0].update(ciphertext=hexstr(bytes(80))),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_a_lie_under_the_nodes_own_signature_is_set_aside(
    scene: MakeScene, lie: Callable[[dict[str, Any]], None]
) -> None:
    task = scene(ECHO, dataset=DATA)
    task.nodes[FIRST].misbehave = resigned(lie, FIRST)
    task.nodes[THIRD].misbehave = refuse(503, "Unavailable")
    failed = await fails(task)  # two of three are needed, and only one is left
    assert FIRST in str(failed) and THIRD in str(failed)


@pytest.mark.parametrize(
    "answer", [[], {}, {"node": 1}, {"sealed": {}}, "text", None, {"node": FIRST, "grant": []}]
)
async def test_junk_from_a_node_is_set_aside(scene: MakeScene, answer: Any) -> None:
    task = scene(ECHO, dataset=DATA)
    task.nodes[FIRST].misbehave = lambda path, said: said if path == "/tee/nonces" else (200, answer)
    await works(task)


async def test_a_node_that_lags_behind_the_chain_is_asked_again(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=DATA)
    for node in (FIRST, SECOND):
        task.nodes[node].misbehave = lambda path, said, node=node: (
            said
            if len(task.nodes[node].asked) > 2
            else (503, {"error": "wait for a block", "code": "NotFinalYet"})
        )
    task.nodes[THIRD].misbehave = refuse(503, "Unavailable")
    blamed = await works(task)
    assert set(blamed) == {THIRD}


async def test_too_few_nodes_fail_with_every_reason(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=DATA)
    task.nodes[FIRST].misbehave = refuse(409, "TaskNotActive")
    task.nodes[SECOND].misbehave = refuse(403, "AssignmentRefused")
    failed = await fails(task)
    assert failed.cause == "TEE_SESSION_GENERATION_SECURE_SESSION_GENERATION_FAILED"
    assert "TaskNotActive" in str(failed) and "AssignmentRefused" in str(failed)


async def test_no_shares_of_the_dataset_key_is_named_as_such(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=DATA)
    for node in (FIRST, SECOND):
        task.nodes[node].secrets.clear()
        task.nodes[node].missing = (("dataset-key", ""),)
    assert (await fails(task)).cause == "PRE_COMPUTE_DATASET_KEY_MISSING"


async def test_a_node_that_names_another_key_of_the_beneficiary_is_set_aside(scene: MakeScene) -> None:
    private, text = generate_result_key(2048)
    _, other = generate_result_key(2048)
    task = scene(ECHO, dataset=DATA, params=Params(result_encryption=True), result_key=text)
    task.nodes[FIRST].result_key = other
    await task.run()
    assert decrypt_result(task.store.archive, private)["result.txt"] == DATA.upper()
    assert set(task.store.proof["blamed"]) == {FIRST} and FIRST not in task.store.proof["nonces"]


async def test_without_agreement_on_the_key_nothing_leaves(scene: MakeScene) -> None:
    _, text = generate_result_key(2048)
    task = scene(ECHO, dataset=DATA, params=Params(result_encryption=True), result_key=text)
    task.nodes[FIRST].result_key, task.nodes[SECOND].result_key = "b25l", "dHdv"
    assert (await fails(task)).cause == "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"


async def test_evidence_of_another_image_convinces_no_node(scene: MakeScene, app: Any) -> None:
    task = scene(ECHO, dataset=DATA)
    for node in task.nodes.values():
        node.app_checksum = app("print('another')").checksum
    failed = await fails(task)
    assert "mr_config_id" in str(failed)
