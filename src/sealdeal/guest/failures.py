"""How a task can fail, as the guest tells it apart.

`AppFault`: the app's own doing, which the guest saw itself. It is contributed as an error (attested in a TEE)
and paid. So is what a deal without a TEE asks for and nobody could give it.
`Failure`: what the host could have caused. It is reported, and never contributed.

Causes are the network's words (wire.md §5.4) where it has one. Messages leave the enclave in the clear, so
they never quote what the app wrote or read.
"""

from __future__ import annotations

from sealdeal.model.errors import SealdealError


class Failure(SealdealError):
    """The task cannot be done here; nothing is contributed."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class AppFault(SealdealError):
    """The app ended wrongly, or its output is not what the network asks of an app."""

    def __init__(self, cause: str, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.cause, self.exit_code = cause, exit_code
