"""`sealdeal units`: a network of many processes, as keys, settings, systemd units and a compose file."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cyclopts import App

from sealdeal.chain import (
    Addresses,
    DeployOptions,
    Hub,
    QuorumTerms,
    Rpc,
    Sender,
    Wallet,
    deploy,
    deploy_quorum,
)
from sealdeal.chain.local import give_gas_money, is_development_chain
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key
from sealdeal.model.types import RLC, Address, address, hexstr
from sealdeal.sdk.keyfile import parse_key, private_text
from sealdeal.sdk.network import Network, Services
from sealdeal.tee import SimulatedPlatform

from .session import AsJson, Words, show

units = App(name="units", help="Write keys, settings, systemd units and a compose file for many processes.")

PORTS = {"results": 7100, "sms": 7200, "market": 7300, "pool": 7400}
"""First port of each kind of service."""
STAKE = 10_000 * RLC
"""Put in escrow for the workerpool on a development chain."""


@dataclass(frozen=True)
class Instance:
    """One process."""

    service: str
    name: str
    key: str
    """Name of its key: the schedulers of one pool have one."""
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@units.default
async def write(
    folder: Path,
    *,
    rpc_url: str,
    hub: str | None = None,
    quorum: str | None = None,
    dataprotector: str | None = None,
    workerpool: str | None = None,
    database: str = "",
    host: Words = (),
    market: int = 1,
    pool: int = 1,
    sms: int = 3,
    threshold: int = 2,
    worker: int = 2,
    origin: int = 0,
    json: AsJson = False,
) -> None:
    """Write all that a network of `sealdeal run` processes needs into a folder; what is there is kept.

    On a development chain the contracts are deployed and every key gets money. On another one, without
    --hub, keys are made, and the accounts to fund and the command that deploys are told.

    Parameters
    ----------
    folder
        `keys/`, `network.json`, one `.env` and one state folder for each process, `systemd/`, `compose.yaml`.
    rpc_url
        The chain's node.
    hub
        The hub that was deployed with these SMS nodes' addresses as its quorum; or one without a TEE broker,
        such as the official one.
    quorum
        The quorum of these SMS nodes beside a hub without a broker; on a development chain one is deployed.
    dataprotector
        The DataProtector that was deployed with it, which its market's subgraph then follows.
    workerpool
        The pool to schedule for, owned by `keys/pool.key`; without it one is registered.
    database
        URL in which `{service}` becomes `market`, `pool`, `results`, `sms_0`…; SQLite files when empty.
    host
        Where processes run: an address for all, or NAME=ADDRESS (`market-0=10.0.0.3`). Default: 127.0.0.1.
    market
        How many market nodes.
    pool
        How many schedulers of the pool.
    sms
        How many SMS nodes.
    threshold
        How many of them must agree.
    worker
        How many workers.
    origin
        A block before the contracts were deployed.
    """
    if database and "{service}" not in database:
        raise InvalidInput("expected {service} in --database: services do not share a database")
    folder = folder.absolute()
    instances = _instances({"results": 1, "sms": sms, "market": market, "pool": pool, "worker": worker}, host)
    keys = {name: _key(folder, name) for name in dict.fromkeys(one.key for one in instances)}
    async with Rpc(rpc_url, timeout=60.0, patience=60.0) as rpc:
        contracts = await _connected(rpc, hub, quorum, dataprotector) if hub else None
        network = await _network(folder, rpc, contracts, workerpool, instances, keys, threshold)
    if network is None:
        members = " ".join(keys[one.name].address for one in instances if one.service == "sms")
        terms = f"--threshold {threshold} --trust simulated --rpc-url {rpc_url} --wallet NAME"
        if hub:
            first, then = f"sealdeal contracts quorum deploy {members} {terms}", "--quorum too"
        else:
            first, then = f"sealdeal contracts deploy --quorum {members} {terms}", "--hub"
        print(f"fund these accounts, run `{first}`, then this command with {then}", file=sys.stderr)
        show({name: key.address for name, key in keys.items()}, as_json=json)
        return
    _private(folder / "network.json", _public_text(network))
    for one in instances:
        said = dict(_settings(folder, one, instances, network, database, origin))
        (folder / "state" / one.name).mkdir(parents=True, exist_ok=True, mode=0o700)
        _private(folder / f"{one.name}.env", "".join(f"{key}={value}\n" for key, value in said.items()))
    for made in ("systemd", "cache"):
        (folder / made).mkdir(exist_ok=True)
    for name, text in _systemd(folder, instances, root=os.geteuid() == 0):
        (folder / "systemd" / name).write_text(text)
    (folder / "compose.yaml").write_text(_compose(folder, instances))
    show(
        {"network": str(folder / "network.json"), **{one.name: _where(one, keys) for one in instances}},
        as_json=json,
    )


def _where(one: Instance, keys: Mapping[str, Key]) -> str:
    return keys[one.key].address if one.service == "worker" else one.url


def _instances(counts: Mapping[str, int], hosts: tuple[str, ...]) -> list[Instance]:
    everywhere = [text for text in hosts if "=" not in text]
    if len(everywhere) > 1:
        raise InvalidInput(f"expected one --host for all, got {' and '.join(everywhere)}")
    at = dict(text.split("=", 1) for text in hosts if "=" in text)
    found = []
    for service, count in counts.items():
        if not 1 <= count <= 100:
            raise InvalidInput(f"expected 1 to 100 of {service}, got {count}")
        for number in range(count):
            name = f"{service}-{number}" if service != "results" else service
            where = at.pop(name, (everywhere or ["127.0.0.1"])[0])
            port = PORTS.get(service, 0) + number if service in PORTS else 0
            found.append(Instance(service, name, "pool" if service == "pool" else name, where, port))
    if at:
        raise InvalidInput(f"expected --host of a process of this network, got {', '.join(at)}")
    return found


def _key(folder: Path, name: str) -> Key:
    """The key of that name, made now if there is none."""
    path = folder / "keys" / f"{name}.key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for file in (path, path.with_suffix(".storage")):
        if not file.exists() and (file is path or name.startswith("sms-")):
            _private(file, hexstr(Key.generate(secrets.token_bytes).secret) + "\n")
    return Key(parse_key(private_text(path), str(path)))


async def _network(
    folder: Path,
    rpc: Rpc,
    contracts: Addresses | None,
    workerpool: str | None,
    instances: list[Instance],
    keys: Mapping[str, Key],
    threshold: int,
) -> Network | None:
    """The network's document, and what it needs on the chain; None while there are no contracts."""
    urls = [[one.url for one in instances if one.service == kind] for kind in ("market", "pool", "sms")]
    results = next(one.url for one in instances if one.service == "results")
    markets, schedulers, nodes = urls
    services = Services(
        market=markets[0],
        results=results,
        scheduler=schedulers[0],
        sms=tuple(nodes),
        ipfs_gateway=results,
        ipfs_node=results,
        compass=schedulers[0],
        subgraph=f"{markets[0]}/subgraphs/dataprotector",
        poco_subgraph=f"{markets[0]}/subgraphs/poco",
    )
    if (folder / "network.json").exists():
        return replace(Network.load(folder / "network.json"), rpc_url=rpc.url, services=services)
    accounts: dict[str, dict[str, str]] = {}
    develops = await is_development_chain(rpc)
    if develops:
        for key in keys.values():
            await give_gas_money(rpc, key.address)
    if (contracts is None or contracts.quorum is None) and not develops:
        return None
    members = [keys[one.name].address for one in instances if one.service == "sms"]
    terms = QuorumTerms(members, threshold, "simulated")
    if contracts is None:
        funder = _key(folder, "funder")
        contracts = await _found(rpc, funder, _key(folder, "owner"), terms, keys["pool"])
        await Hub(rpc, contracts).using(Sender(rpc, Wallet(keys["pool"]))).deposit(STAKE)
        accounts["funder"] = {"address": funder.address, "key": hexstr(funder.secret)}
    elif contracts.quorum is None:
        beside = await deploy_quorum(Sender(rpc, Wallet(keys["pool"])), terms)
        contracts = replace(contracts, quorum=beside)
    made = address(workerpool) if workerpool else await _workerpool(rpc, contracts, keys["pool"])
    return Network(
        rpc_url=rpc.url,
        chain_id=await rpc.chain_id(),
        contracts=contracts,
        services=services,
        workerpool=made,
        trust="simulated",
        tee_root=hexstr(_platform(folder).root_der),
        accounts=accounts,
    )


async def _connected(rpc: Rpc, hub: str, quorum: str | None, dataprotector: str | None) -> Addresses:
    found = (await Hub.connect(rpc, address(hub))).addresses
    if quorum and found.quorum:
        raise InvalidInput(f"expected no --quorum: the hub {hub} has the TEE broker {found.quorum}")
    beside = address(quorum) if quorum else found.quorum
    return replace(found, quorum=beside, dataprotector=address(dataprotector) if dataprotector else None)


async def _found(rpc: Rpc, funder: Key, owner: Key, terms: QuorumTerms, pool: Key) -> Addresses:
    """Deploy the contracts on a development chain."""
    for key in (funder, owner):
        await give_gas_money(rpc, key.address)
    made = await deploy(Sender(rpc, Wallet(owner)), DeployOptions(holder=funder.address, broker=terms))
    await Hub(rpc, made).using(Sender(rpc, Wallet(funder))).transfer_token(pool.address, STAKE)
    return made


async def _workerpool(rpc: Rpc, contracts: Addresses, pool: Key) -> Address:
    acting = Hub(rpc, contracts).using(Sender(rpc, Wallet(pool)))
    made, _ = await acting.create_workerpool(f"[simulated] workerpool of {pool.address}")
    return made


def _platform(folder: Path) -> SimulatedPlatform:
    path = folder / "keys" / "platform.json"
    if not path.exists():
        _private(path, SimulatedPlatform.generate(int(time.time())).to_json())
    return SimulatedPlatform.from_json(private_text(path))


# --- what is written ------------------------------------------------------------------------------


def _settings(
    folder: Path,
    one: Instance,
    instances: list[Instance],
    network: Network,
    database: str,
    origin: int,
) -> Iterator[tuple[str, str]]:
    """The environment of one process."""
    keys = folder / "keys"
    yield "SEALDEAL_NETWORK", str(folder / "network.json")
    yield "SEALDEAL_STATE", str(folder / "state" / one.name)
    yield "SEALDEAL_CACHE", str(folder / "cache")
    yield "SEALDEAL_KEY_FILE", str(keys / f"{one.key}.key")
    if one.service == "worker":
        yield "SEALDEAL_SCHEDULERS", ",".join(other.url for other in instances if other.service == "pool")
        if network.trust == "simulated":
            yield "SEALDEAL_PLATFORM", str(keys / "platform.json")
        return
    yield "SEALDEAL_LISTEN", f"{one.host}:{one.port}"
    yield "SEALDEAL_PUBLIC_URL", one.url
    if database:
        service = one.name.replace("-", "_") if one.service == "sms" else one.service
        yield "SEALDEAL_DATABASE", database.replace("{service}", service)
    elif [other.service for other in instances].count(one.service) > 1 and one.service != "sms":
        shared = folder / "state" / f"{one.service}.db"
        yield "SEALDEAL_DATABASE", f"sqlite+aiosqlite:///{shared}"
    if one.service in ("market", "pool"):
        yield "SEALDEAL_ORIGIN", str(origin)
    if one.service == "sms":
        yield "SEALDEAL_SMS_DOOR", "split"
        yield "SEALDEAL_SMS_STORAGE_KEY_FILE", str(keys / f"{one.name}.storage")


def _arguments(one: Instance) -> list[str]:
    """Of `sealdeal`: an SMS node that other machines reach is told so: for trials only."""
    away = one.service == "sms" and one.host not in ("127.0.0.1", "::1", "localhost")
    return ["run", one.service, *(["--unsafe-simulated-public"] if away else [])]


_NETWORKED = "After=network-online.target\nWants=network-online.target\n"
_PROTECTED = (
    "CapabilityBoundingSet=\nProtectSystem=strict\nProtectHome=read-only\nPrivateTmp=yes\nPrivateDevices=yes\n"
    "RestrictNamespaces=yes\nLimitNOFILE=65536\n"
)
"""Of a service that only listens, writes its folder and asks others."""
_FOR_WORKERS = "Delegate=yes\nNice=5\n"
"""Their sandboxes make namespaces and control groups of their own."""
_OF_A_USER = "RestrictNamespaces=yes\nLimitNOFILE=65536\n"
"""What a user's own manager can do everywhere."""


def _systemd(folder: Path, instances: list[Instance], *, root: bool) -> Iterator[tuple[str, str]]:
    """Name and text of each unit, and of the target that starts them all: for the machine's manager, or, for
    who is not `root`, for their own (`systemctl --user`)."""
    program = shutil.which("sealdeal") or "/usr/local/bin/sealdeal"
    wanted = " ".join(f"sealdeal-{one.name}.service" for one in instances)
    began, after = ("multi-user.target", _NETWORKED) if root else ("default.target", "")
    yield (
        "sealdeal.target",
        f"[Unit]\nDescription=Sealdeal network\nWants={wanted}\n\n[Install]\nWantedBy={began}\n",
    )
    writable = f"ReadWritePaths={folder / 'state'} {folder / 'cache'}\n"
    others = f"{_PROTECTED}{writable}" if root else _OF_A_USER
    for one in instances:
        yield (
            f"sealdeal-{one.name}.service",
            (
                f"[Unit]\nDescription=Sealdeal {one.name}\n{after}PartOf=sealdeal.target\n\n"
                f"[Service]\nEnvironmentFile={folder / f'{one.name}.env'}\n"
                f"ExecStart={program} {' '.join(_arguments(one))}\n"
                "Restart=always\nRestartSec=2\nNoNewPrivileges=yes\n"
                f"{_FOR_WORKERS if one.service == 'worker' else others}"
                "\n[Install]\nWantedBy=sealdeal.target\n"
            ),
        )


def _compose(folder: Path, instances: list[Instance]) -> str:
    """A compose file: the host's network, so that the same addresses hold; JSON is YAML."""
    services = {
        one.name: {
            "image": "${SEALDEAL_IMAGE:-sealdeal}",
            "entrypoint": ["sealdeal"],
            "command": _arguments(one),
            "env_file": [f"{one.name}.env"],
            "network_mode": "host",
            "restart": "always",
            "volumes": [f"{folder}:{folder}"],
            # a worker makes the namespaces of its sandboxes
            **({"privileged": True} if one.service == "worker" else {"read_only": True, "tmpfs": ["/tmp"]}),
        }
        for one in instances
    }
    return json.dumps({"name": "sealdeal", "services": services}, indent=2) + "\n"


def _public_text(network: Network) -> str:
    return json.dumps(network.to_json(), indent=1) + "\n"


def _private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
