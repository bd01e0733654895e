"""Our contracts compiled otherwise than they are shipped: with a flaw, or inside a harness."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vyper.compiler import CompilerData
from vyper.compiler.input_bundle import FilesystemInputBundle
from vyper.compiler.settings import OptimizationLevel, Settings

SOURCES = Path(__file__).parents[2] / "contracts"


def compiled(path: Path, *search: Path) -> CompilerData:
    """As contracts/build.py compiles; imports are looked for beside the file, then in `search`."""
    bundle = FilesystemInputBundle([*reversed(search), path.parent])
    settings = Settings(optimize=OptimizationLevel.GAS, evm_version="cancun", experimental_codegen=False)
    return CompilerData(bundle.load_file(path.name), input_bundle=bundle, settings=settings)


@dataclass(frozen=True)
class Flaw:
    """A mistake that somebody could have made."""

    file: str
    before: str
    """What stands there, once."""
    after: str
    piece: str = "Hub"
    """The contract that shows it."""

    def sources(self, folder: Path) -> Path:
        """A copy of all sources with the flaw, in this folder."""
        copy = shutil.copytree(SOURCES, folder / "contracts", ignore=shutil.ignore_patterns("build"))
        source = copy / self.file
        text = source.read_text()
        assert text.count(self.before) == 1, f"{self.file} has changed: write this flaw anew"
        source.write_text(text.replace(self.before, self.after))
        return copy

    def code(self, folder: Path) -> bytes:
        """Creation code of the piece with the flaw."""
        return bytes(compiled(self.sources(folder) / f"{self.piece}.vy").bytecode)
