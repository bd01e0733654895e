"""What an app may not reach, and what it may not do to those it reaches, or to the worker that carries it.

One app attacks from inside the real double sandbox, through the real guest, stream and worker; its words are
judged test by test. Where the attack takes a guest that lies, the guest follows a script.
"""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sealdeal.guest.network import PORT
from sealdeal.guest.stream import WINDOW, Kind
from sealdeal.model.errors import IntegrityError
from sealdeal.model.hosts import Host
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.sdk.images import BuiltImage
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker.proxy import NotConnected, Proxy, Terms, declared, is_foreign
from sealdeal.worker.relay import AttemptFailed
from sealdeal.worker.sandbox import Sandbox
from tests.guest.world import Scene
from tests.worker.scripted import ScriptedGuest
from tests.worker.test_proxy import Guest, host, proxy, refused, serve

MakeScene = Callable[..., Scene]
App = Callable[..., BuiltImage]

ATTACKER = """
    import json, os, socket, urllib.request
    found = {}

    def connect(request, then):
        with socket.create_connection(("127.0.0.1", 3128), 10) as link:
            link.sendall(request)
            answer = b""
            while b"\\r\\n\\r\\n" not in answer and (more := link.recv(4096)):
                answer += more
            if b" 200 " in answer:
                link.sendall(then)
                link.shutdown(socket.SHUT_WR)
            while more := link.recv(65536):
                answer += more
            return answer.decode("latin-1")

    def attempt(name, request, then=b""):
        try:
            found[name] = connect(request.encode("latin-1"), then)
        except OSError as error:
            found[name] = type(error).__name__

    def to(target):
        return "CONNECT " + target + " HTTP/1.1\\r\\nHost: " + target + "\\r\\n\\r\\n"

    api, port = DECLARED
    attempt("declared", to(api), b"hello")
    attempt("undeclared", to("elsewhere.example.org:" + port))
    attempt("port", to("api.example.org:22"))
    for address in "127.0.0.1 169.254.169.254 [::1] 0x7f.1 2130706433 localhost 127.0.0.1.".split():
        attempt("literal " + address, to(address + ":" + port))
    attempt("rebound", to("rebound.example.org:" + port), b"hello")
    attempt("metadata", to("metadata.example.org:" + port), b"GET /latest/meta-data/")
    attempt("loopback", to("loopback.example.org:" + port), b"hello")
    attempt("second request", to(api), to("elsewhere.example.org:443").encode())
    attempt("in the clear", "GET http://" + api + "/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    attempt("split line", "CONNECT x.example.org:443 HTTP/1.1\\nCONNECT " + api + " HTTP/1.1\\r\\n\\r\\n")
    attempt("endless head", "CONNECT " + "x" * 9000)
    attempt("no request", "\\x16\\x03\\x01\\x02\\x00\\x01\\r\\n\\r\\n")
    for name, act in {
        "direct": lambda: socket.create_connection(("1.1.1.1", 443), 2),
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "name": lambda: socket.getaddrinfo("api.example.org", 443),
        "library": lambda: urllib.request.urlopen("https://elsewhere.example.org/", timeout=5),
    }.items():
        try:
            found[name] = repr(act())
        except OSError as error:
            found[name] = type(error).__name__ + ": " + str(error)
    idle = []
    for number in range(60):  # more than the proxy takes: some are never accepted
        link = socket.socket()
        link.setblocking(False)
        link.connect_ex(("127.0.0.1", 3128))
        idle.append(link)
    for link in idle[:10]:
        link.send(b"CONNECT ")  # and never a word more
    found["interfaces"] = [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:]
    found["proxy"] = os.environ["HTTPS_PROXY"]
    out = os.environ["IEXEC_OUT"]
    with open(out + "/found.json", "w") as file:
        json.dump(found, file)
    with open(out + "/computed.json", "w") as file:
        json.dump({"deterministic-output-path": out + "/found.json"}, file)
"""


@dataclass
class Battle:
    """What the app found, and what the host and the worker saw."""

    found: dict[str, Any]
    heard: list[bytes]
    """What the declared host was sent, connection by connection."""
    asked: list[str]
    """Names that the worker resolved."""
    proxy: Proxy


@pytest.fixture(scope="module")
async def battle(
    app: App,
    release: GuestRelease,
    sandbox: Sandbox,
    platform: SimulatedPlatform,
    tmp_path_factory: pytest.TempPathFactory,
) -> Battle:
    """The attacker's run. It has a name server of its own, which leads names where the attacker likes."""
    heard: list[bytes] = []
    asked: list[str] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(b"")
        number = len(heard) - 1
        while data := await reader.read(65536):
            heard[number] += data
            writer.write(b"heard " + data)
        writer.close()

    leads = {
        "api.example.org": ["127.0.0.1"],
        "rebound.example.org": ["1.1.1.1", "10.0.0.1"],
        "metadata.example.org": ["169.254.169.254"],
        "loopback.example.org": ["127.0.0.2"],
    }

    async def resolve(name: str, port: int) -> list[str]:
        asked.append(name)
        return leads[name]

    async with host(listen) as port:
        text = ATTACKER.replace("DECLARED", repr((f"api.example.org:{port}", str(port))))
        image = app(text, *(f"{name}:{port}" for name in leads))
        way = Proxy(
            declared(image.archive, image.checksum),
            resolve=resolve,
            permitted=lambda a: a == "127.0.0.1" or is_foreign(a),  # where the declared host is played
        )

        async def network() -> Proxy:
            return way

        folder = tmp_path_factory.mktemp("battle")
        task = Scene(image, release, sandbox, platform, folder=folder, network=network)
        done = await task.run()
        assert done.exit_code == 0, task.result()
        return Battle(json.loads(task.result()["found.json"]), heard, asked, way)


def test_undeclared_host(battle: Battle) -> None:
    """The guest compares each request with the hosts in the measured image, and asks for no other."""
    assert battle.found["declared"].endswith("heard hello")  # the way that is open is open
    assert battle.found["undeclared"].startswith("HTTP/1.1 403 ")
    assert "403" in battle.found["library"]
    assert "elsewhere.example.org" not in battle.asked


def test_other_port_of_a_declared_host(battle: Battle) -> None:
    """A declaration names host and port; the guest refuses any other port."""
    assert battle.found["port"].startswith("HTTP/1.1 403 ")


def test_address_in_place_of_a_name(battle: Battle) -> None:
    """Only DNS names can be declared, so no way of writing an address is ever among them."""
    answers = [answer for name, answer in battle.found.items() if name.startswith("literal ")]
    assert len(answers) == 7 and all(answer.startswith("HTTP/1.1 403 ") for answer in answers)


def test_name_that_leads_to_the_metadata_service(battle: Battle) -> None:
    """The worker connects to public addresses only, whatever a name resolves to."""
    assert battle.found["metadata"].startswith("HTTP/1.1 502 ")
    assert "ADDRESS_NOT_PUBLIC" in battle.found["metadata"]


def test_name_that_leads_to_the_workers_loopback(battle: Battle) -> None:
    """Loopback, private and the machine's own addresses are not public; nothing there hears of the app."""
    assert "ADDRESS_NOT_PUBLIC" in battle.found["loopback"]
    assert battle.heard == [
        b"hello",
        b"CONNECT elsewhere.example.org:443 HTTP/1.1\r\nHost: elsewhere.example.org:443\r\n\r\n",
    ]


async def test_name_that_is_rebound_to_an_inner_address(battle: Battle) -> None:
    """A name is resolved once, all its addresses must be public, and the connection goes to one of these."""
    assert "ADDRESS_NOT_PUBLIC" in battle.found["rebound"]  # a public address first, an inner one behind it
    told = iter([["127.0.0.1"], ["10.0.0.1"]])
    looked: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        return next(told)

    def permitted(address: str) -> bool:
        looked.append(address)
        return address == "127.0.0.1"

    async with host() as port:
        way = Proxy((Host("api.example.org", port),), resolve=resolve, permitted=permitted)
        async with way.connection(Host("api.example.org", port)) as (_, writer):
            assert writer.get_extra_info("peername") == ("127.0.0.1", port)
        assert looked == ["127.0.0.1"]
        assert await refused(way, port=port) == "ADDRESS_NOT_PUBLIC"


def test_second_request_inside_a_connection(battle: Battle) -> None:
    """What follows a CONNECT goes to the declared host as it is: the proxy reads one request and no more."""
    assert battle.found["second request"].startswith("HTTP/1.1 200 ")
    assert "heard CONNECT elsewhere" in battle.found["second request"]


def test_request_that_is_read_in_two_ways(battle: Battle) -> None:
    """The proxy takes one verb, one target and one version, exactly; anything else ends the connection."""
    assert battle.found["split line"].startswith("HTTP/1.1 40")
    assert battle.found["endless head"].startswith("HTTP/1.1 400 ") or "Reset" in battle.found["endless head"]
    assert battle.found["no request"].startswith("HTTP/1.1 405 ")


def test_request_in_the_clear(battle: Battle) -> None:
    """The worker could read and change it, so the proxy takes CONNECT alone, for what the app encrypts."""
    assert battle.found["in the clear"].startswith("HTTP/1.1 405 ")


def test_way_around_the_proxy(battle: Battle) -> None:
    """The app's network namespace has a loopback alone, even with hosts declared: no route, no resolver."""
    assert battle.found["interfaces"] == ["lo"]
    assert battle.found["direct"].startswith("OSError") and battle.found["name"].startswith("gaierror")
    assert battle.found["raw"].startswith("PermissionError")


def test_connections_left_half_open(battle: Battle) -> None:
    """The guest's proxy waits for no one: an app that holds all its connections holds up itself, and ends."""
    assert battle.found["proxy"] == f"http://127.0.0.1:{PORT}"  # its last word, after it had let 60 lie
    assert battle.proxy._open == 0


async def test_network_of_an_app_that_declares_none(scene: MakeScene) -> None:
    """Without a declaration there is no proxy, and the worker is never asked for one."""
    probe = """
        import json, os, socket
        out = os.environ["IEXEC_OUT"]
        try:
            found = repr(socket.create_connection(("127.0.0.1", 3128), 2))
        except OSError as error:
            found = type(error).__name__
        open(out + "/found.json", "w").write(json.dumps([found, "HTTPS_PROXY" in os.environ]))
        open(out + "/computed.json", "w").write('{"deterministic-output-path": "/iexec_out/found.json"}')
    """

    async def never() -> Proxy:
        raise AssertionError("asked for a network")

    task = scene(probe, network=never)
    await task.run()
    assert json.loads(task.result()["found.json"]) == ["ConnectionRefusedError", False]


async def test_hosts_on_a_worker_that_offers_no_network(app: App, scene: MakeScene) -> None:
    """The guest asks for the network before any secret; the attempt fails with a cause, uncontributed."""
    task = scene(app("print('never run')", "api.example.org:443"), dataset=b"secret")
    with pytest.raises(AttemptFailed, match=r"needs api\.example\.org:443") as failed:
        await task.run()
    assert failed.value.cause == "NETWORK_NOT_OFFERED"
    assert not any("/tee/releases" in node.asked for node in task.nodes.values())


def other_hosts(image: BuiltImage, place: Path) -> Path:
    """The archive with another host in its configuration, and nothing else changed."""
    parts: list[tuple[tarfile.TarInfo, bytes]] = []
    with tarfile.open(image.archive) as archive:
        for member in archive:
            file = archive.extractfile(member)
            data = file.read() if file else b""
            member.size = len(data := data.replace(b"api.example.org:443", b"bad.example.org:443"))
            parts.append((member, data))
    with tarfile.open(place, "w") as archive:
        for member, data in parts:
            archive.addfile(member, io.BytesIO(data))
    return place


async def test_hosts_changed_after_the_build(app: App, scene: MakeScene, tmp_path: Path) -> None:
    """The hosts are in the configuration that the app's checksum covers: worker and guest both compare it."""
    image = app("print('never run')", "api.example.org:443")
    forged = other_hosts(image, tmp_path / "forged.tar")
    assert declared(image.archive, image.checksum) == (Host("api.example.org", 443),)
    for archive in (forged, app("print('never run')", "bad.example.org:443").archive):
        with pytest.raises(IntegrityError):
            declared(archive, image.checksum)
    task = scene(image)
    task.files["image"] = forged
    with pytest.raises(AttemptFailed) as failed:
        await task.run()
    assert failed.value.cause == "APP_IMAGE_DOWNLOAD_FAILED"


async def test_guest_that_asks_for_what_its_image_does_not_declare() -> None:
    """A guest gains nothing by lying: the worker reads the declaration from the image itself."""
    async with host() as port:

        async def script(guest: ScriptedGuest) -> None:
            for number, name in enumerate(("elsewhere.example.org", "127.0.0.1", "", "a\r\nb"), 1):
                link = Guest(guest, port, number, name)
                assert (await link.hear()).json()["cause"] == "HOST_NOT_DECLARED"

        way = proxy(port)
        await serve(way, script)
        assert way.spent == 0


async def test_too_many_connections() -> None:
    """The worker counts a task's connections, at once and in all; what is over is refused."""
    async with host() as port:
        way = proxy(port, at_once=3)

        async def script(guest: ScriptedGuest) -> None:
            links = [Guest(guest, port, number) for number in range(1, 10)]
            kinds = [(await guest.hear()).kind for _ in links]
            assert sorted(kinds) == [Kind.ANSWER] * 3 + [Kind.ERROR] * 6

        await serve(way, script)
        assert way._open == 0


async def test_flood_of_bytes() -> None:
    """Windows bound what is held, and a budget what is carried; past it the connection ends."""

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"y" * 65536)
            await writer.drain()

    async with host(pour) as port:
        way = proxy(port, bytes=4 * WINDOW)

        async def script(guest: ScriptedGuest) -> None:
            link = Guest(guest, port)
            await link.hear()
            assert (await link.until(Kind.ERROR)).json()["cause"] == "TOO_MANY_BYTES"
            assert len(link.received) <= 4 * WINDOW
            again = Guest(guest, port, number=2)
            assert (await again.hear()).json()["cause"] == "TOO_MANY_BYTES"

        await serve(way, script)


async def test_slowloris() -> None:
    """A connection without a byte is closed after its time, and gives its place to another."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with host(silent) as port:
        way = proxy(port, idle=0.1, at_once=1)

        async def script(guest: ScriptedGuest) -> None:
            for number in (1, 2):
                link = Guest(guest, port, number)
                await link.hear()
                assert (await link.until(Kind.ERROR)).json()["cause"] == "CONNECTION_IDLE"

        await serve(way, script)
        assert way._open == 0 and way._made == 2


async def test_host_that_never_answers() -> None:
    """Resolving and connecting have a bound of time, all addresses of a name together."""

    async def slow(name: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    way = Proxy((Host("api.example.org", 443),), Terms(patience=0.05), resolve=slow)
    with pytest.raises(NotConnected, match="did not answer"):
        async with way.connection(Host("api.example.org", 443)):
            pass
