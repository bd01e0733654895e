"""What an app does with its hosts: TLS that only it and the host read, and many connections at once."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import selectors
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealdeal.guest.network import MAX_CONNECTIONS, _Tunnel
from sealdeal.guest.stream import WINDOW, BrokenStream, Channel, Decoder, Kind, encode
from sealdeal.model.hosts import Host
from sealdeal.sdk.images import BuiltImage
from sealdeal.worker.proxy import Proxy, Terms, declared
from tests.worker.test_proxy import echo, here, host

from .world import Scene

MakeScene = Callable[..., Scene]
App = Callable[..., BuiltImage]
API = Host("api.example.org", 443)

DONE = """
    out = os.environ["IEXEC_OUT"]
    with open(out + "/found.json", "w") as file:
        json.dump(found, file)
    with open(out + "/computed.json", "w") as file:
        json.dump({"deterministic-output-path": out + "/found.json"}, file)
"""


def certified(name: str, folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's TLS under a root of its own, and that root in PEM."""
    key, subject = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "server.pem").write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context, pem.decode()


def way_to(image: BuiltImage, **terms: Any) -> Proxy:
    return Proxy(
        declared(image.archive, image.checksum), Terms(**terms), resolve=here, permitted=lambda _: True
    )


def leads_to(way: Proxy) -> Callable[[], Any]:
    async def network() -> Proxy:
        return way

    return network


async def test_an_app_talks_tls_through_a_worker_that_reads_nothing(
    app: App, scene: MakeScene, tmp_path: Path
) -> None:
    context, root = certified("api.example.org", tmp_path)
    told: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\nthe answer\n")
        await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    inner = server.sockets[0].getsockname()[1]
    seen = bytearray()

    async def listening_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What stands where the worker connects to: it sees every byte, as the worker does."""
        there, back = await asyncio.open_connection("127.0.0.1", inner)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                seen.extend(data)
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()

        await asyncio.gather(carry(reader, back), carry(there, writer))
        back.close()

    async with server, host(listening_in) as port:
        text = f"""
    import json, os, ssl, urllib.request
    trusted = ssl.create_default_context(cadata={root!r})
    url = "https://api.example.org:{port}/secret/path"
    asked = urllib.request.Request(url, headers={{"X-Secret": "patients"}})
    found = urllib.request.urlopen(asked, timeout=10, context=trusted).read().decode()
    {DONE}"""
        task = scene(app(text, f"api.example.org:{port}"))
        task.network = leads_to(way_to(task.image))
        done = await task.run()
    assert done.exit_code == 0, task.result()
    assert json.loads(task.result()["found.json"]) == "the answer\n"
    assert b"GET /secret/path" in told[0] and b"patients" in told[0]
    assert len(seen) > 500 and b"patients" not in seen and b"secret" not in seen and b"answer" not in seen


async def test_more_connections_than_there_are_places_take_turns(app: App, scene: MakeScene) -> None:
    size = 3 * WINDOW + 1
    async with host(echo) as port:
        text = f"""
    import concurrent.futures, hashlib, json, os, socket, threading

    def talk(number):
        data = bytes([number]) * {size}
        with socket.create_connection(("127.0.0.1", 3128), 15) as link:
            for piece in (b"CONNECT api.exa", b"mple.org:{port} HTTP/1.1\\r\\n", b"Host: x\\r\\n\\r\\nearly"):
                link.sendall(piece)
            answer = link.makefile("rb")
            head = answer.readline() + answer.readline()
            assert head == b"HTTP/1.1 200 Connection established\\r\\n\\r\\n", head
            def send():
                link.sendall(data)
                link.shutdown(socket.SHUT_WR)
            sending = threading.Thread(target=send)
            sending.start()
            came = answer.read()
            sending.join()
            return came == b"early" + data

    with concurrent.futures.ThreadPoolExecutor(24) as many:
        found = list(many.map(talk, range(24)))
    for _ in range(3):  # and some are given up in the middle
        with socket.create_connection(("127.0.0.1", 3128), 15) as link:
            link.sendall(b"CONNECT api.example.org:{port} HTTP/1.1\\r\\n\\r\\n" + b"x" * 100000)
            link.recv(10)
    {DONE}"""
        task = scene(app(text, f"api.example.org:{port}"))
        way = way_to(task.image, at_once=MAX_CONNECTIONS)
        task.network = leads_to(way)
        done = await task.run()
    assert done.exit_code == 0, task.result()
    assert json.loads(task.result()["found.json"]) == [True] * 24
    assert way.spent >= 24 * 2 * size and way._open == 0


async def test_a_host_that_cannot_be_reached_is_an_answer(app: App, scene: MakeScene) -> None:
    text = f"""
    import json, os, urllib.request
    try:
        found = str(urllib.request.urlopen("https://api.example.org/", timeout=10))
    except OSError as error:
        found = str(error)
    {DONE}"""
    task = scene(app(text, "api.example.org:443"))

    async def unknown(name: str, port: int) -> list[str]:
        raise OSError("no such name")

    task.network = leads_to(Proxy(declared(task.image.archive, task.image.checksum), resolve=unknown))
    await task.run()
    assert "502" in json.loads(task.result()["found.json"])


class Talk:
    """One connection of an app, in this process: the worker's frames are what the test says."""

    def __init__(self) -> None:
        self.app, ours = socket.socketpair()
        ours.setblocking(False)
        self.app.settimeout(5)
        self.selector = selectors.DefaultSelector()
        from_worker, self.worker = os.pipe()
        self.heard, to_worker = os.pipe()
        self.channel = Channel(from_worker, to_worker)
        self.tunnel = _Tunnel(ours, self.selector, self.channel, frozenset({API}), lambda _: None)

    def turn(self) -> None:
        for key, events in self.selector.select(1):
            key.data(events)

    def say(self, kind: Kind, payload: Any = b"") -> None:
        os.write(self.worker, encode(kind, self.tunnel.number, payload))
        self.channel.hear()

    def connect(self) -> None:
        self.app.sendall(b"CONNECT API.example.org:443 HTTP/1.1\r\n\r\n")
        self.turn()
        self.say(Kind.ANSWER, {})
        assert self.app.recv(100).startswith(b"HTTP/1.1 200 ")


LIES: dict[str, tuple[Kind, Any]] = {
    "no credit": (Kind.CREDIT, b""),
    "more credit than a window": (Kind.CREDIT, b"\0\0\0\1"),
    "an answer again": (Kind.ANSWER, {}),
    "empty data": (Kind.DATA, b""),
    "an error that is none": (Kind.EVENT, {}),
}


@pytest.mark.parametrize(("kind", "payload"), LIES.values(), ids=LIES.keys())
def test_a_worker_that_breaks_the_flow_loses_its_guest(kind: Kind, payload: Any) -> None:
    talk = Talk()
    talk.connect()
    with pytest.raises(BrokenStream):
        talk.say(kind, payload)


def test_a_worker_cannot_fill_the_guests_memory() -> None:
    talk = Talk()
    talk.connect()
    with pytest.raises(BrokenStream):
        for _ in range(50):  # the app reads nothing
            os.write(talk.worker, encode(Kind.DATA, talk.tunnel.number, b"x" * 60_000))
            talk.channel.hear()
    assert len(talk.tunnel._to_app) <= WINDOW


def test_data_before_the_answer_is_out_of_turn() -> None:
    talk = Talk()
    talk.app.sendall(b"CONNECT api.example.org:443 HTTP/1.1\r\n\r\n")
    talk.turn()
    with pytest.raises(BrokenStream):
        talk.say(Kind.DATA, b"x")


def test_what_the_host_sent_last_arrives_after_its_end() -> None:
    talk = Talk()
    talk.connect()
    talk.say(Kind.DATA, b"the last words")
    talk.say(Kind.END)
    assert talk.app.recv(100) == b"the last words" and talk.app.recv(100) == b""
    assert not talk.tunnel.ended  # the app may still speak
    talk.app.close()
    talk.turn()
    assert talk.tunnel.ended and talk.tunnel.number not in talk.channel._calls


def test_an_app_that_is_gone_ends_its_connection_at_the_worker() -> None:
    talk = Talk()
    talk.connect()
    os.read(talk.heard, 1 << 16)
    talk.app.close()
    talk.say(Kind.DATA, b"x" * 1000)
    while not talk.tunnel.ended:
        talk.turn()
        talk.say(Kind.DATA, b"x" * 1000)
    kinds = [frame.kind for frame in Decoder().feed(os.read(talk.heard, 1 << 16))]
    assert kinds[-1] is Kind.ERROR
