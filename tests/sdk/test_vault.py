"""An owner's copies of secrets: only the same wallet opens them, and each is of the secret it says."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from sealdeal.model.errors import IntegrityError, NotFound
from sealdeal.model.keys import Key
from sealdeal.model.types import address, keccak
from sealdeal.sdk.custody import SecretId
from sealdeal.sdk.vault import Vault

OWNER, OTHER = Key(keccak(b"owner")), Key(keccak(b"other"))
DATASET = address(b"\x11" * 20)
IDS = [
    SecretId.dataset(DATASET),
    SecretId.app(DATASET),
    SecretId.requester(OWNER.address, "token"),
    SecretId.requester(OWNER.address, "../../etc/passwd"),
    SecretId.named(OWNER.address, "é" * 100),
]


def test_a_copy_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "secrets", OWNER)
    for number, which in enumerate(IDS):
        path = vault.keep(which, b"value %d" % number)
        assert path.parent == vault.folder and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"value" not in path.read_bytes()
    assert stat.S_IMODE(vault.folder.stat().st_mode) == 0o700
    for number, which in enumerate(IDS):
        assert vault.get(which) == b"value %d" % number
        with pytest.raises(IntegrityError, match="another wallet"):
            Vault(vault.folder, OTHER).get(which)
    vault.keep(IDS[0], b"newer")
    assert vault.get(IDS[0]) == b"newer"
    assert len(list(vault.folder.iterdir())) == len(IDS), "no drafts are left"


def test_copies_cannot_be_exchanged_or_altered(tmp_path: Path) -> None:
    vault = Vault(tmp_path, OWNER)
    with pytest.raises(NotFound, match="nodes give none back"):
        vault.get(IDS[0])
    shutil.copy(vault.keep(IDS[0], b"key"), vault.path(IDS[1]))
    with pytest.raises(IntegrityError):
        vault.get(IDS[1])
    path = vault.path(IDS[0])
    whole = json.loads(path.read_text())
    for broken in (
        "",
        "{",
        "[]",
        "{}",
        json.dumps({**whole, "sealed": "0x" + "00" * 40}),
        '{"sealed": "0xzz"}',
    ):
        path.write_text(broken)
        with pytest.raises(IntegrityError):
            vault.get(IDS[0])
