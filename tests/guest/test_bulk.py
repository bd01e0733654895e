"""Many datasets in one task: which of them the app sees, and when nothing is contributed (wire.md §2.2)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.guest.hello import BulkPlace
from sealdeal.model import streams
from sealdeal.model.bulk import BULK_VOLUME, bulk_datasets, make_documents
from sealdeal.model.cid import cid_of
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.orders import TEE_TDX, DatasetOrder, Params, Signed, tag
from sealdeal.model.sealing import SecretKind, checksum
from sealdeal.model.types import Address, address, hexstr
from sealdeal.worker.relay import AttemptFailed

from .world import CHAIN_ID, HUB, OWNER, Scene

MakeScene = Callable[..., Scene]
KEY = SecretKind.DATASET_KEY
DOMAIN = hub_domain(CHAIN_ID, HUB)
INDEX = 5
"""Of the scene's task."""

SHOW = """
    import json, os
    into, size = os.environ["IEXEC_IN"], int(os.environ["IEXEC_BULK_SLICE_SIZE"])
    names = [os.environ[f"IEXEC_DATASET_{n}_FILENAME"] for n in range(1, size + 1)]
    read = lambda name: open(into + "/" + name).read() if os.path.exists(into + "/" + name) else None
    told = {"seen": [read(name) for name in names], "names": names, "files": sorted(os.listdir(into))}
    json.dump(told, open("/iexec_out/told.json", "w"))
    json.dump({"deterministic-output-path": "/iexec_out/told.json"}, open("/iexec_out/computed.json", "w"))
"""


@dataclass
class Data:
    """One dataset of the slice."""

    plain: bytes
    at: Address
    key: str = field(default_factory=lambda: streams.new_key(streams.Format.STANDARD, secrets.token_bytes))
    given: str = ""
    """The key that its owner gave away, if it is another."""
    kept: bool = False
    """Whether the nodes leave it out."""

    def sealed(self, tee: bool) -> bytes:
        return b"".join(streams.encrypt([self.plain], self.key, secrets.token_bytes)) if tee else self.plain


def three() -> list[Data]:
    return [Data(text, address(bytes([n]) * 20)) for n, text in enumerate((b"one", b"two", b"three"), 31)]


def bulk_scene(scene: MakeScene, folder: Path, data: Sequence[Data], **changes: Any) -> Scene:
    """A task whose deal names a bulk of five slices of nothing that matters, and one of these data."""
    tee = changes.get("bits", TEE_TDX) & TEE_TDX != 0
    orders = [
        Signed.by(OWNER, DatasetOrder(one.at, volume=BULK_VOLUME, tag=tag(TEE_TDX)), DOMAIN) for one in data
    ]
    _, (own,) = make_documents(orders)
    listed = json.dumps([cid_of(b"[]")] * INDEX + [cid_of(own)]).encode()
    files = {"bulk/index": listed, "bulk/slice": own}
    places = []
    for number, one in enumerate(data, 1):
        files[f"dataset/{number}"] = content = one.sealed(tee)
        places.append(BulkPlace(f"/ipfs/{cid_of(content)}", checksum(content), not one.kept))
    told = [(place.multiaddr, place.checksum) for place in places]
    made = scene(
        SHOW,
        params=Params(bulk_cid=cid_of(listed)),
        bulk=tuple(places),
        datasets=bulk_datasets(orders, DOMAIN, told),
        wanted=tuple((KEY.value, one.at) for one in data if one.kept),
        **changes,
    )
    for name, content in files.items():
        (place := folder / name.replace("/", "-")).write_bytes(content)
        made.files[name] = place
    for one in data if tee else ():
        if not one.kept:
            made.split(KEY, one.at, "", (one.given or one.key).encode(), shown=one.at)
    return made


def told(task: Scene) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(task.result()["told.json"])
    return found


def said(task: Scene) -> str:
    return " ".join(str(status.get("message", "")) for status in task.statuses)


@pytest.mark.parametrize("bits", [TEE_TDX, 0], ids=["in a TEE", "without"])
async def test_the_app_sees_all_that_fits_the_deal(scene: MakeScene, tmp_path: Path, bits: int) -> None:
    data = three()
    task = bulk_scene(scene, tmp_path, data, bits=bits)
    done = await task.run()
    assert (done.fault_cause, done.exit_code) == ("", 0)
    names = [one.at for one in data]
    assert told(task) == {"seen": ["one", "two", "three"], "names": names, "files": sorted(names)}
    assert "left out" not in said(task)


@pytest.mark.parametrize("bits", [TEE_TDX, 0], ids=["in a TEE", "without"])
async def test_what_does_not_fit_is_left_out_and_named(scene: MakeScene, tmp_path: Path, bits: int) -> None:
    """Its variable is there and its file is not: the official pre-compute gets an empty URL for it."""
    data = three()
    data[1].kept = True
    task = bulk_scene(scene, tmp_path, data, bits=bits)
    assert (await task.run()).fault_cause == ""
    assert told(task)["seen"] == ["one", None, "three"]
    assert told(task)["names"][1] == data[1].at not in told(task)["files"]
    assert f"left out dataset 2, {data[1].at}" in said(task)


async def test_data_under_another_key_than_was_given_away_are_left_out(
    scene: MakeScene, tmp_path: Path
) -> None:
    data = three()
    data[0].key, data[0].given = (
        streams.new_key(streams.Format.CHUNKED, secrets.token_bytes)  # standard takes one in 256 for right
        for _ in range(2)
    )
    task = bulk_scene(scene, tmp_path, data)
    assert (await task.run()).fault_cause == ""
    assert told(task)["seen"] == [None, "two", "three"]
    assert f"left out dataset 1, {data[0].at}" in said(task)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("dataset/2", b"another file", "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"),
        ("dataset/2", None, "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"),
        ("bulk/index", b"[]", "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"),
        ("bulk/slice", b"[]", "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"),
        ("bulk/slice", None, "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"),
    ],
)
async def test_a_worker_cannot_choose_what_the_app_sees(
    scene: MakeScene, tmp_path: Path, name: str, content: bytes | None, cause: str
) -> None:
    """What does not come, or is something else, may be the worker's doing: nothing is contributed."""
    task = bulk_scene(scene, tmp_path, three())
    if content is None:
        task.files[name].unlink()
    else:
        task.files[name].write_bytes(content)
    with pytest.raises(AttemptFailed) as failed:
        await task.run()
    assert failed.value.cause == cause
    assert not task.store.archive


async def test_a_worker_that_hides_some_of_the_data_gets_no_keys(scene: MakeScene, tmp_path: Path) -> None:
    task = bulk_scene(scene, tmp_path, three())
    task.bulk = task.bulk[:2]
    with pytest.raises(AttemptFailed, match="expected word of 3 datasets from the worker, got 2"):
        await task.run()


async def test_true_documents_that_are_wrong_are_an_error_that_is_contributed(
    scene: MakeScene, tmp_path: Path
) -> None:
    """Here the list has no slice for the task: every guest finds the same, so it is attested and paid."""
    task = bulk_scene(scene, tmp_path, three())
    listed = json.dumps([cid_of(b"[]")] * INDEX).encode()
    task.files["bulk/index"].write_bytes(listed)
    task.deal = replace(task.deal, params=Params(bulk_cid=cid_of(listed)).to_text())
    task.bulk = task.datasets = ()
    done = await task.run()
    assert done.fault_cause == "TASK_DESCRIPTION_INVALID"
    assert "a slice for task 5" in task.result()["error.txt"].decode()
    assert hexstr(done.digest) != hexstr(bytes(32))
