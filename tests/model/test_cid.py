from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model import cid
from sealdeal.model.errors import InvalidInput

# made by the ipfs-unixfs-importer of Kubo's defaults for bytes (i * 7 + 3) % 251
KNOWN = {
    (b"hello world", 0): "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
    (b"", 0): "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
    (b"hello world", 1): "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
}


@pytest.mark.parametrize(("given_bytes", "expected"), KNOWN.items())
def test_cids_are_those_of_ipfs(given_bytes: tuple[bytes, int], expected: str) -> None:
    assert cid.cid_of(*given_bytes) == expected


@given(st.lists(st.integers(1, 400_000), max_size=4), st.sampled_from([0, 1]))
def test_a_cid_does_not_depend_on_the_pieces(sizes: list[int], version: int) -> None:
    data = bytes(sum(sizes))
    cuts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    pieces = [data[a:b] for a, b in pairwise(cuts)]
    assert cid.cid_of(pieces, version) == cid.cid_of(data, version)


@given(st.binary(), st.sampled_from([0, 1]))
def test_multiaddrs_read_back(data: bytes, version: int) -> None:
    name = cid.cid_of(data, version)
    location = f"/ipfs/{name}"
    assert cid.multiaddr_text(cid.multiaddr_bytes(location)) == location
    assert cid.multiaddr_text(cid.multiaddr_bytes(f"/p2p/{name}")) == location
    assert cid.cid_in(location) == name
    assert cid.cid_version(name) == version


def test_a_url_is_kept_as_text() -> None:
    assert cid.multiaddr_text(cid.multiaddr_bytes("https://example.org/data")) == "https://example.org/data"


@given(st.text(max_size=120))
def test_what_is_no_cid_is_refused(text: str) -> None:
    try:
        raw = cid.parse_cid(text)
    except InvalidInput as refused:
        assert "expected a CID" in str(refused)
    else:
        assert raw[-34:-32] == b"\x12\x20"


@given(st.binary(max_size=60))
def test_any_bytes_on_chain_are_read_or_refused(data: bytes) -> None:
    try:
        assert isinstance(cid.multiaddr_text(data), str)
    except InvalidInput as refused:
        assert "expected" in str(refused)


def test_a_location_that_is_not_ipfs_is_refused() -> None:
    with pytest.raises(InvalidInput, match="/ipfs/CID"):
        cid.cid_in("https://example.org")


def test_a_directory_is_that_of_ipfs() -> None:
    assert cid.block_cid(cid.directory_block({})) == "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
    hello = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
    assert cid.dag_size(len(b"hello world")) == 19  # what `ipfs add` shows of it
    block = cid.directory_block({"2": (hello, 19), "10": (hello, 19), "1": (hello, 19)})
    assert list(cid.directory_links(block)) == ["1", "10", "2"]
    assert set(cid.directory_links(block).values()) == {hello}
    assert cid.parse_cid(cid.block_cid(block, 1))[-32:] == cid.parse_cid(cid.block_cid(block))[-32:]


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.binary(max_size=9), max_size=9))
def test_directories_read_back(files: dict[str, bytes]) -> None:
    entries = {name: (cid.cid_of(data), cid.dag_size(len(data))) for name, data in files.items()}
    block = cid.directory_block(entries)
    assert cid.directory_links(block) == {name: each for name, (each, _) in entries.items()}
    assert cid.directory_block(dict(reversed(entries.items()))) == block


@pytest.mark.parametrize("size", [0, 1, cid.CHUNK, cid.CHUNK + 1, cid.CHUNK * (cid.WIDTH + 1) + 5])
def test_the_size_of_a_dag_is_that_of_its_blocks(size: int) -> None:
    chunks = [min(cid.CHUNK, size - at) for at in range(0, size, cid.CHUNK)] or [0]
    assert (
        size + len(chunks) * 6 <= cid.dag_size(size) <= size + len(chunks) * 80 + 20_000 * (len(chunks) > 1)
    )


@given(st.binary(max_size=80))
def test_what_is_no_directory_is_refused(block: bytes) -> None:
    if block != cid.directory_block({}):
        with pytest.raises(InvalidInput):
            cid.directory_links(block)


def test_a_place_in_a_directory() -> None:
    name = cid.cid_of(b"")
    assert cid.path_in(f"/ipfs/{name}") == (name, "")
    assert cid.path_in(f"/ipfs/{name}/7") == (name, "7")
    for wrong in ("", "/ipfs/", f"/ipfs/{name}/", f"/ipfs/{name}/a/b", "/ipfs/Qm/7", f"/ipns/{name}/7"):
        with pytest.raises(InvalidInput):
            cid.path_in(wrong)
