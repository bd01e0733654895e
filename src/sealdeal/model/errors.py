"""Every error a caller may meet, by what went wrong.

SealdealError
├── InvalidInput          what was given is malformed, out of bounds or inconsistent
│   └── Mismatch          the orders do not fit each other (model.matching lists every reason)
├── NotFound              nothing is known under that name
├── Conflict              it exists already, or its state forbids the act
├── TooLarge              over a named limit
├── Unauthorized          no valid proof of who asks
│   └── BadSignature      a signature that does not verify
├── Forbidden             the asker is known and may not
├── RateLimited           too many requests
├── EvidenceRefused       evidence is not authentic, not fresh, or not what the policy wants
├── SecretRefused         a secret is not released, or cannot be recovered
├── IntegrityError        bytes differ from what their digest or signature promised
├── ChainError            the chain or a contract said no (chain/ refines this)
└── Unavailable           a part that is needed does not answer; try again later

A message says what was expected, what came, and what to do. `status` is the HTTP status that the
error maps to (in one place, `sdk.http`), `code` the stable word a program may test.
"""

from __future__ import annotations

from typing import ClassVar


class SealdealError(Exception):
    """Anything that Sealdeal refuses or fails to do."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "SealdealError"

    def __str__(self) -> str:
        """The message, fit to be sent: what came may have held halves of characters, which no UTF-8 has."""
        return super().__str__().encode(errors="backslashreplace").decode()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            cls.code = cls.__name__


class InvalidInput(SealdealError):
    """What was given is malformed, out of bounds or inconsistent: correct it and call again."""

    status = 400


class Mismatch(InvalidInput):
    """The orders do not fit each other; `reasons` lists every failing constraint."""

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class NotFound(SealdealError):
    """Nothing is known under that name; check the identifier and the network."""

    status = 404


class Conflict(SealdealError):
    """It exists already, or its present state forbids the act."""

    status = 409


class TooLarge(SealdealError):
    """More than a named limit allows; the message names the limit."""

    status = 413


class Unauthorized(SealdealError):
    """No valid proof of who asks: sign the request with the right key."""

    status = 401


class BadSignature(Unauthorized):
    """A signature does not verify, or was made by another key than the one required."""


class Forbidden(SealdealError):
    """The asker is known and is not allowed to do this."""

    status = 403


class RateLimited(SealdealError):
    """Too many requests: wait and try again."""

    status = 429

    def __init__(self, message: str, retry_after: int = 1) -> None:
        """`retry_after`: seconds to wait, told in HTTP's Retry-After."""
        super().__init__(message)
        self.retry_after = retry_after


class EvidenceRefused(SealdealError):
    """Evidence of a TEE is not authentic, not fresh, or not what the policy requires."""

    status = 403


class SecretRefused(SealdealError):
    """A secret is not released to this asker, or its shares do not recombine."""

    status = 403


class IntegrityError(SealdealError):
    """Bytes differ from what their digest or signature promised; do not use them."""

    status = 422


class ChainError(SealdealError):
    """The chain, or a contract on it, refused or did not answer."""

    status = 502


class Unavailable(SealdealError):
    """A part that is needed does not answer now; try again later."""

    status = 503
