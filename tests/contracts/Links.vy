# pragma version 0.4.3
"""
@title Links: what tasks.vy makes of results, open to tests
@license Apache-2.0
"""
import types
import tasks


@external
@pure
def number(text: uint256) -> uint256:
    return tasks._number(text)


@external
@pure
def multihash(results: Bytes[types.RESULT]) -> (bool, bytes32):
    return tasks._multihash(results)


@external
@pure
def link(hash: bytes32) -> Bytes[tasks.LINK]:
    return tasks._link(hash)


@external
@pure
def short(results: Bytes[types.RESULT]) -> (bool, bytes32, uint256):
    return tasks._short(results)
