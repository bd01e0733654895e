"""Keys of services, in files of hexadecimal text for their owner's eyes only."""

from __future__ import annotations

import re
from pathlib import Path

from sealdeal.model.errors import InvalidInput


def parse_key(text: str, where: str) -> bytes:
    """32 bytes from hexadecimal text. Raises InvalidInput, which does not repeat the text."""
    if re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", text.strip()) is None:
        raise InvalidInput(f"expected 32 bytes in hexadecimal in {where}, got something else")
    return bytes.fromhex(text.strip().removeprefix("0x"))


def private_text(path: Path) -> str:
    """The text of a file that is its owner's alone. Raises InvalidInput, which repeats none of it."""
    try:
        if path.stat().st_mode & 0o077:
            raise InvalidInput(f"expected {path} to be its owner's alone: chmod 600 {path}")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as failed:
        raise InvalidInput(f"expected a key in {path}: {type(failed).__name__}") from None
