"""A guest release for the tests of a module that start real guests."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealdeal.sdk.guest_release import GuestRelease, build_guest_release


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def release(cache: Path) -> GuestRelease:
    return build_guest_release(cache)
