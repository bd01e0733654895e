"""Everything that can be set from outside, and the only reader of the environment.

Each setting is an environment variable `SEALDEAL_` and its name in capitals. A command's option wins over
the environment, the environment over the defaults. docs/settings.md lists them; a test keeps it true.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _home(variable: str, fallback: str) -> Path:
    """A folder of the XDG Base Directory Specification, ours inside it."""
    root = os.environ.get(variable) or str(Path.home() / fallback)
    return Path(root) / "sealdeal"


class Settings(BaseSettings):
    """What the commands and the node read."""

    model_config = SettingsConfigDict(env_prefix="SEALDEAL_", extra="ignore")

    state: Path = Field(default_factory=lambda: _home("XDG_STATE_HOME", ".local/state") / "local")
    """Folder of the local network that `sealdeal up` keeps: chain, databases, blobs, keys."""
    cache: Path = Field(default_factory=lambda: _home("XDG_CACHE_HOME", ".cache"))
    """Folder of what can be made again: built images, downloads."""
    network: Path | None = None
    """Network file to work with; the default is the one that `sealdeal up` wrote in `state`."""
    wallets: Path = Field(default_factory=lambda: _home("XDG_DATA_HOME", ".local/share") / "wallets")
    """Folder of encrypted wallets."""
    wallet: str = "default"
    """Name of the wallet that commands sign with."""
    password: SecretStr | None = None
    """Password of the wallet; asked for when it is needed and not set."""
    receipts: Path = Field(default_factory=lambda: _home("XDG_STATE_HOME", ".local/state") / "receipts")
    """Folder where receipts are written."""
    anvil: Path | None = None
    """Program of the local chain; the default is the one that `./dev` installs, then `anvil` on the PATH."""
    confirmations: int = Field(default=1, ge=0)
    """Blocks on top of a deal before its task is given out and its secrets may leave (local network)."""
    result_store: str = ""
    """Where a result store keeps content: a folder, `s3://BUCKET/PREFIX`, or `ipfs+http://HOST:5001`."""
    sms_door: Literal["own", "split", "single"] = "split"
    """What the local network's SMS nodes do with a secret that is pushed whole: refuse, split or keep it."""
    sms_storage_key_file: Path | None = None
    """File, for its owner's eyes only, with the key that encrypts SMS databases (32 bytes, hexadecimal)."""
    sms_storage_key_command: str = ""
    """Program that prints that key, such as a KMS's client; `{node}` in it becomes the node's name."""
    sms_witness_rpc: str = ""
    """Second JSON-RPC endpoint: SMS nodes release nothing unless it shows the same chain."""
    sms_platforms: str = ""
    """Ids of the only TEE platforms that SMS nodes trust, in hexadecimal, separated by commas; empty: all."""
    sms_banned_platforms: str = ""
    """Ids of TEE platforms that SMS nodes never trust."""
    sms_min_tcb_evaluation: int = Field(default=0, ge=0)
    """Least evaluation number of the collateral by which SMS nodes judge evidence."""
    market_rate_limit: int = Field(default=100, ge=0)
    """Requests that a client on another machine may send a market in a period; 0: no limit."""
    market_rate_period: float = Field(default=60.0, gt=0)
    """Seconds of that period."""
    market_proxies: str = "127.0.0.0/8,::1/128"
    """Networks of the proxies whose word a market takes on where a request came from, with commas."""
    market_private_webhooks: bool = False
    """Whether webhooks may lead to addresses that are not of the public internet, and by plain HTTP."""
    registries: str = ""
    """URLs of registries of images in one's own network, with commas; any app may name images there."""
    registry_credentials: Path | None = None
    """File with users and passwords for registries, as Docker's `config.json`."""
    worker_driver: str = "bubblewrap"
    """What the local network's workers run guests in."""
    worker_slots: int = Field(default=1, ge=1)
    """Guests that each of them runs at a time; they divide the memory, processors and disk below evenly."""
    worker_memory: ByteSize | None = None
    """Memory that all guests on this machine have together; the default is three quarters of its own."""
    worker_cpus: float | None = Field(default=None, gt=0)
    """Processors that all guests have together; the default is all that there are."""
    worker_processes: int = Field(default=256, ge=1)
    """Processes and threads that each guest may have."""
    worker_disk: ByteSize = ByteSize(0)
    """Disk space that all guests have together for their files, in place of memory; 0: none."""
    worker_image_size: ByteSize | None = None
    """Largest image of an app that is run, unpacked."""
    worker_dataset_size: ByteSize | None = None
    """Largest dataset, or input file, that is taken."""
    worker_output_size: ByteSize | None = None
    """Most bytes that an app may leave as its result."""
    worker_network: Literal["off", "declared"] = "off"
    """Whether apps may reach the hosts that they declare, through the local network's workers."""
    key_file: Path | None = None
    """File, for its owner's eyes only, with the key that a service of `sealdeal run` signs with."""
    database: SecretStr | None = None
    """URL of that service's database; the default is an SQLite file in `state`."""
    listen: str = "127.0.0.1:0"
    """HOST:PORT at which it answers; port 0: a free one."""
    public_url: str = ""
    """Its URL, as others reach it; the default is the one that it listens at."""
    origin: int = Field(default=0, ge=0)
    """A block before the network's contracts were deployed: earlier ones are not read."""
    platform: Path | None = None
    """File of the simulated TEE platform that a worker of a simulated network pretends to have."""
    schedulers: str = ""
    """URLs of the pool's schedulers, with commas: a worker turns to the next when one does not answer."""
    offers: str = ""
    """What a scheduler keeps on offer: CATEGORY:PRICE:TASKS, with commas."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "warning"
    """Least severe message that services write to standard error."""

    def network_file(self) -> Path:
        """Where the network that commands work with is described."""
        return self.network or self.state / "network.json"
