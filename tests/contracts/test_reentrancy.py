"""Everyone whom the hub calls calls back: into every function, from every hook.

A hook is where the hub calls a contract that it does not know: a base token that moves, a callback, a
spender; wallets, groups, brokers and entries that are asked something. An imp stands there, and makes one
call from inside. Either that call is refused, or everything is afterwards, slot for slot, as if the two calls
had been made one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contracts import world
from tests.contracts.actors import compiled
from tests.contracts.chain import artefact, code
from tests.contracts.imps import HOOKED
from tests.contracts.scene import IDLE, REFUSED, Call, Outer, Scene
from tests.contracts.sources import Flaw


@contextmanager
def _scene(instead: dict[str, bytes]) -> Iterator[Scene]:
    """With this creation code in place of some contracts', and a base token that has hooks."""
    codes = {"Rlc": compiled(HOOKED), **instead}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "code", lambda name: codes.get(name) or code(name))
        yield Scene()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with _scene({}) as made:
        yield made


def test_an_imp_can_make_every_call_by_itself(scene: Scene) -> None:
    """Else a refusal from inside a hook would mean nothing."""
    for name, call in scene.inner().items():
        if name.endswith("the same") or name in REFUSED:
            continue
        with scene.chain.undone():
            before = scene.state()
            scene.as_imp(call.contract, call.function, *call.arguments)
            changed = scene.state() != before
            assert changed or call.function.startswith(("broadcast", "decrease", "update")), name


def test_every_function_is_called_from_inside(scene: Scene) -> None:
    changing = {
        entry["name"]
        for entry in artefact("Hub")["abi"]
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    assert {call.function for call in scene.inner().values()} == changing - IDLE


def test_whoever_may_write_comes_in_turn(scene: Scene) -> None:
    """The inner call is refused, or both happen as they would one after the other, in either order."""
    assert not _wrong(scene)


UNGUARDED = Flaw("escrow.vy", 'assert not self.moving, "escrow: tokens are moving"', "pass", "HubAdmin")
"""The hub's owner could take for a gift what is just being deposited or withdrawn, if the base token let
somebody call in between. RLC does not; the official contracts are as open to it."""


def test_what_is_out_of_turn_is_noticed(tmp_path: Path) -> None:
    made = UNGUARDED.code(tmp_path)
    with _scene({UNGUARDED.piece: made}) as scene:
        wrong = _wrong(scene, "recover", "deposit", "claim")
    assert {inside for inside, _ in wrong} == {"recover"}
    assert {outside for _, outside in wrong} == {
        *(f"{name}, token moved" for name in ("deposit", "depositFor", "depositForArray", "receiveApproval")),
        *(f"{name}, token not moved yet" for name in ("withdraw", "withdrawTo")),
    }


def _wrong(scene: Scene, *names: str) -> dict[tuple[str, str], str]:
    """(inside, outside) -> what is wrong with it; of these inner calls, or of all."""
    return {
        (inside, outside): problem
        for outside, outer in scene.writing().items()
        for inside, inner in scene.inner().items()
        if (not names or inside in names) and (problem := _out_of_turn(scene, outer, inner))
    }


def _out_of_turn(scene: Scene, outer: Outer, inner: Call) -> str:
    """What is wrong with the inner call being made from inside the outer, if anything."""
    with scene.chain.undone():
        assert scene.make(*outer.before, scene.arm(inner), outer.call) is None
        if not scene.puppet.struck():
            return "the hook was not called"
        done, nested = scene.puppet.done(), scene.state()
        if not scene.solvent():
            return "somebody's tokens are gone"
    alone = scene.through_imp(inner)
    for order in [(outer.call, alone), (alone, outer.call)] if done else [(outer.call,)]:
        with scene.chain.undone():
            if scene.make(*outer.before, *order) is None and scene.state() == nested:
                return ""
    return f"it was {'taken' if done else 'refused'}, and what came of it is what no order gives"


def test_no_view_shows_what_is_between(scene: Scene) -> None:
    """All that a hook can read is together as it was before the transaction, or as it is after it."""
    for outside, outer in scene.writing().items():
        reading = Call(scene.witness, "read", (scene.hub.address, scene.views()), scene.worker)
        with scene.chain.undone():
            assert scene.make(*outer.before, reading) is None
            seen = [scene.witness.seen()]
            assert scene.make(scene.arm(reading), outer.call) is None
            assert scene.puppet.struck() and scene.puppet.done()
            between = scene.witness.seen()
            assert scene.make(reading) is None
            seen.append(scene.witness.seen())
        assert seen[0] != seen[1] or "safe" in outside or "approve" in outside, "the views tell nothing"
        assert between in seen, outside


def test_whoever_is_asked_cannot_write(scene: Scene) -> None:
    """The outer call ends as if nobody had called back; the imp says no if its call was not refused."""
    for outside, outer in scene.asking().items():
        with scene.chain.undone():
            assert scene.make(*outer.before, outer.call) == outer.refusal, outside
            alone = scene.state()
        for inside, inner in scene.inner().items():
            with scene.chain.undone():
                assert scene.make(*outer.before, scene.arm(inner), outer.call) == outer.refusal, (
                    outside,
                    inside,
                )
                assert scene.state() == alone, (outside, inside)


def test_whoever_is_asked_can_read(scene: Scene) -> None:
    """The control of the test before: a call from inside that is not refused is noticed."""
    reading = Call(scene.hub, "totalSupply", (), scene.imp)
    for outside, outer in scene.asking().items():
        with scene.chain.undone():
            refusal = scene.make(*outer.before, scene.arm(reading), outer.call)
            assert refusal is not None and refusal != outer.refusal, outside
