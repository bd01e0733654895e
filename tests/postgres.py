"""A PostgreSQL for the tests that want one: started by us, behind a socket in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def programs() -> Path | None:
    """The folder of PostgreSQL's programs: from PATH, or from where Debian puts them."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database of a server that runs as long as the session."""
    bin = programs()
    if bin is None:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    home = tmp_path_factory.mktemp("postgres")
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        shutil.chown(home, "nobody")
        for folder in (home.parent, home.parent.parent):
            folder.chmod(0o755)
    data = str(home / "data")

    def run(*command: str) -> None:
        done = subprocess.run([*as_user, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()

    run(f"{bin}/initdb", "-D", data, "-U", "sealdeal", "-A", "trust")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
    run(f"{bin}/pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")
    yield f"postgresql+asyncpg://sealdeal@/postgres?host={home}"
    run(f"{bin}/pg_ctl", "-D", data, "-m", "immediate", "stop")
