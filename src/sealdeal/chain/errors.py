"""What a chain may answer besides what was asked.

Unavailable (model.errors)
├── ChainUnreachable     the node does not answer
├── NotMined             a transaction was sent and is not in a block yet
├── AnvilMissing         the local chain's program is not installed
└── AnvilFailed          it is installed and does not run
ChainError (model.errors)
├── RpcError             the node answered with an error of its own
├── Reverted             a contract refused, with its reason in words
├── OutOfGasMoney        the account can't pay for gas
├── BlockGone            the block that a read was pinned to was reorganised away
├── DeploymentStopped    some of a network's contracts are there, and not all
├── WrongChain           the node serves another chain than the one expected
└── BadAnswer            what came is not what the protocol promises
InvalidInput (model.errors)
└── KeystoreError        not a keystore, or the wrong password
"""

from __future__ import annotations

from sealdeal.model.errors import ChainError, InvalidInput, Unavailable

from .reasons import explain, standard_reason


class ChainUnreachable(Unavailable):
    """The chain's node does not answer: check its URL, or wait until it is back."""


class NotMined(Unavailable):
    """A transaction was sent and is not in a block yet: send again with the same intent to go on waiting."""

    def __init__(self, message: str, tx_hash: bytes) -> None:
        super().__init__(message)
        self.tx_hash = tx_hash


class AnvilMissing(Unavailable):
    """The program of the local chain, anvil, is not installed: run ./dev setup."""


class AnvilFailed(Unavailable):
    """Anvil does not start, or stopped by itself."""


class RpcError(ChainError):
    """The node refused a request; `number` and `data` are those of JSON-RPC."""

    def __init__(self, number: int, message: str, data: object = None, method: str = "") -> None:
        super().__init__(f"the chain's node refused {method or 'a request'}: {message} (code {number})")
        self.number, self.message, self.data = number, message, data


class Reverted(ChainError):
    """A contract refused a call or a transaction.

    `reason` is the contract's text, or a custom error as `Name(args)`, or None when it gave no data.
    `tx_hash` is set when the refusal was mined (and its gas paid).
    """

    status = 409

    def __init__(
        self, data: bytes = b"", *, reason: str | None = None, doing: str = "", tx_hash: bytes | None = None
    ) -> None:
        self.data, self.doing, self.tx_hash = data, doing, tx_hash
        self.reason = reason if reason is not None else standard_reason(data)
        what = f"the contract refused {doing}" if doing else "the contract refused"
        mined = f" (transaction 0x{tx_hash.hex()})" if tx_hash else ""
        words = explain(self.reason, doing)
        super().__init__(
            f"{what}{mined}: {self.reason or 'no reason given'}" + (f": {words}" if words else "")
        )


class OutOfGasMoney(ChainError):
    """The sending account has too little native currency to pay for gas: fund it."""

    status = 409


class BlockGone(ChainError):
    """The block that a decision was reading is no longer on the chain: take a new block and decide again."""

    status = 409


class DeploymentStopped(ChainError):
    """A deployment ended half way: go on with it from its first nonce, if the message names one, or anew."""

    def __init__(self, message: str, first: int | None) -> None:
        super().__init__(message)
        self.first = first
        """The nonce to go on with; None when this deployment cannot be completed."""


class WrongChain(ChainError):
    """The node serves another chain than the one expected: check the URL and the chain id in the settings."""


class BadAnswer(ChainError):
    """An answer of the node is not what the protocol promises."""


class KeystoreError(InvalidInput):
    """A file is not a keystore, or the password is not the one it was made with."""
