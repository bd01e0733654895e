"""The app's only way out: a proxy on its own loopback, to the hosts that its image declares.

The app's network namespace has a loopback and nothing else. Here a proxy listens, at an address that
HTTPS_PROXY tells the app. It knows one verb, CONNECT (RFC 9110 §9.3.6), and takes it for declared hosts only.
What then goes both ways is carried through the stream to the worker, which connects (worker.proxy). The
worker sees and may change it: what should stay secret, or whole, is for the app to encrypt and check, as TLS
does. So requests in the clear, which a proxy would be given whole, are refused.

Everything here happens in the loop that waits for the app (guest.app): one thread, and no wait but at the
stream. An app that opens connections and lets them lie holds up itself alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Final

from sealdeal.model.errors import InvalidInput
from sealdeal.model.hosts import Host

from .failures import Failure
from .stream import WINDOW, BrokenStream, Channel, Frame, Kind, Refused, credit_of

PORT: Final = 3128
MAX_CONNECTIONS: Final = 16
"""At once; more wait until one ends."""
MAX_HEAD: Final = 8 << 10
"""Bytes of a CONNECT with its headers."""
_READ: Final = 64 << 10
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1
_REASONS: Final = {400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed", 502: "Bad Gateway"}


def ask_for_hosts(channel: Channel, hosts: tuple[Host, ...]) -> None:
    """Whether this worker lets an app reach its hosts. Raises Failure, before anything secret is here."""
    try:
        channel.call("network").answer()
    except Refused as refused:
        wanted = ", ".join(map(str, hosts))
        raise Failure(refused.cause, f"the app needs {wanted}: {refused}") from None


class Network:
    """One app's proxy. `enter` is called in the app's first process; `serve` here, once that has begun."""

    def __init__(self, channel: Channel, hosts: tuple[Host, ...]) -> None:
        self._channel, self._hosts = channel, frozenset(hosts)
        self._ours, self._theirs = socket.socketpair()
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._tunnels: set[_Tunnel] = set()

    @property
    def environment(self) -> dict[str, str]:
        """How programs find the proxy: in capitals for most, in small letters for curl and wget."""
        here = f"http://127.0.0.1:{PORT}"
        told = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), here)
        told["NO_PROXY"] = "localhost,127.0.0.1,::1"
        return told | {name.lower(): value for name, value in told.items()}

    def enter(self) -> None:
        """Between fork and exec: a network namespace of its own, with the proxy's socket in it."""
        user, group = os.geteuid(), os.getegid()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEW_USER | _NEW_NETWORK) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"a network namespace: {os.strerror(code)}")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as handle:
                handle.write(text)
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", PORT))
            listener.listen(MAX_CONNECTIONS)
            socket.send_fds(self._theirs, [b"."], [listener.fileno()])

    def serve(self, selector: selectors.BaseSelector) -> None:
        """Work whenever `selector` says so: the keys' data is a function that takes the events."""
        _, (handle,), _, _ = socket.recv_fds(self._ours, 1, 1)
        self._listener = socket.socket(fileno=handle)
        self._listener.setblocking(False)
        self._selector = selector
        self._accepting(True)
        selector.register(self._channel.source, selectors.EVENT_READ, lambda _: self._channel.hear())
        self._channel.hear(wait=False)  # what came while nobody asked

    def close(self) -> None:
        """The app has ended: every connection ends with it."""
        for tunnel in list(self._tunnels):
            tunnel.abort()
        for each in (self._listener, self._ours, self._theirs):
            if each is not None:
                each.close()

    def _accepting(self, more: bool) -> None:
        assert self._listener is not None and self._selector is not None
        registered = self._listener in self._selector.get_map()
        if more and not registered:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        elif registered and not more:
            self._selector.unregister(self._listener)

    def _accept(self, _: int) -> None:
        assert self._listener is not None and self._selector is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the app thought better of it
            return
        connection.setblocking(False)
        self._tunnels.add(_Tunnel(connection, self._selector, self._channel, self._hosts, self._gone))
        self._accepting(len(self._tunnels) < MAX_CONNECTIONS)

    def _gone(self, tunnel: _Tunnel) -> None:
        self._tunnels.discard(tunnel)
        if self._selector is not None and self._selector.get_map() is not None:
            self._accepting(True)


class _Tunnel:
    """One connection of the app: first a CONNECT, then bytes both ways."""

    def __init__(
        self,
        app: socket.socket,
        selector: selectors.BaseSelector,
        channel: Channel,
        hosts: frozenset[Host],
        gone: Callable[[_Tunnel], None],
    ) -> None:
        self._app, self._selector, self._channel, self._hosts, self._gone = (
            app,
            selector,
            channel,
            hosts,
            gone,
        )
        self.number, self.ended = 0, False
        self._head: bytearray | None = bytearray()
        """The request as far as it has come; None once it is understood."""
        self._early = b""
        """What the app sent behind its request, before it was connected."""
        self._asked = self._connected = False
        """Whether the worker knows of it; whether it leads somewhere."""
        self._credit = 0
        """Bytes that the worker still takes."""
        self._to_app = bytearray()
        self._taken = 0
        """Bytes that the app took since the worker was told."""
        self._app_is_done = self._host_is_done = False
        self._events = 0
        self._watch()

    # --- the app's side ---------------------------------------------------------------------------

    def _watch(self) -> None:
        """Ask the selector for what can be used now."""
        if self.ended:
            return
        reads = self._head is not None or (self._connected and self._credit > 0)
        wanted = selectors.EVENT_READ if reads and not self._app_is_done else 0
        wanted |= selectors.EVENT_WRITE if self._to_app else 0
        if wanted == self._events:
            return
        if not wanted:
            self._selector.unregister(self._app)
        elif self._events:
            self._selector.modify(self._app, wanted, self._ready)
        else:
            self._selector.register(self._app, wanted, self._ready)
        self._events = wanted

    def _ready(self, events: int) -> None:
        if self.ended:  # by another event of the same moment
            return
        try:
            if events & selectors.EVENT_WRITE:
                self._write()
            if events & selectors.EVENT_READ and not self.ended:
                self._read()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                self.abort()
        self._watch()

    def _read(self) -> None:
        if self._head is not None:
            data = self._app.recv(MAX_HEAD + 4 - len(self._head))
            self._head += data
            if not data:
                self.abort()
            elif b"\r\n\r\n" in self._head:
                self._begin(self._head)
            elif len(self._head) > MAX_HEAD:
                self._refuse(400, f"expected a request of at most {MAX_HEAD} bytes")
            return
        if data := self._app.recv(min(_READ, self._credit)):
            self._send(data)
        else:
            self._app_is_done = True
            self._channel.say(Kind.END, self.number)
            self._end_if_both()

    def _begin(self, received: bytearray) -> None:
        head, _, early = bytes(received).partition(b"\r\n\r\n")
        self._head, self._early = None, early
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        verb, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        if verb != "CONNECT":
            self._refuse(
                405,
                f"expected CONNECT, got {verb[:20]}: this proxy carries no request in the clear, since the "
                "worker could read and change it; use https",
            )
            return
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            self._refuse(400, "expected CONNECT host:port HTTP/1.1")
            return
        try:
            host = Host.parse(target.lower())
        except InvalidInput as wrong:
            self._refuse(403, str(wrong))
            return
        if host not in self._hosts:
            declared = ", ".join(map(str, sorted(self._hosts)))
            self._refuse(403, f"{host} is not among the hosts that this app's image declares: {declared}")
            return

        def numbered(number: int) -> _Tunnel:
            self.number = number
            return self

        self._asked = True
        self._channel.connect(numbered, host=host.name, port=host.port)

    def _refuse(self, status: int, words: str) -> None:
        """Tell the app why not, and end."""
        body = f"{words}\n".encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._head = None
        self._app_is_done = self._host_is_done = True
        self._to_app += head.encode() + body
        self._write()

    def _write(self) -> None:
        if self._to_app:
            try:
                count = self._app.send(self._to_app)
            except BlockingIOError:
                return
            del self._to_app[:count]
            self._taken += count if self._connected else 0
        if self._taken and (not self._to_app or self._taken >= WINDOW // 4):
            self._channel.say(Kind.CREDIT, self.number, self._taken.to_bytes(4, "big"))
            self._taken = 0
        if self._host_is_done and not self._to_app:
            self._app.shutdown(socket.SHUT_WR)
            self._end_if_both()

    # --- the worker's side ------------------------------------------------------------------------

    def take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.ANSWER if not self._connected:
                # these first bytes are ours, not the host's: they do not count for the worker's window
                self._to_app += b"HTTP/1.1 200 Connection established\r\n\r\n"
                self._try(self._write)
                if self._to_app and not self.ended:
                    self.abort()  # the first bytes of an empty socket always fit
                    return
                self._connected, self._credit = True, WINDOW
                if self._early:
                    self._send(self._early)
            case Kind.DATA if self._connected and not self._host_is_done and frame.payload:
                if len(self._to_app) + self._taken + len(frame.payload) > WINDOW:
                    raise BrokenStream("the worker sent more than a connection's window")
                self._to_app += frame.payload
                self._try(self._write)
            case Kind.CREDIT if self._connected:
                self._credit += credit_of(frame)
                if self._credit > WINDOW:
                    raise BrokenStream("the worker gave more credit than a connection's window")
            case Kind.END if self._connected and not self._host_is_done:
                self._host_is_done = True
                self._try(self._write)
            case Kind.ERROR if self._connected:
                self._asked = False
                self._close()
            case Kind.ERROR:
                said = frame.json()
                self._asked = False
                self._try(lambda: self._refuse(502, f"{said.get('cause')}: {said.get('message')}"))
            case _:
                raise BrokenStream(f"a connection's frame of kind {frame.kind.name} came out of turn")
        self._watch()

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError:
            self.abort()

    def _send(self, data: bytes) -> None:
        self._credit -= len(data)
        self._channel.say(Kind.DATA, self.number, data)

    # --- the end ----------------------------------------------------------------------------------

    def _end_if_both(self) -> None:
        if self._app_is_done and self._host_is_done and not self._to_app:
            self._close()

    def abort(self) -> None:
        """End at once, and tell the worker."""
        if self.ended:
            return
        if self._asked:
            self._channel.say(Kind.ERROR, self.number, {"cause": "closed", "message": "the app closed it"})
        self._close()

    def _close(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._events:
            self._selector.unregister(self._app)
            self._events = 0
        self._app.close()
        self._channel.abandon(self)
        self._gone(self)
