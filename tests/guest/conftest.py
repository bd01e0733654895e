"""A release, a platform and a sandbox for a session; scenes of one attempt each."""

from __future__ import annotations

import hashlib
import json
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealdeal.sdk.guest_release import GuestRelease, build_guest_release
from sealdeal.sdk.images import BuiltImage, build_app_image
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.sandbox import BubblewrapSandbox, Sandbox

from .world import Scene

BOUNDS = Bounds(memory=384 << 20, work=640 << 20, processes=64)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def release(cache: Path) -> GuestRelease:
    return build_guest_release(cache)


@pytest.fixture(scope="session")
def platform() -> SimulatedPlatform:
    return SimulatedPlatform.generate(int(time.time()))


@pytest.fixture(scope="session")
def sandbox(release: GuestRelease, cache: Path) -> Sandbox:
    return BubblewrapSandbox(release, hashlib.sha256(str(cache).encode()).hexdigest()[:12], BOUNDS)


@pytest.fixture(scope="session")
def app(cache: Path) -> Callable[..., BuiltImage]:
    """The image of an app that is this Python text, and declares these hosts."""

    def build(text: str, *hosts: str) -> BuiltImage:
        body = textwrap.dedent(text)
        folder = cache / "apps" / hashlib.sha256(repr((body, hosts)).encode()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text(body)
        told = f'name = "app"\nentrypoint = ["python3", "main.py"]\nhosts = {json.dumps(hosts)}\n'
        (folder / "sealdeal.toml").write_text(told)
        return build_app_image(folder, cache=cache)

    return build


@pytest.fixture
def scene(
    app: Callable[..., BuiltImage],
    release: GuestRelease,
    sandbox: Sandbox,
    platform: SimulatedPlatform,
    tmp_path: Path,
) -> Callable[..., Scene]:
    """`scene(text of the app, dataset=…, params=…)`: an attempt about to be made."""

    def make(text: str | BuiltImage, **changes: Any) -> Scene:
        image = text if isinstance(text, BuiltImage) else app(text)
        return Scene(image, release, sandbox, platform, folder=tmp_path, **changes)

    return make
