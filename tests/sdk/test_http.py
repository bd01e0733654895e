"""Errors cross HTTP as what they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pydantic
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

from sealdeal.model import errors
from sealdeal.model.errors import SealdealError
from sealdeal.sdk.http import Client, Failover, answer_errors, error_of, in_memory


class OnlyHere(errors.Conflict):
    """An error of one room."""


class Body(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    number: int


def service() -> FastAPI:
    app = FastAPI()
    answer_errors(app)

    @app.get("/raise/{code}")
    async def fail(code: str) -> None:
        known = {
            c.__name__: c
            for c in vars(errors).values()
            if isinstance(c, type) and issubclass(c, SealdealError)
        }
        raise {**known, "OnlyHere": OnlyHere}[code](f"this is {code}")

    @app.post("/body")
    async def body(given: Body) -> int:
        return given.number

    @app.get("/market")
    async def market() -> PlainTextResponse:
        return PlainTextResponse('{"ok":false,"error":"order already published"}', 403)

    @app.get("/bare")
    async def bare() -> PlainTextResponse:
        return PlainTextResponse("no JSON here", 502)

    @app.get("/elsewhere")
    async def elsewhere() -> RedirectResponse:
        return RedirectResponse("/body")

    @app.get("/pieces")
    async def pieces() -> StreamingResponse:
        return StreamingResponse(iter([b"ab", b"cd"]))

    return app


@pytest.fixture
def client() -> Client:
    return Client("http://service", in_memory(service()))


@pytest.mark.parametrize(
    "kind",
    [
        "InvalidInput",
        "NotFound",
        "Conflict",
        "TooLarge",
        "BadSignature",
        "Forbidden",
        "EvidenceRefused",
        "OnlyHere",
    ],
)
async def test_a_service_and_its_client_raise_the_same(client: Client, kind: str) -> None:
    with pytest.raises(SealdealError, match=f"this is {kind}") as raised:
        await client.json("GET", f"/raise/{kind}")
    assert raised.value.code == type(raised.value).__name__ == kind


async def test_a_class_that_wants_more_than_a_message_is_still_raised(client: Client) -> None:
    with pytest.raises(errors.Mismatch, match="this is Mismatch"):
        await client.json("GET", "/raise/Mismatch")


async def test_half_a_character_in_a_body_breaks_no_answer(client: Client) -> None:
    """JSON can write it, and UTF-8 cannot: in a value, and as the name of a member that is not known."""
    for body in (b'{"number": "\\ud800"}', b'{"\\ud800": 1, "number": 1}', b'"\\udfff"'):
        headers = {"Content-Type": "application/json"}
        with pytest.raises(errors.InvalidInput):
            await client.request("POST", "/body", content=body, headers=headers)


async def test_a_malformed_body_is_named(client: Client) -> None:
    with pytest.raises(errors.InvalidInput, match=r"body\.number"):
        await client.json("POST", "/body", json={"number": "many"})


async def test_an_unknown_route_is_not_found(client: Client) -> None:
    with pytest.raises(errors.NotFound):
        await client.json("GET", "/nowhere")
    with pytest.raises(errors.InvalidInput):
        await client.json("DELETE", "/body")


async def test_the_marketplaces_dialect_is_read(client: Client) -> None:
    with pytest.raises(errors.Forbidden, match="order already published"):
        await client.json("GET", "/market")


async def test_an_answer_without_json_says_what_came(client: Client) -> None:
    with pytest.raises(SealdealError, match="answered 502: no JSON here"):
        await client.json("GET", "/bare")


async def test_streams_come_in_pieces_and_raise_alike(client: Client) -> None:
    assert b"".join([piece async for piece in client.stream("/pieces")]) == b"abcd"
    with pytest.raises(errors.NotFound):
        _ = [piece async for piece in client.stream("/raise/NotFound")]
    with pytest.raises(SealdealError):
        _ = [piece async for piece in client.stream("/elsewhere")]


async def test_an_answer_to_pass_on_is_bounded(client: Client) -> None:
    assert await client.exchange("GET", "/bare", limit=100) == (502, b"no JSON here")
    with pytest.raises(errors.TooLarge, match="more than 3 bytes"):
        await client.exchange("GET", "/pieces", limit=3)


async def test_nobody_there_is_unavailable(unused_tcp_port: int) -> None:
    async with Client(f"http://127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(errors.Unavailable, match="is it running"):
            await client.json("GET", "/")


async def test_a_service_that_hangs_is_unavailable() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}", timeout=0.2) as client:
            with pytest.raises(errors.Unavailable):
                await client.json("GET", "/")


class Equal:
    """One of several equal services: says its port, and remembers which Host it was asked as."""

    def __init__(self, port: int) -> None:
        self.port, self.url, self.asked = port, f"http://127.0.0.1:{port}", list[str]()
        self.silent = False
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked += [
            line.removeprefix("Host: ") for line in head.split("\r\n") if line.startswith("Host: ")
        ]
        if not self.silent:
            text = str(self.port).encode()
            length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(text)
            writer.write(b"HTTP/1.1 200 OK\r\n" + length + text)
        writer.close()


@asynccontextmanager
async def either(
    ports: Callable[[], int], patience: float = 0.0
) -> AsyncIterator[tuple[Client, Equal, Equal]]:
    """A client of two equal services, which do not run yet."""
    one, other = Equal(ports()), Equal(ports())
    async with Client(one.url, Failover([one.url, other.url], patience)) as client:
        try:
            yield client, one, other
        finally:
            await one.stop()
            await other.stop()


async def test_of_equal_services_the_next_is_asked_when_one_takes_no_connection(
    unused_tcp_port_factory: Callable[[], int],
) -> None:
    async with either(unused_tcp_port_factory) as (client, one, other):
        await other.start()
        assert await client.json("GET", "/") == other.port
        await one.start()
        assert await client.json("GET", "/") == other.port, "it stays with who answers"
        await other.stop()
        assert await client.json("GET", "/") == one.port
        assert other.asked == [f"127.0.0.1:{other.port}"] * 2
        assert one.asked == [f"127.0.0.1:{one.port}"]


async def test_equal_services_that_all_refuse_are_unavailable_once_patience_ends(
    unused_tcp_port_factory: Callable[[], int],
) -> None:
    async with either(unused_tcp_port_factory) as (client, one, _):
        with pytest.raises(errors.Unavailable, match="is it running"):
            await client.json("GET", "/")
        await one.start()
        assert await client.json("GET", "/") == one.port
    async with either(unused_tcp_port_factory, patience=60) as (client, _, other):
        asked = asyncio.create_task(client.json("GET", "/"))
        await asyncio.sleep(0.1)
        assert not asked.done()
        await other.start()
        assert await asked == other.port


async def test_what_was_sent_to_one_service_is_not_sent_to_another(
    unused_tcp_port_factory: Callable[[], int],
) -> None:
    """It may have been done: who asked decides whether to ask again."""
    async with either(unused_tcp_port_factory, patience=60) as (client, one, other):
        await one.start()
        await other.start()
        one.silent = True
        with pytest.raises(errors.Unavailable):
            await client.request("POST", "/", content=b"once")
        assert (len(one.asked), other.asked) == (1, [])


async def test_browsers_of_any_origin_may_call(client: Client) -> None:
    answer = await client.request("GET", "/pieces", headers={"Origin": "https://anywhere.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-expose-headers"] == "*"


def test_an_unknown_code_goes_by_its_status() -> None:
    answer = httpx2.Response(409, json={"error": "of a newer service", "code": "SomethingNewer"})
    error = error_of(answer, "there")
    assert isinstance(error, errors.Conflict)
    assert str(error) == "of a newer service"
