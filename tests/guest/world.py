"""All that a guest needs around it and that is not ours to test here: SMS nodes and a result store.

The sandboxes, the stream, the relay, the simulated platform and the verifier are the real ones. The nodes
speak the real messages and check the evidence as a node does; they have no chain.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sealdeal.guest.hello import VERSION, BulkPlace, Hello, Limits
from sealdeal.model import streams
from sealdeal.model.bulk import BulkDataset
from sealdeal.model.cid import cid_of
from sealdeal.model.deals import Assignment, Deal, Resource, pool_domain, task_id
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.evidence import Evidence, Manifest, TrustClass, report_data, tdx_registers
from sealdeal.model.keys import Key
from sealdeal.model.orders import TEE_TDX, Params, tag
from sealdeal.model.policy import AllOf, Registers, ReportData, TrustIs
from sealdeal.model.release import Release, SealedItem, grant_digest
from sealdeal.model.results import unzip_result
from sealdeal.model.sealing import (
    Door,
    SecretKind,
    SecretShares,
    owner_challenge,
    release_info,
    seal,
    secrets_domain,
    share_secret,
)
from sealdeal.model.types import ZERO, Address, address, hexstr, unhex
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.images import BuiltImage
from sealdeal.sdk.results import ResultsClient
from sealdeal.sdk.sms import SmsClient
from sealdeal.tee.dcap import DcapVerifier
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker.proxy import Proxy, nothing_offered
from sealdeal.worker.relay import Done, Relay, World
from sealdeal.worker.sandbox import Sandbox

CHAIN_ID = 65432
HUB, QUORUM, APP, DATASET, CALLBACK = (address(bytes([n]) * 20) for n in range(1, 6))
OWNER, REQUESTER, POOL, WORKER = (Key(bytes([n]) * 32) for n in (1, 2, 3, 4))
NODE_KEYS = {key.address: key for key in (Key(bytes([n]) * 32) for n in (11, 12, 13))}
NODES = tuple(sorted(NODE_KEYS, key=str.lower))
UNTIL = 2_000_000_000

Answer = tuple[int, Any]


@dataclass
class Node:
    """One SMS node's two routes for guests."""

    key: Key
    platform: SimulatedPlatform
    release: bytes
    app_checksum: bytes
    expected: Callable[[str], Manifest]
    result_key: str = ""
    secrets: list[tuple[str, str, SecretShares | None, bytes, bytes]] = field(default_factory=list)
    """(kind, name, document, owner's signature, share or whole value)."""
    missing: tuple[tuple[str, str], ...] = ()
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(48))
    asked: list[str] = field(default_factory=list)
    misbehave: Callable[[str, Any], Any] | None = None
    """(path, honest answer) -> what is said instead; may be a coroutine."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        status, body = await self.answer(request.url.path, await request.body())
        await Response(body, status)(scope, receive, send)

    async def answer(self, path: str, content: bytes) -> tuple[int, bytes]:
        self.asked.append(path)
        told = json.loads(content)
        try:
            status, said = self.nonces(told) if path == "/tee/nonces" else self.releases(told)
        except SealdealError as refusal:
            status, said = refusal.status, {"error": str(refusal), "code": refusal.code}
        if self.misbehave is not None:
            said = self.misbehave(path, said)
            if asyncio.iscoroutine(said):
                said = await said
            status, said = said if isinstance(said, tuple) else (status, said)
        return status, json.dumps(said).encode()

    def nonces(self, told: Any) -> Answer:
        Assignment.from_json(told["assignment"])
        key = self.result_key
        return 200, {
            "node": self.key.address,
            "nonce": hexstr(self.nonce),
            "expires": UNTIL,
            "beneficiaryKey": key,
        }

    def releases(self, told: Any) -> Answer:
        manifest = Manifest.from_json(told["manifest"])
        assert self.expected(self.result_key).differences(manifest) == []
        public, enclave = unhex(told["hpkeKey"]), address(told["enclave"])
        nonces = [(address(n["node"]), unhex(n["nonce"])) for n in told["nonces"]]
        assert dict(nonces)[self.key.address] == self.nonce
        now = int(time.time())
        claims = DcapVerifier(self.platform.root_der).verify(Evidence.from_json(told["evidence"]), now)
        AllOf(
            TrustIs(TrustClass.SIMULATED),
            Registers.exactly(tdx_registers(self.release, self.app_checksum)),
            ReportData(report_data(manifest.hash(), public, enclave, nonces)),
        ).check(claims, now)
        items = []
        for kind, name, document, signature, value in self.secrets:
            version = document.version if document else 1
            info = release_info(manifest.hash(), self.key.address, kind, name, version)
            door = Door.OWN if document else Door.SINGLE
            items.append(
                SealedItem(kind, name, version, door, document, signature, seal(public, value, info))
            )
        release = Release(
            node=self.key.address,
            manifest_hash=manifest.hash(),
            hpke_key=public,
            enclave=enclave,
            sealed=tuple(items),
            missing=self.missing,
            valid_until=UNTIL,
            grant=self.key.sign_digest(grant_digest(manifest, enclave, UNTIL)),
        )
        return 200, release.signed(self.key).to_json()


@dataclass
class Store:
    """A result store's routes for guests."""

    archive: bytes = b""
    upload: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)
    misbehave: Callable[[str, int, bytes], tuple[int, bytes]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        status, said = self.answer(request.method, path, await request.body(), request.headers)
        if self.misbehave:
            status, said = self.misbehave(path, status, said)
        await Response(said, status)(scope, receive, send)

    def answer(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if method != "GET" and headers.get("authorization") != "the token":
            return 401, b"who are you?"
        if (method, path) == ("POST", "/v1/results"):
            self.upload = json.loads(body)
            self.archive = base64.b64decode(self.upload.pop("zip"))
            return 200, f"/ipfs/{cid_of(self.archive)}".encode()
        parts = urlsplit(path)
        if method == "PUT" and parts.path.endswith("/archive"):
            told = dict(parse_qsl(parts.query))
            self.upload = {"chainTaskId": parts.path.split("/")[3], "deterministHash": told["digest"]}
            self.upload["enclaveSignature"] = told["signature"]
            self.archive = body
            return 200, f"/ipfs/{cid_of(self.archive)}".encode()
        if method == "PUT" and path.endswith("/proof"):
            self.proof = json.loads(body)
            return 204, b""
        receipt = {
            "task": self.upload["chainTaskId"],
            "worker": WORKER.address,
            "cid": cid_of(self.archive),
            "sha256": hexstr(hashlib.sha256(self.archive).digest()),
            "size": str(len(self.archive)),
            "timestamp": "1",
        }
        return 200, json.dumps({"receipt": receipt, "store": ZERO, "signature": "0x"}).encode()


@dataclass
class Scene:
    """One attempt at one task, about to be made."""

    image: BuiltImage
    release: GuestRelease
    sandbox: Sandbox
    platform: SimulatedPlatform
    params: Params = field(default_factory=Params)
    dataset: bytes | None = None
    form: streams.Format = streams.Format.STANDARD
    """How the dataset is encrypted."""
    folder: Path = Path()
    seconds: int = 20
    callback: Address = ZERO
    bits: int = TEE_TDX
    """The deal's tag. Without a TEE the dataset lies as it is, and no node is there."""
    promised: bytes | None = None
    """The dataset's checksum on chain, if not that of its file."""
    result_key: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    threshold: int = 2
    wanted: tuple[tuple[str, str], ...] = ()
    nodes: dict[Address, Node] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    bulk: tuple[BulkPlace, ...] = ()
    """What the worker says of the datasets in the task's slice."""
    datasets: tuple[BulkDataset, ...] = ()
    """What the nodes know of them."""
    network: Callable[[], Awaitable[Proxy]] = nothing_offered
    files: dict[str, Path] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    encrypted: bytes = b""
    patience: float = 60
    """Seconds that an attempt may take."""

    def __post_init__(self) -> None:
        none = Resource(ZERO, ZERO, 0)
        data = Resource(DATASET, OWNER.address, 3) if self.dataset is not None else none
        self.deal = Deal(
            dealid=b"\x09" * 32,
            app=Resource(APP, OWNER.address, 2),
            dataset=data,
            workerpool=Resource(address(bytes([7]) * 20), POOL.address, 5),
            trust=1,
            category=0,
            tag=tag(self.bits),
            requester=REQUESTER.address,
            beneficiary=REQUESTER.address,
            callback=self.callback,
            params=self.params.to_text(),
            start_time=1,
            bot_first=4,
            bot_size=3,
            worker_stake=0,
            scheduler_reward_ratio=1,
            sponsor=REQUESTER.address,
        )
        self.task = task_id(self.deal.dealid, 5)
        self.files["image"] = self.image.archive
        self.nodes = {
            node: Node(
                key, self.platform, self.release.digest, self.image.checksum, self.manifest, self.result_key
            )
            for node, key in NODE_KEYS.items()
        }
        for node in self.nodes.values():
            node.missing = self.wanted
        if self.dataset is not None:
            key = streams.new_key(self.form, secrets.token_bytes)
            self.encrypted = self.dataset
            if self.deal.tee:
                self.encrypted = b"".join(streams.encrypt([self.dataset], key, secrets.token_bytes))
            self.files["dataset"] = self.folder / "dataset.enc"
            self.files["dataset"].write_bytes(self.encrypted)
            self.split(SecretKind.DATASET_KEY, DATASET, "", key.encode())

    def split(
        self, kind: str, subject: Address, name: str, value: bytes, owner: Key = OWNER, shown: str = ""
    ) -> None:
        """Give each node its share of a secret, to be `shown` under its name if not under another."""
        document, shares = share_secret(
            value,
            kind=kind,
            subject=subject,
            name=name,
            version=1,
            threshold=2,
            nodes=NODES,
            rng=secrets.token_bytes,
        )
        signature = owner.sign_digest(digest(secrets_domain(CHAIN_ID, HUB), document))
        for node, share in shares.items():
            self.nodes[node].secrets.append((kind, shown or name, document, signature, share))

    def give(self, node: Address, kind: str, subject: Address, name: str, value: bytes, owner: Key) -> None:
        """Give one node a whole secret."""
        signature = owner.sign_message(owner_challenge(kind, subject, name, value))
        self.nodes[node].secrets.append((kind, name, None, signature, value))

    @property
    def hello(self) -> Hello:
        assignment = Assignment(self.task, WORKER.address, 1, UNTIL)
        checksum = hashlib.sha256(self.encrypted).digest() if self.dataset is not None else bytes(32)
        vouched = self.deal.tee
        return Hello(
            version=VERSION,
            chain_id=CHAIN_ID,
            hub=HUB,
            quorum=QUORUM if vouched else ZERO,
            nodes=NODES if vouched else (),
            threshold=self.threshold if vouched else 0,
            deal=self.deal,
            index=5,
            worker=WORKER.address,
            attempt=1,
            app_multiaddr="/ipfs/the-image",
            app_checksum=self.image.checksum,
            dataset_multiaddr="/ipfs/the-data" if self.dataset is not None else "",
            dataset_checksum=checksum if self.promised is None else self.promised,
            assignment=assignment,
            signature=POOL.sign_digest(digest(pool_domain(CHAIN_ID, HUB), assignment)),
            limits=dataclasses.replace(Limits(seconds=self.seconds), **self.limits),
            bulk=self.bulk,
        )

    def manifest(self, result_key: str) -> Manifest:
        return self.hello.manifest(result_key, self.datasets)

    async def run(self) -> Done:
        """Start a guest and serve it. Raises AttemptFailed."""

        async def evidence(data: bytes) -> Evidence:
            registers = self.platform.measure(self.release.digest, self.image.checksum)
            return self.platform.evidence(data, registers, int(time.time()))

        async def login(enclave: Address, blob: bytes) -> str:
            assert len(blob) == (32 + 65 * self.threshold if self.deal.tee else 0)
            assert (enclave != ZERO) == self.deal.tee
            return "the token"

        def fetched(path: Path) -> Callable[[], Any]:
            async def get() -> Path:
                if not path.exists():
                    raise InvalidInput("there is no such content")
                return path

            return get

        world = World(
            evidence=evidence,
            files={name: fetched(path) for name, path in self.files.items()},
            nodes={
                address: SmsClient("http://node", in_memory(node)) for address, node in self.nodes.items()
            },
            results=ResultsClient("http://results", in_memory(self.store)),
            login=login,
            network=self.network,
        )
        guest = await self.sandbox.start(0)
        try:
            async with asyncio.timeout(self.patience):
                return await Relay(guest, world, lambda s: self.statuses.append(dict(s))).run(self.hello)
        finally:
            await guest.kill()

    def result(self) -> dict[str, bytes]:
        """The files of an unencrypted result."""
        return unzip_result(self.store.archive)
