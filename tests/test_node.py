"""What a local network keeps, and what it refuses to start on."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from sealdeal.model.errors import Conflict, InvalidInput
from sealdeal.node import Kept, LocalNetwork, _locked

WORKERS = ("worker-0", "worker-1")


def test_keys_are_made_once_and_are_all_different(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    made = Kept.load(path, WORKERS, may_write=True)
    assert len(set(made.keys.values())) == len(made.keys) >= 13
    assert Kept.load(path, WORKERS, may_write=True).keys == made.keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_more_workers_get_more_keys(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    few = Kept.load(path, WORKERS[:1], may_write=True)
    more = Kept.load(path, WORKERS, may_write=True)
    assert set(more.keys) - set(few.keys) == {"worker-1"}


def test_only_the_process_with_the_chain_begins_a_network(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="with its chain first"):
        Kept.load(tmp_path / "local.json", WORKERS, may_write=False)


def test_a_damaged_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    path.write_text('{"keys": ')
    with pytest.raises(Conflict, match="damaged"):
        Kept.load(path, WORKERS, may_write=True)
    assert path.read_text() == '{"keys": '


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    with _locked(tmp_path), pytest.raises(Conflict, match="another process"), _locked(tmp_path):
        pass
    with _locked(tmp_path):
        pass


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="kitchen"):
        LocalNetwork(tmp_path, cache=tmp_path, parts=["kitchen"])


async def test_a_kept_port_that_is_taken_is_named(tmp_path: Path, unused_tcp_port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", unused_tcp_port))
        other.listen()
        Kept.load(tmp_path / "local.json", WORKERS, may_write=True)
        kept = json.loads((tmp_path / "local.json").read_text())
        (tmp_path / "local.json").write_text(json.dumps({**kept, "ports": {"market": unused_tcp_port}}))
        with pytest.raises(Conflict, match=f"port {unused_tcp_port}, kept for market"):
            async with LocalNetwork(tmp_path, cache=tmp_path):
                pass


async def test_ports_are_held_for_parts_of_other_processes(tmp_path: Path) -> None:
    """A port that is only remembered may be some connection's by the time its service starts."""
    async with LocalNetwork(tmp_path, cache=tmp_path, parts=["chain"]) as network:
        at = network.network.services
        assert at.scheduler
        for url in (at.market, at.scheduler, at.results, *at.sms):
            place = ("127.0.0.1", int(url.rpartition(":")[2]))
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(place)
            with socket.socket() as its_service:
                its_service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                its_service.bind(place)
                its_service.listen()
                with socket.create_connection(place, timeout=10):
                    its_service.accept()[0].close()
