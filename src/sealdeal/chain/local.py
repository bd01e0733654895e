"""The local chain: anvil's native binary, its state on disk, and the blocks that nobody else would mine.

A kept chain's clock is never shifted: the offset would be lost on a restart, and clients compare deadlines
with their own clocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gzip
import json
import logging
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import Address, unhex

from .errors import AnvilFailed, AnvilMissing, BadAnswer, ChainUnreachable, RpcError
from .rpc import Rpc

log = logging.getLogger("sealdeal.chain")

HARDFORK = "prague"
ETHER = 10**18
SETTLED = 8
"""Blocks mined after a start from disk: anvil forgets older states, and decisions read a few blocks deep."""
STATES = 128
"""Blocks whose state can be read, as on a full node. Without a bound anvil fills ~/.foundry."""

_PLATFORMS = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_PR_SET_PDEATHSIG = 1


def anvil_binary(explicit: Path | None = None) -> Path:
    """Anvil's native program: the one given, else the one npm put beside this environment, else the PATH's.

    Raises AnvilMissing. Never npm's own `anvil` script: it is a Node process that outlives signals.
    """
    if explicit is not None:
        if explicit.is_file() and os.access(explicit, os.X_OK):
            return explicit
        raise AnvilMissing(f"expected anvil's program at {explicit}, found none; correct the setting")
    package = f"anvil-{sys.platform}-{_PLATFORMS.get(platform.machine().lower(), platform.machine())}"
    beside = Path(sys.prefix).parent / "npm" / "node_modules" / "@foundry-rs" / package / "bin" / "anvil"
    if beside.is_file():
        return beside
    if found := shutil.which("anvil"):
        return Path(found)
    raise AnvilMissing(
        f"anvil is not installed: expected {beside} or `anvil` on the PATH; "
        "run ./dev setup, or npm install @foundry-rs/anvil"
    )


async def is_development_chain(rpc: Rpc) -> bool:
    """Does the node make money out of nothing? Anvil and Hardhat know this method, other nodes do not."""
    try:
        return isinstance(await rpc.call("hardhat_metadata"), dict)
    except (RpcError, BadAnswer):
        return False


async def give_gas_money(rpc: Rpc, account: Address, wei: int = 1000 * ETHER) -> None:
    """Set an account's native balance on a development chain."""
    await rpc.call("hardhat_setBalance", account, hex(wei))


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Anvil:
    """One anvil process, listening on this machine only.

    It lives in a session of its own, so that a Ctrl-C reaches us first and we stop it in order; on Linux
    the kernel kills it when the thread that started it ends, so start it from a thread that stays.
    `state`: the file that `save` writes and `start` goes on from. `port` 0: a free one. `states`: of how many
    blocks the state stays readable; blocks that evm_revert took back go on counting, and one that is mined
    again, the same to the bit, is forgotten with its first copy.
    """

    def __init__(
        self,
        *,
        binary: Path | None = None,
        port: int = 0,
        chain_id: int = 31337,
        state: Path | None = None,
        states: int = STATES,
    ) -> None:
        self._binary = binary
        self.port = port or free_port()
        self.chain_id = chain_id
        self.state = state
        self.states = states
        self.url = f"http://127.0.0.1:{self.port}"
        self.rpc = Rpc(self.url, timeout=60.0)
        self._process: subprocess.Popen[bytes] | None = None
        self._saving = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self.rpc.aclose()

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    async def start(self) -> None:
        """Start, from the saved state if there is one. Raises AnvilMissing, AnvilFailed."""
        with tempfile.TemporaryDirectory(prefix="sealdeal-anvil-") as folder:
            saved = Path(folder) / "state.json"
            number = self._unpack(saved)
            await self._spawn(["--load-state", str(saved)] if number is not None else [])
        if number is not None:
            await self.rpc.call("anvil_mine", hex(SETTLED))

    async def _spawn(self, extra: list[str]) -> None:
        command = [str(anvil_binary(self._binary)), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--chain-id", str(self.chain_id), "--hardfork", HARDFORK, "--silent", "--accounts", "0"]
        command += ["--prune-history", str(self.states), *extra]
        if not _is_free(self.port):
            raise AnvilFailed(f"anvil cannot listen on port {self.port}: another program does; free it")
        with tempfile.TemporaryFile() as errors:  # not a pipe: nobody would read it, and anvil would block
            self._process = process = _launch(command, errors)
            try:
                if await self._answers(process):
                    return
            except BaseException:
                await self.stop()
                raise
            await self.stop()
            errors.seek(0)
            said = errors.read()[-2000:].decode(errors="replace").strip()
        raise AnvilFailed(f"anvil does not start on port {self.port}: {said or 'it does not say why'}")

    async def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for its first answer, half a minute at most."""
        for _ in range(2000):
            if process.poll() is not None:
                return False
            with contextlib.suppress(ChainUnreachable):
                return int(await self.rpc.call("eth_chainId"), 16) == self.chain_id
            await asyncio.sleep(0.015)
        return False

    async def stop(self) -> None:
        """End the process: politely, then not. It does not save."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            for _ in range(100):
                if process.poll() is not None:
                    break
                await asyncio.sleep(0.02)
        finally:
            if process.poll() is None:
                process.kill()
        await asyncio.to_thread(process.wait)

    async def fund(self, account: Address, wei: int = 1000 * ETHER) -> None:
        """Set an account's native balance, which pays for gas."""
        await self.rpc.call("anvil_setBalance", account, hex(wei))

    async def save(self) -> None:
        """Write the whole chain to `state`, in one step; the one before is kept as `….1`."""
        if self.state is None:
            raise InvalidInput("expected Anvil(state=…): a chain without a state file is not kept")
        async with self._saving:
            dump = await self.rpc.call("anvil_dumpState")
            await asyncio.to_thread(_keep, unhex(dump), self.state)

    def _unpack(self, target: Path) -> int | None:
        """The newest saved state that can be read, unpacked to `target`; its block number."""
        if self.state is None:
            return None
        older = _older(self.state)
        for path in (self.state, older):
            try:
                raw = gzip.decompress(path.read_bytes())
                number = _number(json.loads(raw))
            except FileNotFoundError:
                continue
            except (OSError, EOFError, ValueError, KeyError) as broken:
                log.error("the saved chain %s cannot be read (%s); trying %s", path, broken, older)
                continue
            target.write_bytes(raw)
            return number
        if self.state.exists() or older.exists():
            raise AnvilFailed(
                f"neither {self.state} nor {older} can be read; restore one, or move both away to start anew"
            )
        return None


def _number(state: dict[str, object]) -> int:
    found = state["best_block_number"]
    return int(found, 16) if isinstance(found, str) else int(str(found))


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _keep(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        path.replace(_older(path))
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _launch(command: list[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start in a session of its own; on Linux the kernel kills it when the calling thread ends."""
    before = None
    if sys.platform == "linux":
        libc, parent = ctypes.CDLL(None), os.getpid()  # here: the child must not allocate much

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # we ended in between
                os._exit(1)

        before = die_with_parent
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
        preexec_fn=before,
    )


class Heartbeat:
    """Blocks for a chain that mines only transactions, while something waits for depth or for a deadline.

    After a block with transactions it mines until that block is `depth` deep; while anything is
    `waiting`, it mines one block each `interval` seconds, so that the chain's clock goes on.
    """

    def __init__(self, rpc: Rpc, *, depth: int = 0, interval: float = 1.0, poll: float = 0.1) -> None:
        self.rpc, self.depth, self.interval, self.poll = rpc, depth, interval, poll
        self._reasons: Counter[str] = Counter()

    @contextlib.contextmanager
    def waiting(self, reason: str) -> Iterator[None]:
        """Keep the chain's clock going inside this block."""
        self._reasons[reason] += 1
        try:
            yield
        finally:
            self._reasons -= Counter({reason: 1})

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is waited for now."""
        return tuple(sorted(self._reasons))

    async def run(self) -> None:
        """Beat until cancelled. It outlives the chain's absences."""
        clock = asyncio.get_running_loop().time
        last, busy, beat = -1, -1, clock()
        while True:
            with contextlib.suppress(ChainUnreachable):
                head = await self.rpc.call("eth_getBlockByNumber", "latest", False)
                number = int(head["number"], 16)
                if number < last:  # the chain went back
                    last = busy = -1
                busy = await self._last_busy(max(last + 1, number - 64, 0), number, busy)
                last = number
                missing = busy + self.depth - number if busy >= 0 else 0
                if missing > 0:
                    await self.rpc.call("anvil_mine", hex(missing))
                    beat = clock()
                elif self._reasons and clock() - beat >= self.interval:
                    await self.rpc.call("evm_mine")
                    beat = clock()
            await asyncio.sleep(self.poll)

    async def _last_busy(self, first: int, last: int, busy: int) -> int:
        """The highest block with a transaction in a range, or `busy`."""
        calls = [("eth_getBlockTransactionCountByNumber", hex(n)) for n in range(first, last + 1)]
        counts = await self.rpc.batch(calls) if calls else []
        return max([busy, *(first + i for i, count in enumerate(counts) if count and int(count, 16))])
