"""What every command shares: settings, the wallet, the network, and how answers are printed."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sealdeal.chain import Wallet
from sealdeal.model.errors import Conflict, InvalidInput, NotFound
from sealdeal.model.keys import Key
from sealdeal.sdk.network import Network
from sealdeal.settings import Settings

if TYPE_CHECKING:
    from sealdeal.sdk.client import Sealdeal
    from sealdeal.sdk.registry import Registries
    from sealdeal.sdk.vault import Vault

WalletName = Annotated[str | None, Parameter(name="--wallet", help="Wallet that signs (setting: wallet).")]
AsJson = Annotated[
    bool, Parameter(name="--json", negative=(), help="Print one JSON document and nothing else.")
]
Words = Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)]
"""An option that may have many values, after one another or each with the option's name."""

Nodes = Annotated[
    Words, Parameter(name="--nodes", help="Nodes that shall hold shares, by address or URL; all by default.")
]
Threshold = Annotated[
    int | None,
    Parameter(name="--threshold", help="How many of them recombine it; the quorum's number by default."),
]
Expires = Annotated[
    str | None,
    Parameter(
        name="--expires",
        help="Deals made after this date (`2027-06-30`), or time from now (`90d`), get nothing.",
    ),
]


@cache
def settings() -> Settings:
    """The settings of this process; with them, what its log says is known."""
    found = Settings()
    logging.basicConfig(level=found.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    return found


def registries(*, loopback: bool = False) -> Registries:
    """What the settings say of registries of images."""
    from sealdeal.sdk.registry import Registries

    known = settings()
    urls = [url.strip() for url in known.registries.split(",") if url.strip()]
    return Registries.read(urls, known.registry_credentials, loopback=loopback)


def wallet_file(name: str) -> Path:
    """Where a wallet's keystore lies. Raises InvalidInput for a name that is no file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise InvalidInput(f"expected a wallet name of letters, digits, '_', '.', '-', got {name!r}")
    return settings().wallets / f"{name}.json"


def result_key_file(name: str) -> Path:
    """Where the private key that opens results for a wallet lies, encrypted with the wallet's password."""
    return wallet_file(name).with_suffix(".result.pem")


def vault(name: str, key: Key) -> Vault:
    """A wallet's own copies of the secrets it shared, in a folder beside it."""
    from sealdeal.sdk.vault import Vault

    return Vault(wallet_file(name).with_suffix(".secrets"), key)


def password(name: str, *, new: bool = False) -> str:
    """The wallet's password: from SEALDEAL_PASSWORD, else asked for at the terminal."""
    given = settings().password
    if given is not None:
        return given.get_secret_value()
    if not sys.stdin.isatty():
        raise InvalidInput(f"wallet {name} needs its password: set SEALDEAL_PASSWORD, or use a terminal")
    typed = getpass.getpass(f"{'New password' if new else 'Password'} of wallet {name}: ")
    if new and typed != getpass.getpass("Again: "):
        raise InvalidInput("the two passwords differ: nothing was made")
    return typed


def unlock(name: str | None = None) -> Key:
    """The key of a wallet (default: the one in the settings). Raises NotFound when there is none."""
    chosen = name or settings().wallet
    path = wallet_file(chosen)
    if not path.exists():
        raise NotFound(
            f"there is no wallet {chosen} in {path.parent}: make one with `sealdeal wallet create {chosen}`"
        )
    return Wallet.load(path, password(chosen)).key


def network() -> Network:
    """The network that commands work with."""
    return Network.load(settings().network_file())


def stop_on_signals() -> None:
    """Let SIGINT and SIGTERM cancel this task, so that what it runs is stopped in order.

    A program that a shell starts in the background has SIGINT ignored until it says otherwise.
    """
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)


@asynccontextmanager
async def connected(key: Key | None = None) -> AsyncIterator[Sealdeal]:
    """A client of the network, with a key or only to read."""
    from sealdeal.sdk.client import Sealdeal

    outbox = settings().wallets / "outbox" if key else None
    async with Sealdeal(network(), key, outbox=outbox) as client:
        yield client


def show(value: dict[str, Any], *, as_json: bool) -> None:
    """Print an answer: a JSON document, or aligned lines for people."""
    if as_json:
        print(json.dumps(value, indent=2))
        return
    width = max((len(name) for name in value), default=0)
    for name, member in value.items():
        text = json.dumps(member) if isinstance(member, dict | list) else member
        print(f"{name.replace('_', ' '):<{width}}  {text}")


def refuse_existing(path: Path) -> None:
    """Never overwrite what cannot be made again."""
    if path.exists():
        raise Conflict(f"{path} exists already, and is kept: choose another name")


_SPAN = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def when(text: str | None) -> int:
    """Unix time of a date, a moment or a time from now; 0 for none."""
    if text is None:
        return 0
    if span := _SPAN.fullmatch(text):
        return int(datetime.now(UTC).timestamp()) + int(span[1]) * _SECONDS[span[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            "expected a date (2027-06-30), a moment (2027-06-30T12:00Z) or a time from now (90d), "
            f"got {text!r}"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
