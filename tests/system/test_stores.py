"""A deal whose image, data and result lie in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.results.test_places import BUCKET, s3  # noqa: F401

from .conftest import ECHO, World, local_network


async def test_a_deal_on_a_bucket(
    s3: str,  # noqa: F811
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    place = f"s3://{BUCKET}/network?endpoint={s3}&region=us-east-1"
    async with local_network(tmp_path / "state", cache, result_store=place) as network:
        world = World(network, tmp_path, cache)
        async with world.stack:
            provider, requester = await world.person(), await world.requester()
            app = await world.app(provider, ECHO)
            deal = await world.buy(requester, app.address, args="to the bucket")
            await world.ended(requester, deal)
            result = await world.result(requester, deal.task_ids()[0])
    assert result.files
    assert not [path for path in (tmp_path / "state" / "blobs").rglob("*") if path.is_file()]
