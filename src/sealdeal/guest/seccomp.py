"""The system call filter of the app's sandbox: a list of what is allowed, compiled to classic BPF here.

Everything else fails with EPERM; calls newer than the list fail with ENOSYS, so that libraries fall back to
older ones. Numbers are in `syscalls.txt`. Format: `struct sock_filter` of
linux/filter.h over `struct seccomp_data` (number at 0, architecture at 4, arguments from 16).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from sealdeal.model.errors import InvalidInput

_LOAD, _RETURN = 0x20, 0x06
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_AUDIT_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32: Final = 0x40000000
"""x86_64 numbers from here on are the x32 ABI's, a second door to every call."""

_NEWEST: Final = 450
"""set_mempolicy_home_node, of Linux 5.17: the newest call that the list judged."""
_FAMILIES: Final = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6: harmless in an empty network namespace, and expected by libraries."""
_NAMESPACES: Final = 0x7E020000
"""Every CLONE_NEW… flag."""
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""As the containers' usual list: Linux, with or without a 32-bit uname, and the question which one it is."""


@cache
def numbers(machine: str) -> dict[str, int]:
    """Name -> number of the calls that are allowed on `machine`. Raises InvalidInput for an unknown one."""
    if machine not in _AUDIT_ARCHITECTURES:
        raise InvalidInput(f"expected x86_64 or aarch64, got a machine of type {machine}")
    column = 1 + list(_AUDIT_ARCHITECTURES).index(machine)
    found = {}
    for line in Path(__file__).with_name("syscalls.txt").read_text().splitlines():
        words = line.split()
        if words and words[0] != "#" and words[column] != "-":
            found[words[0]] = int(words[column])
    return found


@cache
def program(machine: str) -> bytes:
    """The filter, as bubblewrap's --seccomp reads it."""
    calls = dict(numbers(machine))
    clone, clone3 = calls.pop("clone"), calls.pop("clone3")
    personality, socket = calls.pop("personality"), calls.pop("socket")
    code = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, _AUDIT_ARCHITECTURES[machine], 1, 0), _error(_EPERM)]
    code += [_step(_LOAD, _NUMBER), _step(_AT_LEAST, _X32, 0, 1), _error(_EPERM)]
    code += [_step(_GREATER, _NEWEST, 0, 1), _error(_ENOSYS)]
    code += [_step(_EQUAL, clone3, 0, 1), _error(_ENOSYS)]  # libc then uses clone, whose flags can be seen
    code += _guarded(clone, [_step(_ANY_BIT, _NAMESPACES, 0, 1), _error(_EPERM)])
    for number, values in ((socket, _FAMILIES), (personality, _PERSONALITIES)):
        checks = [_step(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
        code += _guarded(number, [*checks, _error(_EPERM)])
    for low, high in _ranges(calls.values()):
        code += [
            _step(_GREATER, high, 3, 0),
            _step(_AT_LEAST, low, 0, 1),
            _step(_RETURN, _ALLOW),
            _error(_EPERM),
        ]
    return b"".join([*code, _error(_EPERM)])


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value)


def _error(number: int) -> bytes:
    return _step(_RETURN, _ERROR | number)


def _guarded(number: int, checks: list[bytes]) -> list[bytes]:
    """For one call: its first argument's low word is put to `checks`; if none returned, it is allowed."""
    body = [_step(_LOAD, _ARGUMENT), *checks, _step(_RETURN, _ALLOW)]
    return [_step(_EQUAL, number, 0, len(body)), *body]


def _ranges(values: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for value in sorted(values):
        if found and value == found[-1][1] + 1:
            found[-1] = (found[-1][0], value)
        else:
            found.append((value, value))
    return found
