"""Debian's registry of container images, started by the tests on a free port of this machine."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dev

USER, PASSWORD = "tester", "a password of tests"
_HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuU7IZPJ2ZGDBazVvhUStvgi257KE3hdm\n"  # of that password


def program() -> str:
    """Its path. Skips the test where it is not installed."""
    found = next(tool for tool in dev.TOOLS if tool.name == "docker-registry").path()
    if found is None:
        pytest.skip("docker-registry is not there (./dev unpacks it on Debian)")
    return found


@dataclass(frozen=True, slots=True)
class Running:
    """A registry that answers."""

    host: str
    """With its port."""
    storage: Path
    """Where it keeps everything."""

    def blob(self, digest: bytes) -> Path:
        """The file of a blob."""
        text = digest.hex()
        return self.storage / "docker/registry/v2/blobs/sha256" / text[:2] / text / "data"


@contextlib.contextmanager
def running(*, passwords: bool = False, auth: Mapping[str, Any] | None = None) -> Iterator[Running]:
    """A registry until the context ends. `passwords`: for USER with PASSWORD only; `auth`: as configured."""
    path = program()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    home = Path(tempfile.mkdtemp(prefix="sealdeal-registry-"))
    (home / "storage").mkdir()
    if passwords:
        (home / "htpasswd").write_text(_HTPASSWD)
        auth = {"htpasswd": {"realm": "tests", "path": str(home / "htpasswd")}}
    told = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(home / "storage")}},
        "http": {"addr": host},
        **({"auth": dict(auth)} if auth else {}),
    }
    (home / "config.yml").write_text(json.dumps(told))  # JSON is YAML
    with (home / "log").open("wb") as log:
        started = subprocess.Popen([path, "serve", str(home / "config.yml")], stdout=log, stderr=log)
    try:
        give_up = time.monotonic() + 30
        while not _answers(host):
            assert started.poll() is None and time.monotonic() < give_up, (home / "log").read_text()
            time.sleep(0.05)
        yield Running(host, home / "storage")
    finally:
        started.kill()
        started.wait()
        shutil.rmtree(home)


def _answers(host: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
    except urllib.error.HTTPError:
        return True  # it wants a password
    except OSError:
        return False
    return True
