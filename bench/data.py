"""Large data: how fast datasets open and results close against `openssl enc`, and how much memory they take.

The memory is each process's own, at its peak, while one deal takes a dataset of 2 GiB and gives a result of
as much, on a network whose services are started as their operators start them (docs/operate.md).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path

from bench import Ratio, fastest
from sealdeal.chain import Anvil
from sealdeal.cli.units import write as write_units
from sealdeal.model import streams
from sealdeal.model.keys import Key
from sealdeal.model.orders import Params
from sealdeal.model.results import encrypt_result, generate_result_key
from sealdeal.model.streams import Format, new_key
from sealdeal.model.types import RLC, unhex
from sealdeal.sdk.archives import encrypt_file
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.guest_release import build_guest_release
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.network import Network
from sealdeal.sdk.results import file_pieces

MIB = 1 << 20
THROUGHPUT_BYTES = 256 * MIB
DATASET_BYTES = 2048 * MIB
DISK = 16 << 30
"""Bytes of the guest's volume; it lies in a file with holes, and takes what is written."""
BOUND = 128
"""MiB that each process may take, for data of any size."""
COPY = """
import json, os, shutil
out = os.environ["IEXEC_OUT"]
shutil.copyfile(os.path.join(os.environ["IEXEC_IN"], os.environ["IEXEC_DATASET_FILENAME"]), out + "/copy")
json.dump({"deterministic-output-path": out + "/copy"}, open(out + "/computed.json", "w"))
"""


async def measure() -> AsyncIterator[Ratio]:
    """Throughputs in MiB/s, then peaks in MiB against the bound."""
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        root = Path(folder)
        for ratio in await asyncio.to_thread(lambda: list(throughput(root))):
            yield ratio
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        async for ratio in peaks(Path(folder)):
            yield ratio


# --- throughput -----------------------------------------------------------------------------------


def throughput(root: Path) -> Iterator[Ratio]:
    """From file to file, of one file of noise."""
    noise(plain := root / "plain", THROUGHPUT_BYTES)
    standard, chunked = (new_key(form, secrets.token_bytes) for form in Format)
    raw, iv = base64.b64decode(standard), secrets.token_bytes(16)
    _, public = generate_result_key(3072)
    scratch, bare = root / "scratch", root / "bare"

    def openssl(source: Path, *direction: str) -> None:
        given = ["-K", raw.hex(), "-iv", iv.hex(), "-in", str(source), "-out", str(scratch)]
        subprocess.run(["openssl", "enc", *direction, "-aes-256-cbc", *given], check=True)

    def dataset(sealed: Path, key: str) -> Callable[[], None]:
        def opens() -> None:
            write(scratch, streams.decrypt(hashed(file_pieces(sealed)), key))

        return opens

    def result() -> None:
        with scratch.open("wb") as out:
            encrypt_result(out, file_pieces(plain), public, secrets.token_bytes)

    encrypt_file(plain, standard, standard_file := root / "standard")
    encrypt_file(plain, chunked, chunked_file := root / "chunked")
    openssl(plain, "-e")
    scratch.rename(bare)
    opening = rate(lambda: openssl(bare, "-d"))
    closing = rate(lambda: openssl(plain, "-e"))
    against = "openssl enc -aes-256-cbc"
    for name, sealed, key in (("standard", standard_file, standard), ("chunked", chunked_file, chunked)):
        speed = rate(dataset(sealed, key))
        yield Ratio(f"a {name} dataset hashed and decrypted", speed, f"{against} -d", opening, "MiB/s")
    yield Ratio("a result encrypted", rate(result), against, closing, "MiB/s")


def rate(act: Callable[[], object]) -> float:
    """MiB per second."""
    return THROUGHPUT_BYTES / MIB / fastest(act, 3)


def noise(path: Path, size: int) -> None:
    """A file that does not compress."""
    block = os.urandom(8 * MIB)
    write(path, (block[n % MIB :] + block[: n % MIB] for n in range(size // len(block))))


def write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as out:
        out.writelines(pieces)


def hashed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """As the guest reads: it compares the file with the chain's checksum."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece


# --- memory ---------------------------------------------------------------------------------------


async def peaks(root: Path) -> AsyncIterator[Ratio]:
    """One deal with data of DATASET_BYTES in and out; each process's peak of resident memory."""
    cache = root / "cache"
    async with contextlib.AsyncExitStack() as stack:
        there, started = await stack.enter_async_context(network(root / "network", cache))
        results, worker = started["results"], started["worker-0"]
        idle = {"result store": resident(results), "worker": resident(worker)}
        seen = {"guest": 0.0}
        watch = asyncio.create_task(watch_guest(worker, seen))
        stack.callback(watch.cancel)
        key = Key.generate(secrets.token_bytes)
        private, public = generate_result_key(3072)
        async with Sealdeal(there, Key(unhex(there.accounts["funder"]["key"]))) as faucet:
            await faucet.faucet(key.address, 100 * RLC)
        async with Sealdeal(there, key) as user:
            await user.deposit(100 * RLC)
            await user.share_result_key(public)
            (folder := root / "app").mkdir()
            (folder / "main.py").write_text(COPY)
            (folder / "sealdeal.toml").write_text('name = "copy"\nentrypoint = ["python3", "main.py"]\n')
            app = await user.publish_app(await asyncio.to_thread(build_app_image, folder, cache=cache))
            noise(plain := root / "plain", DATASET_BYTES)
            data = await user.protect_dataset(plain, name="large", form=Format.CHUNKED)
            plain.unlink()
            await user.grant(data.address, app=app.address)
            asked = Params(result_encryption=True)
            deal = await user.deal_of(
                await user.request(app.address, dataset=data.address, category=1, params=asked)
            )
            task = await user.wait(deal.task_ids()[0], timeout=1200)
            saved = await user.save_result(task.taskid, root / "result", private)
            assert "copy" in saved.files and (root / "result" / "copy").stat().st_size == DATASET_BYTES
        seen |= {"result store": peak(results), "worker": peak(worker)}
    size = DATASET_BYTES // MIB
    for name in ("worker", "guest", "result store"):
        before = f", {idle[name]:.0f} MiB before it began" if name in idle else ""
        told = f"peak memory of the {name}, {size} MiB in and out{before}"
        yield Ratio(told, seen[name], "bound", BOUND, "MiB")


@contextlib.asynccontextmanager
async def network(folder: Path, cache: Path) -> AsyncIterator[tuple[Network, dict[str, int]]]:
    """A network with a process for each service, as `sealdeal units` writes it; their ids by name."""
    async with contextlib.AsyncExitStack() as stack:
        anvil = await stack.enter_async_context(Anvil(chain_id=65_535))
        with contextlib.redirect_stdout(io.StringIO()):
            await write_units(folder, rpc_url=anvil.url, worker=1)
        await asyncio.to_thread(build_guest_release, cache)  # once, rather than in each process
        there = Network.load(folder / "network.json")
        names = [
            "results",
            "market-0",
            *(f"sms-{n}" for n in range(len(there.services.sms))),
            "pool-0",
            "worker-0",
        ]
        settings = {
            "CACHE": str(cache),
            "WORKER_MEMORY": "512MiB",
            "WORKER_CPUS": "2",
            "WORKER_DISK": str(DISK),
        }
        ids = [await stack.enter_async_context(process(folder, name, settings)) for name in names]
        yield there, dict(zip(names, ids, strict=True))


@contextlib.asynccontextmanager
async def process(folder: Path, name: str, settings: Mapping[str, str]) -> AsyncIterator[int]:
    """A service in a process of its own; its id, once it answers."""
    lines = (folder / f"{name}.env").read_text().splitlines()
    own = dict(line.split("=", 1) for line in lines) | {f"SEALDEAL_{n}": v for n, v in settings.items()}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sealdeal", "run", name.partition("-")[0]),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **own},
    )
    assert child.stdout is not None
    try:
        assert await asyncio.wait_for(child.stdout.readline(), 120), f"{name} did not start"
        yield child.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


def resident(process: int) -> float:
    """MiB of resident memory now, from which its peak is counted anew."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return _status(process, "VmRSS")


def peak(process: int) -> float:
    """MiB of resident memory at most, as the kernel counts."""
    return _status(process, "VmHWM")


def _status(process: int, name: str) -> float:
    return int(Path(f"/proc/{process}/status").read_text().split(f"{name}:")[1].split()[0]) / 1024


async def watch_guest(worker: int, seen: dict[str, float]) -> None:
    """Keep the largest peak of any guest below `worker`."""
    while True:
        for process in below(worker):
            with contextlib.suppress(OSError, IndexError):
                command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                if b"python3" in command[0] and b"/opt/guest" in command:
                    seen["guest"] = max(seen["guest"], peak(process))
        await asyncio.sleep(0.2)


def below(process: int) -> Iterator[int]:
    """Every process that descends from this one."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield int(child)
                yield from below(int(child))
