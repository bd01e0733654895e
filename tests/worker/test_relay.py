"""What a guest may ask of its worker, and what becomes of one that asks for more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sealdeal.guest.hello import Limits
from sealdeal.guest.stream import MAX_PAYLOAD, Frame, Kind
from sealdeal.model.errors import NotFound
from sealdeal.model.evidence import Evidence
from sealdeal.model.keys import Key
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.results import ResultsClient
from sealdeal.sdk.sms import SmsClient
from sealdeal.worker import relay
from sealdeal.worker.relay import AttemptFailed, Done, Relay, World

from .scripted import ScriptedGuest

ENCLAVE, NODE = Key(bytes([1]) * 32).address, Key(bytes([2]) * 32).address
DONE = {
    "enclave": ENCLAVE,
    "digest": "0x" + "01" * 32,
    "results": "0x7b7d",
    "callback": "0x",
    "enclaveSignature": "0x02",
    "authorization": "0x03",
    "error": None,
    "exitCode": 0,
}


class Hello:
    limits = Limits(seconds=1, output_bytes=1 << 20)

    @staticmethod
    def to_json() -> dict[str, Any]:
        return {"version": 1}


class Service:
    """Answers everything over HTTP, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes, str | None]] = []
        self.silent = False
        """Take requests, and answer none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        told = request.headers.get("authorization")
        self.asked.append((request.method, path, await request.body(), told))
        if self.silent:
            await asyncio.Event().wait()
        body = b"answer" * (MAX_PAYLOAD // 3 if path.endswith("long") else 1)
        await Response(body, 201)(scope, receive, send)


@pytest.fixture
def services() -> dict[str, Service]:
    return {"node": Service(), "results": Service()}


@pytest.fixture
async def world(services: dict[str, Service], tmp_path: Path) -> AsyncIterator[World]:
    node = SmsClient("http://node", in_memory(services["node"]))
    results = ResultsClient("http://results", transport=in_memory(services["results"]))
    (tmp_path / "image").write_bytes(b"i" * (MAX_PAYLOAD + 10))

    async def evidence(data: bytes) -> Evidence:
        return Evidence("dcap", data, None)

    async def image() -> Path:
        return tmp_path / "image"

    async def nowhere() -> Path:
        raise NotFound("no such content")

    async def login(enclave: str, blob: bytes) -> str:
        return f"{enclave} {blob.hex()}"

    yield World(
        evidence=evidence,
        files={"image": image, "dataset": nowhere},
        nodes={NODE: node},
        results=results,
        login=login,
    )
    await node.close()
    await results.close()


async def serve(world: World, script: Callable[[ScriptedGuest], Awaitable[None]]) -> Done:
    guest = ScriptedGuest(script)
    statuses: list[Any] = []
    try:
        async with asyncio.timeout(60):
            return await Relay(guest, world, statuses.append).run(Hello())  # type: ignore[arg-type]
    finally:
        await guest.kill()


async def outcome(
    world: World, *questions: tuple[str, dict[str, Any], tuple[bytes, ...]]
) -> list[list[Frame]]:
    """What is answered to each question, asked one after another."""
    answers: list[list[Frame]] = []

    async def script(guest: ScriptedGuest) -> None:
        assert (await guest.hear()).kind is Kind.HELLO
        for number, (question, members, body) in enumerate(questions, 1):
            answers.append(await guest.ask(number, question, *body, **members))
        guest.tell("done", **DONE)

    await serve(world, script)
    return answers


async def test_each_question_gets_its_answer(world: World, services: dict[str, Service]) -> None:
    node, store = f"sms:{NODE}", "results"
    quote, fetch, login, ask, post = await outcome(
        world,
        ("quote", {"reportData": "0x" + "ab" * 64}, ()),
        ("fetch", {"name": "image"}, ()),
        ("login", {"enclave": ENCLAVE, "authorization": "0x1234"}, ()),
        ("http", {"dest": node, "method": "POST", "path": "/tee/nonces", "headers": {}}, (b"{", b"}")),
        ("http", {"dest": store, "method": "POST", "path": "/v1/results", "headers": {}}, (b"a", b"b")),
    )
    assert quote[0].json()["quote"] == "0x" + "ab" * 64
    assert b"".join(f.payload for f in fetch if f.kind is Kind.DATA) == b"i" * (MAX_PAYLOAD + 10)
    assert [f.kind for f in login] == [Kind.ANSWER, Kind.END]
    assert ask[0].json() == {"status": 201} and ask[1].payload == b"answer"
    assert services["node"].asked == [("POST", "/tee/nonces", b"{}", None)]
    assert services["results"].asked == [("POST", "/v1/results", b"ab", f"{ENCLAVE} 1234")]
    assert [f.kind for f in post] == [Kind.ANSWER, Kind.DATA, Kind.END]


async def test_long_answers_come_in_frames(world: World) -> None:
    [answer] = await outcome(
        world, ("http", {"dest": "results", "method": "GET", "path": "/v1/results/long", "headers": {}}, ())
    )
    assert len(b"".join(f.payload for f in answer if f.kind is Kind.DATA)) == 6 * (MAX_PAYLOAD // 3)


STRANGE = [
    ("quote", {}),
    ("quote", {"reportData": "nonsense"}),
    ("fetch", {"name": "/etc/passwd"}),
    ("fetch", {"name": "dataset"}),
    ("fetch", {}),
    ("login", {"enclave": "me", "authorization": "0x"}),
    ("http", {"dest": f"sms:{NODE}", "method": "GET", "path": "/admin", "headers": {}}),
    ("http", {"dest": f"sms:{NODE}", "method": "POST", "path": "/secrets/web2", "headers": {}}),
    ("http", {"dest": f"sms:{ENCLAVE}", "method": "POST", "path": "/tee/nonces", "headers": {}}),
    ("http", {"dest": "sms:", "method": "POST", "path": "/v1/results", "headers": {}}),
    ("http", {"dest": "results", "method": "POST", "path": "/api/v0/add", "headers": {}}),
    ("http", {"dest": "http://169.254.169.254", "method": "GET", "path": "/", "headers": {}}),
    ("http", {"dest": "results"}),
    ("shell", {"command": "id"}),
]


@pytest.mark.parametrize(("question", "members"), STRANGE)
async def test_a_guest_reaches_nothing_else(
    world: World, services: dict[str, Service], question: str, members: dict[str, Any]
) -> None:
    [answer] = await outcome(world, (question, members, ()))
    assert answer[-1].kind is Kind.ERROR and answer[-1].json()["message"]
    assert not services["node"].asked and not services["results"].asked


async def test_a_body_over_the_bound_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_BODY", 10)
    [answer] = await outcome(
        world,
        (
            "http",
            {"dest": "results", "method": "POST", "path": "/v1/results", "headers": {}},
            (b"x" * 11, b"y" * 99),
        ),
    )
    assert answer[-1].kind is Kind.ERROR and "more than 10 bytes" in answer[-1].json()["message"]


async def test_a_service_that_never_answers_is_given_up(
    world: World, services: dict[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    services["node"].silent = True
    monkeypatch.setattr(relay, "CALL_SECONDS", 0.05)
    [answer] = await outcome(
        world,
        ("http", {"dest": f"sms:{NODE}", "method": "POST", "path": "/tee/nonces", "headers": {}}, (b"{}",)),
    )
    assert answer[-1].json()["cause"] == "Unavailable"


async def test_a_body_that_nobody_reads_blocks_nothing(world: World) -> None:
    async def script(guest: ScriptedGuest) -> None:
        await guest.hear()
        guest.say(Kind.CALL, 1, {"call": "shell", "body": True})
        for _ in range(50):
            guest.say(Kind.DATA, 1, b"x" * 1000)
        guest.say(Kind.END, 1)
        guest.tell("done", **DONE)

    assert (await serve(world, script)).enclave == ENCLAVE


def calls(guest: ScriptedGuest, *numbers: int) -> None:
    for number in numbers:
        guest.say(Kind.CALL, number, {"call": "http", "body": True})


PROTOCOL_BREAKS: dict[str, Callable[[ScriptedGuest], None]] = {
    "an unknown event": lambda g: g.tell("coup"),
    "a frame that only workers send": lambda g: g.say(Kind.HELLO, 0, {}),
    "a call with a number in use": lambda g: calls(g, 1, 1),
    "too many calls": lambda g: calls(g, *range(relay.MAX_CALLS + 1)),
    "an event that is no object": lambda g: g.say(Kind.EVENT, 0, b"[1]"),
    "a frame too long": lambda g: g.stdout.feed_data(b"\xff\xff\xff\xff\x06\x00\x00\x00\x00"),
    "a done without its members": lambda g: g.tell("done", enclave=ENCLAVE),
}


@pytest.mark.parametrize("act", PROTOCOL_BREAKS.values(), ids=PROTOCOL_BREAKS.keys())
async def test_a_guest_that_breaks_the_protocol_loses_its_task(
    world: World, act: Callable[[ScriptedGuest], None]
) -> None:
    async def script(guest: ScriptedGuest) -> None:
        await guest.hear()
        act(guest)
        await asyncio.sleep(3600)

    with pytest.raises(AttemptFailed) as failed:
        await serve(world, script)
    assert failed.value.cause == "GUEST_LOST"


async def test_an_early_end_tells_status_and_last_words(world: World) -> None:
    async def script(guest: ScriptedGuest) -> None:
        guest.status = 3

    with pytest.raises(AttemptFailed) as failed:
        await serve(world, script)
    assert "status 3" in str(failed.value) and "last words" in str(failed.value)


@pytest.mark.parametrize("says", [True, False])
async def test_want_of_memory_is_recognised(world: World, says: bool) -> None:
    async def script(guest: ScriptedGuest) -> None:
        guest.starved = True
        if says:
            guest.tell("failed", cause="APP_COMPUTE_FAILED", message="killed")

    with pytest.raises(AttemptFailed) as failed:
        await serve(world, script)
    assert failed.value.cause == "APP_OUT_OF_MEMORY"


async def test_a_failure_keeps_the_guests_cause(world: World) -> None:
    async def script(guest: ScriptedGuest) -> None:
        guest.tell("failed", cause="PRE_COMPUTE_INVALID_DATASET_CHECKSUM", message="changed")

    with pytest.raises(AttemptFailed, match="changed") as failed:
        await serve(world, script)
    assert failed.value.cause == "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"


async def test_a_closed_pipe_is_a_lost_guest(world: World) -> None:
    guest = ScriptedGuest(lambda g: asyncio.sleep(0))
    guest.stdin.broken = True
    with pytest.raises(AttemptFailed) as failed:
        await Relay(guest, world, lambda _: None).run(Hello())  # type: ignore[arg-type]
    assert failed.value.cause == "GUEST_LOST"


def test_done_carries_an_attested_fault() -> None:
    fault = {"cause": "APP_COMPUTE_FAILED", "message": "the app exited with code 3"}
    done = Done.read({**DONE, "error": fault, "exitCode": 3})
    assert (done.fault_cause, done.exit_code) == ("APP_COMPUTE_FAILED", 3)
    assert json.loads(done.results) == {}


ARCHIVE = f"/v1/results/0x{'1' * 64}/archive?digest=0x{'2' * 64}&signature=0x"


async def test_an_archive_may_have_what_the_output_may_have_and_an_eighth(
    world: World, services: dict[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MAX_BODY", 10)
    asked = {"dest": "results", "method": "PUT", "path": ARCHIVE, "headers": {}}
    whole = bytes((1 << 20) // 8 * 9 + 10)
    pieces = (whole[: 1 << 20], whole[1 << 20 :])
    good, long, other = await outcome(
        world,
        ("http", asked, pieces),
        ("http", asked, (*pieces, b"x")),
        ("http", {**asked, "path": ARCHIVE.replace("archive", "proof")}, pieces),
    )
    assert [f.kind for f in good] == [Kind.ANSWER, Kind.DATA, Kind.END]
    assert [len(content) for _, _, content, _ in services["results"].asked] == [len(whole)]
    for refused in (long, other):
        assert refused[0].json()["cause"] == "POST_COMPUTE_IPFS_UPLOAD_FAILED"


async def test_the_size_is_told_before_the_bytes(world: World) -> None:
    (fetch,) = await outcome(world, ("fetch", {"name": "image"}, ()))
    assert fetch[0].json() == {"size": MAX_PAYLOAD + 10}
