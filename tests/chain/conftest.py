from __future__ import annotations

import pytest
from vyper import compile_code

from sealdeal.chain import Anvil, Contract, Rpc, Sender
from sealdeal.chain.abi import Abi, encode
from sealdeal.chain.local import ETHER
from sealdeal.model.types import unhex
from tests.chain.counter import COUNTER, ERRORS, Counter, wallet


@pytest.fixture(scope="session")
def counter_code() -> tuple[bytes, Abi]:
    compiled = compile_code(COUNTER, output_formats=["bytecode", "abi"])
    return unhex(compiled["bytecode"]), Abi([*compiled["abi"], *ERRORS])


@pytest.fixture
async def counter(chain: Rpc, anvil: Anvil, counter_code: tuple[bytes, Abi]) -> Counter:
    """A counter on the chain, and a funded sender that nobody used before."""
    code, abi = counter_code
    sender = Sender(chain, wallet("operator"), patience=20.0)
    await anvil.fund(sender.address, 100 * ETHER)
    receipt = await sender.send(None, code + encode(abi.constructor, []))
    assert receipt.contract
    return Counter(chain, sender, Contract(receipt.contract, abi))
