"""What an operator decides for a node: its door, its storage key, its witness, the platforms it takes."""

from __future__ import annotations

import asyncio
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sealdeal.model.errors import InvalidInput
from sealdeal.model.policy import MinTcbEvaluation, PlatformIn, PlatformNotIn, Policy
from sealdeal.model.sealing import Door
from sealdeal.model.types import unhex
from sealdeal.sdk.keyfile import parse_key, private_text

KEY_COMMAND_SECONDS = 60.0
"""How long a key command may take: it may ask a person, or a service far away."""


@dataclass(frozen=True, slots=True)
class SmsOptions:
    """One node's, or all of a local network's."""

    door: Door = Door.OWN
    """What becomes of a secret that is pushed whole."""
    storage_key_file: Path | None = None
    """File whose text is the storage key, 32 bytes in hexadecimal."""
    storage_key_command: str = ""
    """Program, with its arguments, that prints the storage key: a KMS's client, for example. `{node}` in
    it becomes the node's name. It wins over the file."""
    witness_rpc: str = ""
    """URL of a second JSON-RPC endpoint, of another operator than the first."""
    platforms: tuple[bytes, ...] = ()
    """Ids of the only platforms whose evidence counts; none: all."""
    banned_platforms: tuple[bytes, ...] = ()
    min_tcb_evaluation: int = 0
    """Evidence is judged by collateral of this evaluation number or a later one; 0: any that is valid."""

    def policies(self) -> list[Policy]:
        """What is required of evidence, beyond what always is."""
        found: list[Policy] = []
        if self.platforms:
            found.append(PlatformIn(frozenset(self.platforms)))
        if self.banned_platforms:
            found.append(PlatformNotIn(frozenset(self.banned_platforms)))
        if self.min_tcb_evaluation:
            found.append(MinTcbEvaluation(self.min_tcb_evaluation))
        return found

    async def storage_key(self, node: str) -> bytes | None:
        """The 32 bytes of the node of that name; None when neither file nor command is named.

        Raises InvalidInput when it is not to be had. No message holds any of it.
        """
        if self.storage_key_command:
            return parse_key(
                await _printed(self.storage_key_command, node), "the storage key command's output"
            )
        if self.storage_key_file:
            return parse_key(private_text(self.storage_key_file), str(self.storage_key_file))
        return None


def platform_ids(text: str) -> tuple[bytes, ...]:
    """Ids in hexadecimal, separated by commas or spaces. Raises InvalidInput."""
    return tuple(unhex(f"0x{word.removeprefix('0x')}") for word in re.split(r"[,\s]+", text.strip()) if word)


async def _printed(command: str, node: str) -> str:
    try:
        program, *arguments = (word.replace("{node}", node) for word in shlex.split(command))
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
    except (OSError, ValueError) as failed:
        raise InvalidInput(f"the storage key command can't be run: {failed}") from None
    try:
        out, _ = await asyncio.wait_for(process.communicate(), KEY_COMMAND_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise InvalidInput(
            f"the storage key command said nothing for {KEY_COMMAND_SECONDS:g} seconds"
        ) from None
    if process.returncode:
        raise InvalidInput(f"the storage key command ended with {process.returncode}")
    return out.decode(errors="replace")
