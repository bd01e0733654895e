"""The guest's own image: what a TEE of ours starts from, and whose digest is measured.

It is built by the code that builds apps' images, from the environment that is running: the interpreter, the
distributions that the guest needs, `sealdeal.model`, `sealdeal.guest` and bubblewrap. Modules that the guest
loads come compiled, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sealdeal
from sealdeal.model import images
from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.model.images import Blob
from sealdeal.model.tars import Kind, Member, members
from sealdeal.model.types import Bytes32

from . import interpreter as pythons
from .images import LABEL, LayerStore, Source, architecture, entry_of, identity_of, interpreter_files, settle

DISTRIBUTIONS: Final = ("cffi", "coincurve", "cryptography", "pycryptodome")
"""What sealdeal.model and sealdeal.guest import beyond the standard library, with what these need."""
PACKAGES: Final = ("model", "guest")
HOME: Final = "opt/guest"
"""The image's folder of distributions and packages: Python runs a folder that has a __main__.py."""
COMMAND: Final = ("/usr/local/bin/python3", "-I", "-S", "-B", f"/{HOME}", "/work")
_MAIN: Final = b"""import sys

from sealdeal.guest.__main__ import main

sys.exit(main())
"""
FOLDERS: Final = ("dev", "proc", "tmp", "work")
_LEFT_OUT: Final = ("Crypto/SelfTest/",)

_COMPILE: Final = """
import importlib.util, json, marshal, os, sys
told = json.load(sys.stdin)
sys.path[:] = told["path"]
import sealdeal.guest.__main__
loaded = {os.path.realpath(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
for image, host in told["sources"].items():
    if host not in loaded:
        continue
    with open(host, "rb") as file:
        source = file.read()
    code = compile(source, "/" + image, "exec", dont_inherit=True, optimize=0)
    # Marshal's version 2 knows no references, whose places would depend on this process's memory.
    data = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    target = os.path.join(told["out"], image)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(data + marshal.dumps(code, 2))
"""


@dataclass(frozen=True, slots=True)
class GuestRelease:
    """The guest's files on disk, and what they measure."""

    rootfs: Path
    """The unpacked image, verified; a sandbox mounts it read-only as its root."""
    digest: Bytes32
    """sha256 of the release's OCI manifest: the guest release digest that policies name."""


def build_guest_release(cache: Path) -> GuestRelease:
    """The release of the running environment, built unless `cache` has it, verified in any case.

    Raises Unavailable when bubblewrap is missing, InvalidInput for an unusable interpreter.
    """
    python = pythons.inspect(sys.executable)
    store = LayerStore(cache)
    sources = _sources(python)
    identity = identity_of(sources.items(), "guest", *COMMAND)
    layer = store.find(identity)
    if layer is None:
        sources |= _compiled(sources, python, cache)
        layer = store.write(
            images.layer(entry_of(path, source) for path, source in sources.items()), identity
        )
    built = images.archive(
        [(f"guest {sealdeal.__version__}, {python.name} {python.version}", layer)],
        architecture=architecture(python),
        process={"Entrypoint": list(COMMAND), "WorkingDir": "/"},
        labels={f"{LABEL}{name}": importlib.metadata.version(name) for name in DISTRIBUTIONS},
    )
    home = cache / "guests" / built.checksum.hex()
    if not _is_whole(layer, home):
        home.parent.mkdir(exist_ok=True)
        shutil.rmtree(home, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(dir=home.parent))
        fresh.chmod(0o755)
        _lay(layer, fresh)
        settle(fresh, home)
    return GuestRelease(home, built.checksum)


def _sources(python: pythons.Interpreter) -> dict[str, Source]:
    found = interpreter_files(python, zoneinfo=False)
    found[f"{HOME}/__main__.py"] = _MAIN
    for name in DISTRIBUTIONS:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            path = str(file)
            plain = not path.startswith(("..", *_LEFT_OUT)) and ".dist-info/" not in path
            if plain and not path.endswith((".pyc", ".pyi", ".c", ".h")):
                found[f"{HOME}/{path}"] = Path(str(distribution.locate_file(file)))
    ours = Path(sealdeal.__file__).parent
    found[f"{HOME}/sealdeal/__init__.py"] = ours / "__init__.py"
    for package in PACKAGES:
        for source in sorted((ours / package).iterdir()):
            if source.suffix in (".py", ".txt"):
                found[f"{HOME}/sealdeal/{package}/{source.name}"] = source
    if (bwrap := shutil.which("bwrap")) is None:
        raise Unavailable("bubblewrap is missing: install it (apt install bubblewrap)")
    found["usr/bin/bwrap"] = Path(bwrap).resolve()
    programs = [source for source in found.values() if isinstance(source, Path)]
    present = [Path(path).name for path in found]
    found |= pythons.libraries(programs, python, present)
    return found | dict.fromkeys(FOLDERS)


def _compiled(sources: Mapping[str, Source], python: pythons.Interpreter, cache: Path) -> dict[str, Source]:
    """Image path -> compiled module, for every module that the guest loads."""
    modules = {
        path: str(source.resolve())
        for path, source in sources.items()
        if isinstance(source, Path) and path.endswith(".py")
    }
    with tempfile.TemporaryDirectory(dir=cache) as out:
        path = [str(Path(sealdeal.__file__).parents[1]), *sys.path]
        told = {"path": path, "sources": modules, "out": out}
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", _COMPILE],
            input=json.dumps(told),
            text=True,
            capture_output=True,
        )
        if done.returncode:
            raise InvalidInput(f"the guest cannot be loaded in this environment:\n{done.stderr[-2000:]}")
        found: dict[str, Source] = {}
        for file in Path(out).rglob("*.py"):
            module = file.relative_to(out)
            place = module.parent / "__pycache__" / f"{module.stem}.{python.cache_tag}.pyc"
            found[str(place)] = file.read_bytes()
        return found


def _members(layer: Blob) -> Iterator[tuple[Member, bytes]]:
    for member in members(_Chunks(layer)):
        content = b""
        while piece := member.read(1 << 20):
            content += piece
        yield member, content


class _Chunks:
    """A blob as something to read from."""

    def __init__(self, blob: Blob) -> None:
        self._chunks, self._left = iter(blob.chunks()), b""

    def read(self, size: int, /) -> bytes:
        if not self._left:
            self._left = next(self._chunks, b"")
        data, self._left = self._left[:size], self._left[size:]
        return data


def _mode(member: Member) -> int:
    return 0o755 if member.executable else 0o644


def _lay(layer: Blob, root: Path) -> None:
    """Unpack a layer of our own making."""
    for member, data in _members(layer):
        place = root / member.name
        if member.kind is Kind.FOLDER:
            place.mkdir(exist_ok=True)
        elif member.kind is Kind.SYMBOLIC_LINK:
            place.symlink_to(member.link)
        else:
            place.write_bytes(data)
            place.chmod(_mode(member))


def _is_whole(layer: Blob, root: Path) -> bool:
    """Whether the folder holds exactly the layer."""
    if not root.is_dir():
        return False
    expected = {root}
    for member, data in _members(layer):
        place = root / member.name
        expected.add(place)
        try:
            if member.kind is Kind.SYMBOLIC_LINK:
                same = str(place.readlink()) == member.link
            elif member.kind is Kind.FOLDER:
                same = place.is_dir() and not place.is_symlink()
            else:
                plain = place.is_file() and not place.is_symlink()
                same = plain and place.stat().st_mode & 0o777 == _mode(member) and place.read_bytes() == data
        except OSError:
            same = False
        if not same:
            return False
    return all(place in expected for place in root.rglob("*"))
