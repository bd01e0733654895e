"""A chain inside the test process (pyrevm): the same interface as anvil's, thousands of calls a second.

What it is not: its one journal is never closed, so slots stay warm from one transaction to the next, and gas
figures are too low. Gas comes from anvil only.

The rules are Prague's as far as this revm knows them: no BLS12-381 precompiles, and accounts cannot be
delegated (EIP-7702). A contract cannot send (anvil lets it). Only creation raises an account's nonce here, so
contracts that are deployed straight from an account may get other addresses than on anvil.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyrevm

from sealdeal.model.types import Address, address, hexstr
from tests.contracts.chain import CHAIN_ID, GAS, Backend, Refused

HARDFORK = "Prague"
"""As revm spells it: an unknown name would mean "the latest" without a word."""
START = 1_760_000_000
"""Timestamp of block 0."""
REVERTED = re.compile(r"Revert \{ gas_used: \d+, output: 0x([0-9a-f]*) \}")
HALTED = re.compile(r"Halt \{ reason: (.*), gas_used: \d+ \}")


class Revm(Backend):
    """One EVM. Blocks come with transactions, a second apart."""

    def __init__(self) -> None:
        environment = pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=CHAIN_ID))
        self._evm = pyrevm.EVM(env=environment, spec_id=HARDFORK)
        self._number = 0
        self._block(START)

    def close(self) -> None:
        """Nothing to end: it is part of this process."""

    def _block(self, timestamp: int) -> None:
        self._number += 1
        self._timestamp = timestamp
        self._evm.set_block_env(pyrevm.BlockEnv(number=self._number, timestamp=timestamp))

    def _run(self, to: str, data: bytes, sender: str, gas: int) -> bytes:
        self._evm.reset_transient_storage()
        try:
            return self._evm.message_call(sender, to, data, gas=gas)
        except RuntimeError as error:
            raise _refused(error) from None

    def call(self, to: str, data: bytes, sender: str) -> bytes:
        before = self._evm.snapshot()
        try:
            return self._run(to, data, sender, GAS)
        finally:
            self._evm.revert(before)

    def send(self, to: str | None, data: bytes, sender: str, gas: int = GAS) -> dict[str, Any]:
        self._block(self._timestamp + 1)
        if to is None:
            self._evm.reset_transient_storage()
            try:
                created = address(self._evm.deploy(sender, data, gas=gas))
            except RuntimeError as error:
                raise _refused(error) from None
            return self._receipt() | {"contractAddress": created}
        self._run(to, data, sender, gas)
        return self._receipt()

    def _receipt(self) -> dict[str, Any]:
        result = self._evm.result
        assert result is not None
        timestamp = hex(self._timestamp)
        logs = []
        for log in result.logs:
            _, data = log.data
            logs.append(
                {
                    "address": log.address,
                    "topics": log.topics,
                    "data": hexstr(data),
                    "blockTimestamp": timestamp,
                }
            )
        return {"status": "0x1", "gasUsed": hex(result.gas_used), "logs": logs, "contractAddress": None}

    def deploy(self, data: bytes, sender: str) -> Address:
        created: Address = self.send(None, data, sender)["contractAddress"]
        return created

    def nonce(self, account: str) -> int:
        return self._evm.basic(account).nonce

    def fund(self, account: str, wei: int) -> None:
        self._evm.set_balance(account, wei)

    def now(self) -> int:
        return self._timestamp

    def at(self, timestamp: int) -> None:
        if timestamp <= self._timestamp:
            raise ValueError(f"the latest block is at {self._timestamp}, none can follow at {timestamp}")
        self._block(timestamp)

    @contextmanager
    def undone(self) -> Iterator[None]:
        before, number, timestamp = self._evm.snapshot(), self._number, self._timestamp
        try:
            yield
        finally:
            self._evm.revert(before)
            self._number = number - 1
            self._block(timestamp)


def _refused(error: RuntimeError) -> Exception:
    """Refused if the contract failed; else pyrevm's own error, of a call that cannot even start."""
    if found := REVERTED.fullmatch(str(error)):
        return Refused("reverted", bytes.fromhex(found[1]))
    if found := HALTED.fullmatch(str(error)):
        return Refused(found[1], b"")
    return error
