"""What a Python interpreter consists of: its files, and the shared libraries that they need.

Nothing is run but the interpreter itself, once, to ask where its files lie; libraries are found by
reading ELF headers, so that a foreign wheel is never executed by building an image from it.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from sealdeal.model.errors import InvalidInput

PREFIX: Final = "usr/local"
"""Where an image keeps its interpreter; Python finds its library relative to its own program."""

_LEFT_OUT: Final = frozenset(
    {"__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "tkinter", "turtledemo"}
    | {"dist-packages", "site-packages", "sitecustomize.py", "turtle.py"}
)
"""Parts of the standard library that no app needs: tests, windows, installers, old converters."""
_LEFT_OUT_MODULES: Final = ("_test", "_tkinter", "_ctypes_test", "_xxtestfuzz", "xxlimited")
_DEFAULT_FOLDERS: Final = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")

_PROBE: Final = """
import json, sys, sysconfig, platform
print(json.dumps({
    "program": getattr(sys, "_base_executable", None) or sys.executable,
    "version": platform.python_version(), "name": platform.python_implementation(),
    "short": "%d.%d" % sys.version_info[:2], "platlibdir": sys.platlibdir,
    "stdlib": sysconfig.get_path("stdlib"), "prefix": sys.base_exec_prefix,
    "multiarch": sysconfig.get_config_var("MULTIARCH") or "",
    "cache_tag": sys.implementation.cache_tag, "machine": platform.machine(),
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine."""

    program: Path
    """The real program, not a virtual environment's link."""
    name: str
    version: str
    """`3.11.7`."""
    short: str
    """`3.11`."""
    cache_tag: str
    """`cpython-311`: in the names of compiled files."""
    stdlib: Path
    dynload: Path
    """The folder of the standard library's extension modules."""
    platlibdir: str
    multiarch: str
    """`x86_64-linux-gnu`, or empty where the system has no such folders."""
    machine: str

    @property
    def library(self) -> str:
        """The image's path of the standard library."""
        return f"{PREFIX}/lib/python{self.short}"


def inspect(program: str) -> Interpreter:
    """Ask an interpreter where its files lie. Raises InvalidInput when it is not a usable CPython."""
    try:
        answer = subprocess.run(
            [program, "-I", "-S", "-c", _PROBE], capture_output=True, check=True, timeout=30, text=True
        ).stdout
        found = json.loads(answer)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise InvalidInput(f"expected a Python interpreter, got {program!r}: {error}") from None
    stdlib = Path(found["stdlib"])
    places = (stdlib, Path(found["prefix"]) / found["platlibdir"] / f"python{found['short']}")
    dynload = next(
        (p / "lib-dynload" for p in places if (p / "lib-dynload").is_dir()), stdlib / "lib-dynload"
    )
    if found["name"] != "CPython" or not (stdlib / "os.py").is_file():
        raise InvalidInput(f"expected a CPython with its standard library, got {found['name']} at {stdlib}")
    return Interpreter(
        program=Path(found["program"]).resolve(),
        name=found["name"],
        version=found["version"],
        short=found["short"],
        cache_tag=found["cache_tag"],
        stdlib=stdlib,
        dynload=dynload,
        platlibdir=found["platlibdir"],
        multiarch=found["multiarch"],
        machine=found["machine"],
    )


def files(python: Interpreter) -> dict[str, Path]:
    """Image path -> file of this machine: the program, its library, and the shared libraries of both."""
    found = {f"{PREFIX}/bin/python{python.short}": python.program}
    for file in _walk(python.stdlib):
        relative = file.relative_to(python.stdlib)
        if relative.parts[0] != "lib-dynload":
            found[f"{python.library}/{relative}"] = file
    modules = f"{PREFIX}/{python.platlibdir}/python{python.short}/lib-dynload"
    for file in _walk(python.dynload):
        found[f"{modules}/{file.name}"] = file
    return found | libraries(found.values(), python)


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if n not in _LEFT_OUT and not n.startswith("config-")]
        for name in names:
            if name in _LEFT_OUT or name.startswith(_LEFT_OUT_MODULES) or name.endswith((".pyc", ".a", ".o")):
                continue
            yield Path(here, name)


# ---- shared libraries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Elf:
    """What a program or library asks of the loader."""

    machine: int
    needed: tuple[str, ...]
    search: tuple[str, ...]
    """RPATH and RUNPATH, with $ORIGIN put in."""
    loader: str | None
    """The program interpreter (PT_INTERP), for programs."""


def read_elf(file: Path) -> Elf | None:
    """The dynamic section of a 64-bit little-endian ELF file; None for any other file."""
    with file.open("rb") as handle:
        if handle.read(6) != b"\x7fELF\x02\x01":
            return None
        handle.seek(0)
        data = handle.read()
    try:
        return _parse_elf(data, file)
    except (struct.error, ValueError, IndexError):
        raise InvalidInput(f"{file} begins like an ELF file and is not one") from None


def _parse_elf(data: bytes, file: Path) -> Elf:
    machine = struct.unpack_from("<H", data, 18)[0]
    table, size, count = (
        struct.unpack_from("<Q", data, 32)[0],
        *struct.unpack_from("<HH", data, 54),
    )
    headers = [struct.unpack_from("<IIQQQQQQ", data, table + i * size) for i in range(count)]
    loads = [(address, offset, length) for kind, _, offset, address, _, length, *_ in headers if kind == 1]

    def text(at: int) -> str:
        return data[at : data.index(b"\0", at)].decode()

    loader = next((text(offset) for kind, _, offset, *_ in headers if kind == 3), None)
    tags: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length, *_ in headers:
        if kind == 2:
            tags = [struct.unpack_from("<QQ", data, at) for at in range(offset, offset + length, 16)]
    end = next((i for i, (tag, _) in enumerate(tags) if tag == 0), len(tags))
    tags = tags[:end]
    strings = next((value for tag, value in tags if tag == 5), None)
    if strings is None:
        return Elf(machine, (), (), loader)
    base = next(o + strings - a for a, o, length in loads if a <= strings < a + length)
    origin = str(file.resolve().parent)
    search = [
        folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
        for tag, value in tags
        if tag in (15, 29)
        for folder in text(base + value).split(":")
    ]
    return Elf(
        machine,
        tuple(text(base + value) for tag, value in tags if tag == 1),
        tuple(s for s in search if s),
        loader,
    )


def _system_folders(multiarch: str) -> list[str]:
    found: list[str] = []
    pending = ["/etc/ld.so.conf"]
    while pending:
        try:
            lines = Path(pending.pop(0)).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split("#")[0].split()
            if words[:1] == ["include"]:
                pending += [str(p) for w in words[1:] for p in sorted(Path("/").glob(w.lstrip("/")))]
            elif words:
                found.append(words[0])
    usual = [f"/lib/{multiarch}", f"/usr/lib/{multiarch}"] if multiarch else []
    # The loader's own places go first: libraries of other programs (CUDA, fakeroot) hide nothing there.
    return list(dict.fromkeys([*usual, *_DEFAULT_FOLDERS, *found]))


def libraries(programs: Iterable[Path], python: Interpreter, present: Iterable[str] = ()) -> dict[str, Path]:
    """Image path -> file of every shared library that `programs` need, and theirs, with the loader.

    Libraries that lie beside those who need them (RUNPATH into the same package) stay there; names in
    `present` are taken as there already. Raises InvalidInput for one that this machine lacks.
    """
    given = [Path(p) for p in programs]
    inside = {p.resolve() for p in given}
    system = _system_folders(python.multiarch)
    # The loader looks without a cache where it found libc here; in an image it will look there too.
    home = next((f for f in system if Path(f, "libc.so.6").is_file()), "/lib").strip("/")
    found: dict[str, Path] = {}
    read = cache(read_elf)
    first = read(python.program)
    if first is None or first.loader is None:
        raise InvalidInput(f"expected a dynamically linked interpreter, got {python.program}")
    have = {*present, Path(first.loader).name}
    pending: list[tuple[Path, tuple[str, ...]]] = [(p, ()) for p in given]
    while pending:
        file, inherited = pending.pop()
        if (elf := read(file)) is None or elf.machine != first.machine:
            continue
        if elf.loader:
            found.setdefault(elf.loader.lstrip("/"), Path(elf.loader).resolve())
        search = (*elf.search, *inherited)
        for name in elf.needed:
            if name in have or "/" in name:
                continue
            candidates = (Path(folder, name) for folder in (*search, *system))
            place = next((c for c in candidates if c.is_file() and _fits(read(c), first)), None)
            if place is None:
                raise InvalidInput(
                    f"{file.name} needs the shared library {name}, which this machine lacks: "
                    "install it, or leave out what needs it"
                )
            if place.resolve() in inside:
                continue
            have.add(name)
            found[f"{home}/{name}"] = place.resolve()
            pending.append((place, search))
    return found


def _fits(library: Elf | None, program: Elf) -> bool:
    return library is not None and library.machine == program.machine
