"""The result store's messages and its typed client.

Results are bound to a task (wire.md §3.1); everything else is plain content by CID, as an IPFS node and
its gateway serve it (§3.2). The client trusts no store: what it uploads and downloads is hashed here too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealdeal.model.cid import (
    CHUNK,
    CidHasher,
    block_cid,
    cid_in,
    cid_of,
    cid_version,
    dag_size,
    directory_block,
    directory_links,
    parse_cid,
    path_in,
)
from sealdeal.model.deals import authorisation_message
from sealdeal.model.eip712 import Address, Bytes32_, Domain, String, Typed, Uint256, digest
from sealdeal.model.errors import BadSignature, IntegrityError, InvalidInput, NotFound, TooLarge
from sealdeal.model.keys import Key, recover_digest
from sealdeal.model.results import JSON_ARCHIVE_BYTES
from sealdeal.model.types import Address as AddressType
from sealdeal.model.types import address, bytes32, hexstr, unhex

from .http import Client, Transport

UPLOAD_LIMIT = 64 << 20
"""Bytes of an upload's JSON body; as base64 it carries an archive of 48 MiB."""
ARCHIVE_LIMIT = 16 << 30
"""Bytes of an archive that is sent as it is."""
ADD_LIMIT = 16 << 30
"""Bytes of one file given to `add`."""
PROOF_LIMIT = 1 << 20
"""Bytes of a proof's canonical JSON."""
FETCH_LIMIT = 64 << 20
"""Bytes that `fetch` keeps in memory unless told otherwise."""


@dataclass(frozen=True)
class StorageReceipt(Typed):
    """The store says that it holds a task's result. Signed on `store_domain`."""

    task: Bytes32_
    worker: Address
    cid: String
    sha256: Bytes32_
    """Of the archive's bytes."""
    size: Uint256
    """Bytes of the archive."""
    timestamp: Uint256
    """Seconds since 1970, by the store's clock."""


def store_domain(chain_id: int, hub: AddressType) -> Domain:
    """Where storage receipts count."""
    return Domain("Sealdeal Store", "1", chain_id, hub)


@dataclass(frozen=True)
class SignedReceipt:
    """A storage receipt, who gave it, and the 65-byte signature."""

    receipt: StorageReceipt
    store: AddressType
    signature: bytes

    def check(self, domain: Domain) -> None:
        """Raises BadSignature unless `store` signed the receipt."""
        signer = recover_digest(digest(domain, self.receipt), self.signature)
        if signer != self.store:
            raise BadSignature(f"expected the receipt of store {self.store}, it was signed by {signer}")

    def to_json(self) -> dict[str, Any]:
        return {
            "receipt": self.receipt.to_json(),
            "store": self.store,
            "signature": hexstr(self.signature),
        }

    @classmethod
    def from_json(cls, value: Any) -> SignedReceipt:
        """The opposite of `to_json`. Raises InvalidInput."""
        if not isinstance(value, Mapping) or not {"receipt", "store", "signature"} <= set(value):
            raise InvalidInput(f"expected an object with receipt, store and signature, got {value!r}")
        receipt = StorageReceipt.from_json(value["receipt"])
        return cls(receipt, address(value["store"]), unhex(value["signature"]))


@dataclass(frozen=True)
class Authorisation:
    """The wire's WorkerpoolAuthorization: (worker, task, enclave) may contribute (poco.md §4).

    `signature` is the broker quorum's blob for an enclave, or the pool owner's for none.
    """

    task: bytes
    worker: AddressType
    enclave: AddressType
    signature: bytes
    dealid: bytes = bytes(32)
    index: int = 0

    @property
    def message(self) -> bytes:
        """The 32 bytes that are personally signed: by the broker here, by the worker to ask for a token."""
        return authorisation_message(self.worker, self.task, self.enclave)

    def to_json(self) -> dict[str, Any]:
        """wire.md §2.1."""
        return {
            "chainTaskId": hexstr(self.task),
            "dealId": hexstr(self.dealid),
            "taskIndex": self.index,
            "workerWallet": self.worker,
            "enclaveChallenge": self.enclave,
            "signature": {"value": hexstr(self.signature)},
        }

    @classmethod
    def from_json(cls, value: Any) -> Authorisation:
        """The opposite of `to_json`. Raises InvalidInput, naming what is wrong."""
        try:
            deal, index = value.get("dealId"), value.get("taskIndex", 0)
            if not isinstance(index, int) or index < 0:
                raise InvalidInput(f"expected taskIndex to be an integer from 0, got {index!r}")
            return cls(
                task=bytes32(value["chainTaskId"]),
                worker=address(value["workerWallet"]),
                enclave=address(value["enclaveChallenge"]),
                signature=unhex(value["signature"]["value"]),
                dealid=bytes32(deal) if deal else bytes(32),
                index=index,
            )
        except (KeyError, TypeError, AttributeError):
            raise InvalidInput(
                "expected a WorkerpoolAuthorization {chainTaskId, dealId, taskIndex, workerWallet, "
                f"enclaveChallenge, signature: {{value}}}}, got {str(value)[:200]}"
            ) from None


def content_key(cid: str) -> tuple[int, bytes]:
    """(codec, sha-256 digest): what a CID says, however it is spelt. Raises InvalidInput when it is none."""
    raw = parse_cid(cid)
    return (0x70 if len(raw) == 34 else raw[1]), raw[-32:]


class ContentCheck:
    """Feeds on the bytes that should be the content of `cid`; `verify` raises IntegrityError otherwise."""

    def __init__(self, cid: str) -> None:
        self.cid, self._key = cid, content_key(cid)
        # CIDv1 may spell a file that was built with either kind of leaf; raw ones are the rule.
        versions = (0,) if cid_version(cid) == 0 else (1, 0)
        self._hashers = [CidHasher(version) for version in versions]

    def update(self, data: bytes) -> None:
        for hasher in self._hashers:
            hasher.update(data)

    def verify(self) -> None:
        """Call it after the last byte."""
        found = [hasher.cid() for hasher in self._hashers]
        if self._key not in map(content_key, found):
            raise IntegrityError(f"expected the content of {self.cid}, the bytes that came are {found[0]}")


class ResultsClient(Client):
    """A result store, by URL or in memory."""

    def __init__(self, base_url: str, transport: Transport | None = None, timeout: float = 60.0) -> None:
        super().__init__(base_url, transport, timeout)

    async def version(self) -> str:
        return (await self.request("GET", "/version")).text

    async def token(self, authorisation: Authorisation, key: Key) -> str:
        """A token to upload with. `key` is the worker's wallet, to which the authorisation was given.

        The store checks the authorisation on chain and keeps it. Raises Unauthorized.
        """
        headers = {"Authorization": hexstr(key.sign_message(authorisation.message))}
        body = authorisation.to_json()
        return (await self.request("POST", "/v1/results/token", json=body, headers=headers)).text

    async def upload(
        self,
        token: str,
        *,
        task: bytes,
        digest: bytes,
        enclave_signature: bytes,
        archive: bytes,
        dealid: bytes = bytes(32),
        index: int = 0,
    ) -> str:
        """Store a result archive; returns its location `/ipfs/CID`, checked against the bytes.

        Raises Unauthorized when the chain, the authorisation or the enclave's signature do not allow it,
        IntegrityError when the store names other content.
        """
        if len(archive) > JSON_ARCHIVE_BYTES:
            raise TooLarge(
                f"a result archive may have {JSON_ARCHIVE_BYTES} bytes in this form, got {len(archive)}: "
                "send it with upload_archive"
            )
        body = {
            "chainTaskId": hexstr(task),
            "dealId": hexstr(dealid),
            "taskIndex": index,
            "deterministHash": hexstr(digest),
            "enclaveSignature": hexstr(enclave_signature),
            "zip": base64.b64encode(archive).decode(),
        }
        answer = await self.request("POST", "/v1/results", json=body, headers={"Authorization": token})
        location, own = answer.text.strip(), cid_of(archive)
        if content_key(cid_in(location)) != content_key(own):
            raise IntegrityError(f"expected the store to answer /ipfs/{own}, it said {location[:100]}")
        return location

    async def upload_archive(
        self, token: str, *, task: bytes, digest: bytes, enclave_signature: bytes, archive: Path
    ) -> str:
        """`upload` of an archive of any size, streamed from disk as it is. Raises as `upload`."""
        query = {"digest": hexstr(digest), "signature": hexstr(enclave_signature)}
        hasher = CidHasher()

        async def body() -> AsyncIterator[bytes]:
            with archive.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, CHUNK * 4):
                    await asyncio.to_thread(hasher.update, piece)
                    yield piece

        headers = {"Authorization": token, "Content-Type": "application/zip"}
        path = f"/v1/results/{hexstr(task)}/archive"
        answer = await self.request("PUT", path, params=query, content=body(), headers=headers)
        location, own = answer.text.strip(), hasher.cid()
        if content_key(cid_in(location)) != content_key(own):
            raise IntegrityError(f"expected the store to answer /ipfs/{own}, it said {location[:100]}")
        return location

    async def uploaded(self, token: str, task: bytes) -> bool:
        """Whether the store holds a result of this task."""
        try:
            await self.request("HEAD", f"/v1/results/{hexstr(task)}", headers={"Authorization": token})
        except NotFound:
            return False
        return True

    async def link(self, task: bytes) -> str:
        """`/ipfs/CID` of a task's result. Raises NotFound."""
        found = (await self.request("GET", f"/v1/results/{hexstr(task)}/ipfshash")).text.strip()
        return found if found.startswith("/ipfs/") else f"/ipfs/{found}"

    async def receipt(self, task: bytes, worker: AddressType | None = None) -> SignedReceipt:
        """The store's receipt for a task's result. Check its signature with `SignedReceipt.check`."""
        query = {"worker": worker} if worker else {}
        return SignedReceipt.from_json(
            await self.json("GET", f"/v1/results/{hexstr(task)}/receipt", params=query)
        )

    async def put_proof(self, token: str, task: bytes, proof: Mapping[str, Any]) -> None:
        """Publish a task's attestation bundle, once. Raises Conflict when another one is there."""
        headers = {"Authorization": token}
        await self.request("PUT", f"/v1/results/{hexstr(task)}/proof", json=dict(proof), headers=headers)

    async def proof(self, task: bytes, worker: AddressType | None = None) -> dict[str, Any]:
        """A task's public attestation bundle. Raises NotFound."""
        query = {"worker": worker} if worker else {}
        found = await self.json("GET", f"/v1/results/{hexstr(task)}/proof", params=query)
        if not isinstance(found, dict):
            raise IntegrityError(f"expected a proof object, got {str(found)[:100]}")
        return found

    async def add(self, source: bytes | Path, name: str = "file", version: int = 0) -> str:
        """Store a file, streamed from disk; returns its CID, which is computed here and compared.

        Raises IntegrityError when the store names other content, TooLarge over its limit.
        """
        query = {"cid-version": str(version)}
        if isinstance(source, bytes):
            own = await asyncio.to_thread(cid_of, source, version)
            answer = await self.request("POST", "/api/v0/add", params=query, files={"file": (name, source)})
        else:
            own = await asyncio.to_thread(lambda: cid_of(file_pieces(source), version))
            with source.open("rb") as file:
                answer = await self.request("POST", "/api/v0/add", params=query, files={"file": (name, file)})
        found = str(_last_json(answer.text).get("Hash"))
        if found != own:
            raise IntegrityError(f"expected the store to answer {own}, it said {found[:100]}")
        return found

    async def put_directory(self, entries: Mapping[str, str]) -> str:
        """Store a directory of files that lie in the store (name -> CID, version 0); returns its CID.

        Raises NotFound when one of them is not there, IntegrityError when the store names other content.
        """
        sizes = await asyncio.gather(*map(self.size, entries.values()))
        block = directory_block(
            {name: (cid, dag_size(size)) for (name, cid), size in zip(entries.items(), sizes, strict=True)}
        )
        query, files = {"cid-codec": "dag-pb", "mhtype": "sha2-256"}, {"file": ("directory", block)}
        answer = await self.request("POST", "/api/v0/block/put", params=query, files=files)
        found, own = str(_last_json(answer.text).get("Key")), block_cid(block)
        if content_key(found) != content_key(own):
            raise IntegrityError(f"expected the store to answer {own}, it said {found[:100]}")
        return own

    async def cid_at(self, location: str) -> str:
        """The CID of what lies at `/ipfs/CID`, or `/ipfs/CID/NAME`, as the directory's verified block says.

        Raises InvalidInput, NotFound, IntegrityError.
        """
        cid, name = path_in(location)
        if not name:
            return cid
        block = (await self.request("GET", f"/ipfs/{cid}", params={"format": "raw"})).content
        if content_key(block_cid(block)) != content_key(cid):
            raise IntegrityError(f"expected the block of directory {cid}, other bytes came")
        links = directory_links(block)
        if name not in links:
            raise NotFound(f"there is no {name[:100]!r} in directory {cid}")
        return links[name]

    async def size(self, cid: str) -> int:
        """Bytes of a stored file. Raises NotFound."""
        answer = await self.request("HEAD", f"/ipfs/{cid}")
        return int(answer.headers["content-length"])

    async def pieces(self, cid: str, *, limit: int | None = None) -> AsyncIterator[bytes]:
        """The content of `cid`, piece by piece. What came before the end is not verified until the end:

        the last step raises IntegrityError when the whole is not the CID's content, TooLarge over `limit`.
        """
        check, seen = ContentCheck(cid), 0
        async for piece in self.stream(f"/ipfs/{cid}", headers={"Accept-Encoding": "identity"}):
            seen += len(piece)
            if limit is not None and seen > limit:
                raise TooLarge(f"{cid} is larger than the {limit} bytes allowed here")
            check.update(piece)
            yield piece
        check.verify()

    async def fetch(self, cid: str, *, limit: int = FETCH_LIMIT) -> bytes:
        """The verified content of `cid`, in memory. Raises NotFound, TooLarge, IntegrityError."""
        return b"".join([piece async for piece in self.pieces(cid, limit=limit)])

    async def download(self, cid: str, to: Path, *, limit: int | None = None) -> int:
        """Write the verified content of `cid` to the file `to` (all of it or nothing); returns its size.

        Raises NotFound, TooLarge, IntegrityError.
        """
        temporary = to.with_name(f".{secrets.token_hex(8)}.partial")
        size = 0
        try:
            with temporary.open("xb") as file:
                async for piece in self.pieces(cid, limit=limit):
                    file.write(piece)
                    size += len(piece)
            temporary.replace(to)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return size


def file_pieces(path: Path, size: int = CHUNK * 4) -> Iterator[bytes]:
    """A file's bytes, 1 MiB at a time."""
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def _last_json(lines: str) -> dict[str, Any]:
    try:
        found = json.loads(lines.strip().splitlines()[-1])
    except (ValueError, IndexError):
        found = None
    if not isinstance(found, dict):
        raise IntegrityError(f"expected a line of JSON with a Hash, the store said {lines[:100]!r}")
    return found
