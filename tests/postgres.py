"""A PostgreSQL for the tests that want one: started by us, behind a socket in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def programs() -> Path | None:
    """The folder of PostgreSQL's programs: from PATH, or from where Debian puts them."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty database of a server that runs as long as the session."""
    bin = programs()
    if bin is None:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    with running(bin, "-c fsync=off") as url:
        yield url


@contextmanager
def running(bin: Path, options: str = "") -> Iterator[str]:
    """The URL of an empty database of a server with these options, ended with the context."""
    # Not below pytest's own folder: every pytest that starts closes that one to other users again.
    home = Path(tempfile.mkdtemp(prefix="sealdeal-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(home, "nobody")
    try:
        _run(f"{bin}/initdb", "-D", str(home / "data"), "-U", "sealdeal", "-A", "trust")
        _start(bin, home, options)
        yield f"postgresql+asyncpg://sealdeal@/postgres?host={home}"
        _stop(bin, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def away(url: str) -> Iterator[None]:
    """A server of `running` does not answer meanwhile."""
    bin, home = programs(), Path(url.partition("?host=")[2])
    assert bin
    _stop(bin, home)
    try:
        yield
    finally:
        _start(bin, home, "-c fsync=off")


def _start(bin: Path, home: Path, options: str) -> None:
    options = f"-c listen_addresses= -c unix_socket_directories={home} {options}"
    data = str(home / "data")
    _run(f"{bin}/pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")


def _stop(bin: Path, home: Path) -> None:
    _run(f"{bin}/pg_ctl", "-D", str(home / "data"), "-m", "immediate", "stop")


def _run(*command: str) -> None:
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    done = subprocess.run([*as_user, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
