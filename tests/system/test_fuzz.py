"""The HTTP services under requests that nobody would send: nothing breaks, hangs or grows.

Requests are drawn from each service's own OpenAPI description, valid and not; and from those that a whole
deal really took, replayed with something in them changed. The services run on their real ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

import httpx2
import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sealdeal.model.deals import Deal
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.keys import Key
from sealdeal.model.orders import tag_bits
from sealdeal.model.sealing import SecretKind
from sealdeal.node import LocalNetwork
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.sms import SmsClient
from sealdeal.sms.gateway import Gateway
from sealdeal.sms.gateway import create_app as create_gateway
from tests.market.server import served

from .conftest import World, distributed, local_network

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICES: Final = ("market", "scheduler", "sms-0", "results", "gateway")
EXAMPLES: Final = 3
"""Requests to each route, of which there are some eighty; `./dev soak` sends more."""
GROWS: Final = ("market.market_challenges",)
"""Tables that strangers may add to: their rows are forgotten with age."""
PATIENCE: Final = 20.0
"""Seconds for any answer; those that wait for news are told not to."""
STRANGE: Final = (
    *(
        "",
        "0",
        "-1",
        "1.5",
        "0x",
        "0x0",
        "null",
        "true",
        "NaN",
        "1e400",
        "9" * 30,
        "0x" + "f" * 64,
        "+1",
        " 1",
    ),
    *("\x00", "a\x00b", "\u202e", "é", "😀", "%00", "../../etc/passwd", "'; --", "٣", "x" * 5000),
)
NUMBERS: Final = (0, -1, 2, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 1 << 256, -(1 << 63) - 1, 1.5, 1e400)
"""Past what columns, languages and contracts hold."""
BODIES: Final = (b"", b"[" * 50_000, b'{"a":' * 20_000, b"\xff\xfe", b"null", b"9" * 5_000, b'"\\ud800"')
_ID: Final = re.compile(r"0x[0-9a-fA-F]{40,64}|Qm\w{44}|\d+")
_SENT: Final = ("accept", "authorization", "content-type")
_KEPT: Final = 3
"""Recorded requests of one kind."""


REACHING: Final = """
import json, os, socket
with socket.create_connection(("127.0.0.1", 3128)) as link:
    link.sendall(b"CONNECT nowhere.invalid:443 HTTP/1.1\\r\\n\\r\\n")
    answer = link.makefile().read()
with open("/iexec_out/answer.txt", "w") as file:
    file.write(answer)
with open("/iexec_out/computed.json", "w") as file:
    json.dump({"deterministic-output-path": "/iexec_out/answer.txt"}, file)
"""
"""An app with a host that nobody has (RFC 2606), and what its worker says to that."""


@dataclass(frozen=True)
class Recorded:
    """A request that a service was really sent."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        return f"{self.method} {_ID.sub('{}', self.path)}"


@dataclass
class Ground:
    """A network in which a deal was made and done, and what was said for it."""

    network: LocalNetwork
    urls: dict[str, str] = field(default_factory=dict)
    real: dict[str, list[str]] = field(default_factory=dict)
    """By the names of parameters: values that exist."""
    recorded: dict[str, dict[str, list[Recorded]]] = field(default_factory=dict)
    """By service and kind."""
    answer: str = ""
    """What the deal's app was told about its host."""

    def known(self, name: str) -> list[str]:
        number = name in ("category", "catid", "attempt", "after") or name.startswith(("page", "min", "max"))
        return self.real.get(name) or (["0", "1", "10"] if number else self.real["any"])

    def tap(self, service: str, app: ASGIApp) -> ASGIApp:
        """Listens to what a service is asked."""

        async def listening(scope: Scope, receive: Receive, send: Send) -> None:
            body = bytearray()

            async def heard() -> Message:
                message = await receive()
                if len(body) < 1 << 20:
                    body.extend(message.get("body", b""))
                return message

            await app(scope, heard, send)
            if scope["type"] == "http" and len(body) < 1 << 20 and not self.real:
                headers = {k.decode(): v.decode("latin-1") for k, v in scope["headers"]}
                query = scope["query_string"].decode()
                request = Recorded(scope["method"], scope["path"], query, headers, bytes(body))
                same = self.recorded.setdefault(service, {}).setdefault(request.kind, [])
                if len(same) < _KEPT:
                    same.append(request)

        return listening


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> AsyncIterator[Ground]:
    folder = tmp_path_factory.mktemp("network")
    heard: list[Ground] = []
    network = local_network(
        folder / "state",
        cache,
        workers=1,
        app_network="declared",
        tap=lambda service, app: heard[0].tap(service, app),
    )
    heard.append(Ground(network))
    async with network:
        world = World(network, folder, cache)
        async with world.stack:
            await furnish(world, heard[0])
            yield heard[0]


async def furnish(world: World, ground: Ground) -> None:
    network, at = world.network, world.network.network.services
    requester, owner = await world.requester(), await world.person()
    folder = world.image_folder(REACHING)
    with (folder / "sealdeal.toml").open("a") as manifest:
        manifest.write('hosts = ["nowhere.invalid:443"]\n')
    app = await owner.publish_app(build_app_image(folder, cache=world.cache))
    data = await world.data(owner, b"patients", app.address)
    deal = await world.buy(requester, app.address, dataset=data.address)
    await world.ended(requester, deal)
    ground.answer = (await world.result(requester, deal.task_ids()[0])).files["answer.txt"].decode()
    gateway = create_gateway(Gateway(requester.secrets, requester.hub, [requester.key]))
    split = await world.stack.enter_async_context(served(None, ground.tap("gateway", gateway)))
    async with SmsClient(split) as client:
        secret = (SecretKind.REQUESTER_SECRET, requester.key, requester.key.address, "word")
        await client.push(*secret, "a value")
        assert await client.has_secret(secret[0], secret[2], secret[3])
    await look_around(world, requester.key, deal, data.multiaddr.removeprefix("/ipfs/"))
    assert at.scheduler
    ground.urls = {"market": at.market, "scheduler": at.scheduler, "results": at.results, "sms-0": at.sms[0]}
    ground.urls["gateway"] = split
    people = [requester.key.address, app.address, data.address]
    task, dealid, order = (f"0x{h.hex()}" for h in (deal.task_ids()[0], deal.dealid, app.order or b""))
    contents = [made.multiaddr.removeprefix("/ipfs/") for made in (app, data)]
    chain, worker = str(network.chain_id), network.worker_keys()[0].address
    ground.real = {
        **{"chainId": [chain], "chain_id": [chain], "cid": contents, "wallet": [worker], "taskid": [task]},
        **{
            "dealid": [dealid],
            "orderHash": [order],
            "app_address": [app.address],
            "wait": ["0", "0.01", "-1"],
        },
        "name": ["poco", "dataprotector"],
        "topics": ["orders", "deals,tasks"],
        "any": [*people, task, dealid, order],
    }


async def look_around(world: World, key: Key, deal: Deal, cid: str) -> None:
    """Ask what a deal does not: what it costs and why, what the market tells, the graphs, the store."""
    network = world.network.network
    at = network.services
    async with (
        Sealdeal(network, key) as who,
        httpx2.AsyncClient() as http,
    ):  # by sockets: a stream is among it
        order = await who.market.deal(deal.dealid)
        await who.market.quote(deal.app.pointer, dataset=deal.dataset.pointer, bits=tag_bits(deal.tag))
        await who.market.why(order.request_hash)
        await who.market.match_of(deal.dealid)
        async for _ in who.events(dealid=deal.dealid, after=0):
            break
        with pytest.raises(InvalidInput, match="not on the public internet"):
            await who.add_webhook("https://127.0.0.1/")
        with pytest.raises(NotFound):
            await who.drop_webhook("wh_0")
        assert await who.webhooks() == []
        for url, query in (
            (
                at.poco_subgraph,
                "query ($n: Int) { deals(first: $n) { id tasks(orderBy: index) { status } } }",
            ),
            (at.subgraph, 'query ($n: Int) { protectedDatas(first: $n, where: {or: [{name: "x"}]}) { id } }'),
        ):
            answer = await http.post(str(url), json={"query": query, "variables": {"n": 5}})
            assert "data" in answer.json(), answer.text
        for path in (f"cat?arg={cid}", f"block/get?arg={cid}", f"dag/get?arg={cid}", f"pin/ls?arg={cid}"):
            await http.post(f"{at.ipfs_node}/api/v0/{path}")
        made = await http.post(f"{at.ipfs_node}/api/v0/add?pin=true", files={"file": ("x", b"content")})
        assert made.json()["Hash"]
        for headers in ({}, {"Range": "bytes=1-3"}, {"Accept": "application/vnd.ipld.raw"}):
            await http.get(f"{at.ipfs_gateway}/ipfs/{cid}", headers=headers)


# ---- drawing requests --------------------------------------------------------------------------------------

Draw = Callable[[st.SearchStrategy[Any]], Any]
Sending = Callable[[Draw, requests.Session], requests.Response]

leaves = (
    st.none()
    | st.just("\ud800")
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.sampled_from(STRANGE)
    | st.text(max_size=20)
)
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def other(draw: Draw, ground: Ground, name: str) -> Any:
    """Another value in the place of that name."""
    return draw(st.sampled_from([*ground.known(name), *STRANGE]))


def changed(draw: Draw, ground: Ground, value: Any, name: str = "") -> Any:
    """A JSON value with one thing in it changed, dropped or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 7)):
            return {k: v for k, v in value.items() if k != name}
        return {**value, name: changed(draw, ground, value[name], name)}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], changed(draw, ground, value[at], name), *value[at + 1 :]]
    if isinstance(value, str) and value and draw(st.integers(0, 2)):
        at = draw(st.integers(0, len(value) - 1))  # signatures and hashes: one digit of many
        return value[:at] + draw(st.sampled_from("0fgX ")) + value[at + 1 :]
    return draw(leaves) if draw(st.booleans()) else other(draw, ground, name)


def ask(session: requests.Session, **asked: Any) -> requests.Response:
    """What is answered; of a stream that goes on for ever, only that it began."""
    answer = session.request(**asked, timeout=PATIENCE, stream=True)
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        next(answer.iter_content(1))
        answer.close()
    else:
        _ = answer.content
    return answer


def described(ground: Ground, url: str, invalid: bool) -> Iterator[tuple[str, Sending]]:
    """How to send a request to each route of a service. `invalid`: also ones that violate its description."""
    for result in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # raises for a description that is wrong
        strategy = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if invalid:  # drawn slowly
            strategy |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        told = [
            (p["name"], p["in"], p.get("required")) for p in operation.definition.raw.get("parameters", ())
        ]

        def send(draw: Draw, session: requests.Session, strategy: Any = strategy, told: Any = told) -> Any:
            case = draw(strategy)
            # nothing, everything, or one parameter is not as it should be
            spoilt = draw(st.sampled_from([None, "", *(name for name, *_ in told)]))
            case.path_parameters, case.query = dict(case.path_parameters or {}), dict(case.query or {})
            for name, where, needed in told:
                part = {"path": case.path_parameters, "query": case.query}.get(where)
                if part is None or (spoilt == "" and name != "wait"):
                    continue
                part.pop(name, None)
                if not needed and name not in (spoilt, "wait", "chainId") and draw(st.integers(0, 3)):
                    continue
                spoil = name == spoilt and name != "wait"
                value = other(draw, ground, name) if spoil else draw(st.sampled_from(ground.known(name)))
                part[name] = quote(value, safe="", errors="replace") if where == "path" else value
            signed = {"Authorization": draw(st.sampled_from(["0x" + "11" * 65, "x", "a.b.c", "0x"]))}
            asked = case.as_transport_kwargs(headers=signed)
            if case.method in ("POST", "PUT") and draw(st.booleans()):
                asked.pop("json", None)
                asked["data"] = json.dumps(draw(documents)).encode()
                asked["headers"] = {**dict(asked["headers"]), "Content-Type": "application/json"}
            return ask(session, **asked)

        yield operation.label, send


def replayed(ground: Ground, url: str, heard: dict[str, list[Recorded]]) -> Iterator[tuple[str, Sending]]:
    """How to send each kind of recorded request again, changed."""
    for kind, same in sorted(heard.items()):

        def send(draw: Draw, session: requests.Session, same: list[Recorded] = same) -> Any:
            request = draw(st.sampled_from(same))
            path, query, body = request.path, dict(parse_qsl(request.query)), request.body
            headers = {k: v for k, v in request.headers.items() if k in _SENT or k[:2] == "x-"}
            where = draw(st.sampled_from(["body", "body", "path", "query", "headers"]))
            if where == "path":
                parts = path.split("/")
                at = draw(st.integers(1, len(parts) - 1))
                parts[at] = quote(other(draw, ground, "any"), safe="", errors="replace")
                path = "/".join(parts)
            elif where == "query" and query:
                name = draw(st.sampled_from(sorted(query)))
                query[name] = other(draw, ground, name)
            elif where == "headers" and (mine := [k for k in headers if k[0] != "c"]):
                name = draw(st.sampled_from(mine))
                headers[name] = changed(draw, ground, headers[name]) if headers[name] else "x"
                headers[name] = str(headers[name]).encode("ascii", "replace").decode().strip("\0\r\n ")[:1000]
            elif body:
                body = spoilt_body(draw, ground, body)
            if "wait" in query:
                query["wait"] = "0.01"
            text = urlencode(query, errors="replace")
            return ask(session, method=request.method, url=f"{url}{path}?{text}", data=body, headers=headers)

        yield kind, send


def spoilt_body(draw: Draw, ground: Ground, body: bytes) -> bytes:
    try:
        value = json.loads(body)
    except ValueError:
        at = draw(st.integers(0, len(body) - 1))
        strange: bytes = draw(st.binary(max_size=4))
        return body[:at] + strange + body[at + draw(st.integers(0, 4)) :]
    if draw(st.integers(0, 6)):
        return json.dumps(changed(draw, ground, value)).encode()
    chosen: bytes = draw(st.sampled_from(BODIES))
    return chosen


def fuzz(ground: Ground, service: str, examples: int, *, again: bool = False) -> None:
    """Send so many requests to each route, or so many of each kind that was recorded.

    Fails when the service answers with a failure of its own, or lets go of a connection for good.
    """
    url = ground.urls[service]
    heard = ground.recorded.get(service, {})
    routes = replayed(ground, url, heard) if again else described(ground, url, examples > EXAMPLES)
    failures: list[str] = []
    count = 0
    with requests.Session() as session:
        for label, send in routes:
            count += drive(label, send, session, examples, failures)
        assert session.get(f"{url}/version?chainId=1", timeout=PATIENCE).status_code == 200
    assert count >= examples
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:20])


def drive(label: str, send: Sending, session: requests.Session, examples: int, failures: list[str]) -> int:
    """Draw and send requests of one kind; returns how many were answered."""
    answered = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def each(data: st.DataObject) -> None:
        nonlocal answered
        try:
            answer = send(data.draw, session)
        except requests.ConnectionError:  # refused before all of the body was sent, which HTTP allows
            return
        except requests.exceptions.InvalidHeader:  # nothing that this client can send
            return
        answered += 1
        if answer.status_code >= 500:
            asked = answer.request
            failures.append(
                f"{label}: {answer.status_code} {answer.text[:300]}\n"
                f"  {asked.method} {(asked.url or '')[:600]}\n  {dict(asked.headers)}\n"
                f"  {str(asked.body)[:1500]}"
            )

    each()
    return answered


def held(ground: Ground) -> dict[str, int]:
    """What the services hold: open files, tasks, and rows of each table."""
    found = {"files": len(os.listdir("/proc/self/fd")), "tasks": len(asyncio.all_tasks())}
    for path in ground.network.state.glob("*.db"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
            for (name,) in names:
                (rows,) = database.execute(f'select count(*) from "{name}"').fetchone()
                found[f"{path.stem}.{name}"] = rows
    return found


async def test_an_app_of_a_whole_deal_reaches_its_worker(ground: Ground) -> None:
    """Not a host: this machine may have no network. The worker looked for it, and said why not."""
    assert ground.answer.startswith("HTTP/1.1 502 ") and "HOST_UNKNOWN" in ground.answer


@pytest.mark.parametrize("service", SERVICES)
async def test_no_request_breaks_a_service(ground: Ground, service: str) -> None:
    await asyncio.to_thread(fuzz, ground, service, EXAMPLES)


@pytest.mark.parametrize("service", SERVICES)
async def test_no_change_to_a_real_request_breaks_a_service(ground: Ground, service: str) -> None:
    before = held(ground)
    await asyncio.to_thread(fuzz, ground, service, 2 * EXAMPLES, again=True)
    grown = {name: count - before.get(name, 0) for name, count in held(ground).items() if name not in GROWS}
    # a database's connection, a long poll, a step of the chain more or less
    spare = {"files": 30, "tasks": 30}
    assert all(count < spare.get(name, 2 * EXAMPLES) for name, count in grown.items()), grown


@pytest.mark.soak
async def test_no_flood_of_requests_breaks_or_fattens_the_services(tmp_path: Path, cache: Path) -> None:
    """The services have a process of their own, and their memory stays as it is once all was used."""
    group = ("market", "scheduler", "results", "sms-0", "sms-1", "sms-2")
    async with distributed(tmp_path, cache, ("chain",), group) as (world, [process]):
        at, chain = world.network.network.services, str(world.network.chain_id)
        assert at.scheduler and process.child
        urls = {"market": at.market, "scheduler": at.scheduler, "results": at.results, "sms-0": at.sms[0]}
        real = {"chainId": [chain], "wait": ["0"], "any": ["0x" + "12" * 20, "0x" + "34" * 32]}
        ground, sizes = Ground(world.network, urls, real), list[int]()
        for _ in range(4):
            for service in urls:
                await asyncio.to_thread(fuzz, ground, service, 25)
            status = Path(f"/proc/{process.child.pid}/status").read_text()
            sizes.append(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) >> 10)
        assert sizes[-1] - sizes[1] < 32, f"MiB after each of four rounds: {sizes}"
