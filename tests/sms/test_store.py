"""A node's database."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from sealdeal.model.errors import Conflict, IntegrityError, NotFound, Unavailable
from sealdeal.model.types import address
from sealdeal.sdk.sms import AttemptTaken, NonceRefused, TooManyAttempts
from sealdeal.sms.store import MAX_ATTEMPTS, Held, Released, SecretStore, tables
from tests.postgres import postgres_url  # noqa: F401  # a fixture

KEY, OTHER = b"\x01" * 32, b"\x02" * 32
SUBJECT, ENCLAVE, WORKER = (address(bytes([n]) * 20) for n in (1, 2, 3))
HELD = Held("named", SUBJECT, "n", 1, "single", None, b"signature", b"the secret value")
LINE = Released(
    time=100,
    task=b"\x05" * 32,
    deal=b"\x06" * 32,
    app=SUBJECT,
    app_checksum=b"\x07" * 32,
    dataset=SUBJECT,
    worker=WORKER,
    attempt=1,
    enclave=ENCLAVE,
    platform="0x01",
    measurement={"mrtd": "0x02"},
    released=[["dataset-key", SUBJECT, "", 1, "own"]],
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SecretStore]:
    made = await SecretStore.open(f"sqlite+aiosqlite:///{tmp_path}/sms.db", KEY)
    yield made
    await made.close()


async def test_add_find_replace(store: SecretStore) -> None:
    assert await store.find("named", SUBJECT, "n") is None
    with pytest.raises(NotFound):
        await store.replace(HELD, 1)
    await store.add(HELD, 1)
    assert await store.find("named", SUBJECT, "n") == HELD
    with pytest.raises(Conflict):
        await store.add(HELD, 1)
    await store.replace(dataclasses.replace(HELD, value=b"new"), 2)
    assert await store.find("named", SUBJECT, "n") == dataclasses.replace(HELD, value=b"new", version=2)
    assert await store.holds("named", SUBJECT, "n") and not await store.holds("app-secret", SUBJECT, "n")


async def test_a_copy_without_the_key_is_useless(store: SecretStore, tmp_path: Path) -> None:
    await store.add(HELD, 1)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("sms.db*"):
        assert HELD.value not in file.read_bytes()
        shutil.copy(file, copy)
    with pytest.raises(IntegrityError, match="the storage key is not this database's"):
        await SecretStore.open(f"sqlite+aiosqlite:///{copy}/sms.db", OTHER)
    again = await SecretStore.open(f"sqlite+aiosqlite:///{copy}/sms.db", KEY)
    assert await again.find("named", SUBJECT, "n") == HELD
    await again.close()


@pytest.mark.parametrize(
    "change", ["door = 'own'", "name = 'm'", "kind = 'app-secret'", "subject = x'%s'" % ("09" * 20)]
)
async def test_altered_rows_do_not_open(store: SecretStore, tmp_path: Path, change: str) -> None:
    await store.add(HELD, 1)
    with sqlite3.connect(tmp_path / "sms.db") as raw:
        raw.execute(f"UPDATE sms_secrets SET {change}")
    for kind in ("named", "app-secret"):
        for name in ("n", "m"):
            for subject in (SUBJECT, address(b"\x09" * 20)):
                try:
                    assert await store.find(kind, subject, name) is None
                except IntegrityError as refused:
                    assert "does not open" in str(refused)


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SecretStore]:
    """A store on each kind of database; the PostgreSQL one starts empty."""
    if request.param == "sqlite":
        made = await SecretStore.open(f"sqlite+aiosqlite:///{tmp_path}/sms.db", KEY)
    else:
        made = await SecretStore.open(request.getfixturevalue("postgres_url"), KEY)
        async with made._database.write() as connection:
            for table in reversed(tables.sorted_tables):
                await connection.execute(sa.delete(table))
    yield made
    await made.close()


async def test_a_nonce_is_spent_by_one_enclave(either: SecretStore) -> None:
    await either.commit_release(LINE, b"\x08" * 32, b"\x09" * 32, 700)
    await either.commit_release(LINE, b"\x08" * 32, b"\x09" * 32, 700)
    with pytest.raises(NonceRefused):
        await either.commit_release(
            dataclasses.replace(LINE, enclave=WORKER, attempt=2), b"\x08" * 32, b"\x09" * 32, 700
        )
    assert len(await either.audit()) == 2


async def test_attempts(either: SecretStore) -> None:
    await either.commit_release(LINE, b"\x08" * 32, b"\x01" * 32, 700)
    for other in (dataclasses.replace(LINE, enclave=WORKER), dataclasses.replace(LINE, worker=ENCLAVE)):
        with pytest.raises(AttemptTaken):
            await either.commit_release(other, b"\x08" * 32, b"\x02" * 32, 700)
    with pytest.raises(AttemptTaken):
        await either.commit_release(LINE, b"\x0f" * 32, b"\x02" * 32, 700)  # another HPKE key
    for attempt in range(2, MAX_ATTEMPTS + 1):
        await either.commit_release(
            dataclasses.replace(LINE, attempt=attempt), b"\x08" * 32, bytes([attempt]) * 32, 700
        )
    with pytest.raises(TooManyAttempts):
        await either.commit_release(dataclasses.replace(LINE, attempt=9), b"\x08" * 32, b"\x0a" * 32, 700)
    await either.commit_release(dataclasses.replace(LINE, task=b"\x0b" * 32), b"\x08" * 32, b"\x0c" * 32, 700)
    await either.commit_release(LINE, b"\x08" * 32, b"\x0d" * 32, 700)  # the first enclave comes again
    assert len(await either.audit(task=LINE.task)) == MAX_ATTEMPTS + 1


async def test_many_at_once_get_no_more_than_the_attempts(either: SecretStore) -> None:
    lines = [dataclasses.replace(LINE, attempt=n, enclave=address(bytes([n]) * 20)) for n in range(1, 9)]
    found = await asyncio.gather(
        *(either.commit_release(line, KEY, bytes([line.attempt]) * 32, 700) for line in lines),
        return_exceptions=True,
    )
    assert 1 <= found.count(None) <= MAX_ATTEMPTS
    assert {type(answer) for answer in found if answer} <= {TooManyAttempts, Unavailable}
    assert len(await either.audit()) == found.count(None)


async def test_two_that_add_the_same_secret_at_once_do_not_both_succeed(either: SecretStore) -> None:
    found = await asyncio.gather(*(either.add(HELD, 1) for _ in range(4)), return_exceptions=True)
    assert found.count(None) == 1
    assert {type(answer) for answer in found if answer} <= {Conflict, Unavailable}


async def test_a_refusal_writes_nothing(store: SecretStore, tmp_path: Path) -> None:
    await store.commit_release(LINE, b"\x08" * 32, b"\x01" * 32, 700)
    with pytest.raises(AttemptTaken):
        await store.commit_release(dataclasses.replace(LINE, enclave=WORKER), b"\x08" * 32, b"\x02" * 32, 700)
    with sqlite3.connect(tmp_path / "sms.db") as raw:
        assert raw.execute("SELECT count(*) FROM sms_nonces").fetchone() == (1,)
    await store.commit_release(dataclasses.replace(LINE, attempt=2), b"\x08" * 32, b"\x02" * 32, 700)


async def test_spent_nonces_are_forgotten_when_they_have_expired(store: SecretStore, tmp_path: Path) -> None:
    await store.commit_release(LINE, b"\x08" * 32, b"\x01" * 32, 700)
    later = dataclasses.replace(LINE, time=701)
    await store.commit_release(later, b"\x08" * 32, b"\x02" * 32, 1301)
    with sqlite3.connect(tmp_path / "sms.db") as raw:
        assert raw.execute("SELECT count(*) FROM sms_nonces").fetchone() == (1,)


async def test_the_audit_keeps_everything(store: SecretStore) -> None:
    await store.commit_release(LINE, b"\x08" * 32, b"\x01" * 32, 700)
    assert await store.audit() == [LINE]


async def test_what_was_granted_is_remembered(store: SecretStore) -> None:
    await store.commit_release(LINE, b"\x08" * 32, b"\x09" * 32, 200)
    assert await store.granted([LINE.task, bytes(32)]) == {(LINE.task, WORKER, ENCLAVE)}
    assert await store.granted([bytes(32)]) == set()
