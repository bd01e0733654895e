"""What a task left: its result, fetched, decrypted and checked, and the receipt that proves its origin."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sealdeal.model import results
from sealdeal.model.deals import Deal, Task, TaskStatus
from sealdeal.model.errors import Conflict, IntegrityError, InvalidInput, NotFound
from sealdeal.model.policy import ReportData
from sealdeal.model.receipts import Receipt
from sealdeal.model.types import ZERO, Bytes32, address, hexstr, unhex
from sealdeal.tee import DcapVerifier

from .archives import unpack_result
from .assets import Assets
from .results import ARCHIVE_LIMIT, SignedReceipt, store_domain

RESULT_LIMIT = 512 << 20
"""Bytes of a result archive that are held in memory."""


@dataclass(frozen=True)
class Result:
    """A task's decrypted result and the receipt that proves where it comes from."""

    files: dict[str, bytes]
    """The archive's files; the app's own next to computed.json, stdout.txt and stderr.txt."""
    receipt: Receipt | None
    """None for a result without an enclave's statement (of a deal without a TEE, or another network's)."""


@dataclass(frozen=True)
class SavedResult:
    """A task's decrypted result in a folder."""

    files: tuple[str, ...]
    """Relative names, sorted."""
    receipt: Receipt | None


@dataclass(frozen=True)
class Completed:
    """A completed task, and where its result lies."""

    task: Task
    deal: Deal
    receipt: Receipt | None
    cid: str

    def check_form(self, digest: str) -> None:
        """Raises IntegrityError when a sealed digest was asked for and the chain shows a plain one."""
        if self.receipt is not None and self.receipt.sealed_digest and digest != "sealed":
            raise IntegrityError("the deal asks for a sealed digest, and the one on chain is plain")


class Receiving(Assets):
    """Results and receipts of tasks. Part of `client.Sealdeal`."""

    async def result(self, taskid: Bytes32, private_key: bytes | None = None) -> Result:
        """Fetch a completed task's result, decrypt it, and check what the enclave signed.

        `private_key`: PEM of the beneficiary's key, for an encrypted result. Raises NotFound for a task
        without a result, IntegrityError when anything differs from what was signed.
        """
        found = await self._found(taskid)
        archive = await self.results.fetch(found.cid, limit=RESULT_LIMIT)
        if not results.is_encrypted_result(archive):
            files = results.unzip_result(archive)
        elif private_key is None:
            raise InvalidInput("the result is encrypted for its beneficiary: give the private key")
        else:
            files = results.decrypt_result(archive, private_key)
        plain, seal = results.digest_of(files), files.get(results.SEAL_ENTRY)
        form = results.check_digest(plain, seal, found.task.result_digest, found.deal.settled_digest)
        found.check_form(form)
        if form == "sealed":
            files.pop(results.PADDING_ENTRY, None)
        return Result(files, found.receipt)

    async def save_result(
        self, taskid: Bytes32, folder: Path, private_key: bytes | None = None
    ) -> SavedResult:
        """`result` of any size: written into the new folder `folder`, all of it and checked, or nothing."""
        if folder.exists():
            raise Conflict(f"{folder} exists already: a result is written into a new folder")
        found = await self._found(taskid)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".sealdeal-") as aside:
            archive = Path(aside) / "archive"
            await self.results.download(found.cid, archive, limit=ARCHIVE_LIMIT)
            unpacked = await asyncio.to_thread(
                unpack_result,
                archive,
                Path(aside) / "files",
                expected=found.task.result_digest,
                settled=found.deal.settled_digest,
                private_key=private_key,
            )
            found.check_form(unpacked.digest)
            (Path(aside) / "files").rename(folder)
        return SavedResult(unpacked.files, found.receipt)

    async def _found(self, taskid: Bytes32) -> Completed:
        task = await self.hub.task(taskid)
        if task.status is not TaskStatus.COMPLETED:
            raise NotFound(f"task {hexstr(taskid)} has no result: it is {task.status.name}")
        receipt, deal = await asyncio.gather(self.receipt(task), self.hub.deal(task.dealid))
        cid = await self.results.cid_at(results.result_location(task.results))
        return Completed(task, deal, receipt, cid)

    async def receipt(self, task: Task) -> Receipt | None:
        """The verified receipt of a completed task; None when no enclave vouches for it on chain."""
        worker = task.contributors[0]
        if (await self.hub.contribution(task.taskid, worker)).enclave == ZERO:
            return None
        proof = await self.results.proof(task.taskid, worker)
        deal, matched = await asyncio.gather(self.hub.deal(task.dealid), self.market.deal(task.dealid))
        settled = await self.hub.settlement(task.taskid, matched.block_number)
        receipt = Receipt(
            version=1,
            trust=self.network.trust,
            chain_id=self.network.chain_id,
            hub=self.network.contracts.hub,
            quorum=self.network.contracts.quorum or ZERO,
            dealid=hexstr(task.dealid),
            taskid=hexstr(task.taskid),
            worker=worker,
            price=deal.price,
            digest=hexstr(task.result_digest),
            results=task.results.decode(errors="replace"),
            transaction=hexstr(settled.tx_hash),
            block=settled.block.number,
            proof=proof,
        )
        await self.verify(receipt)
        return receipt

    async def verify(self, receipt: Receipt) -> None:
        """Check a receipt against the chain, and its evidence against the root this network trusts.

        The evidence is judged at the time of the transaction that settled the task: its collateral expires.
        Raises IntegrityError (signatures, chain) or EvidenceRefused (the TEE's evidence).
        """
        nodes = receipt.check()
        taskid, quorum = unhex(receipt.taskid), self.quorum
        settled = await self.hub.settlement(taskid, receipt.block)
        task = await self.hub.task(taskid)
        enclave = (await self.hub.contribution(taskid, address(receipt.worker))).enclave
        for what, told, found in (
            ("transaction", receipt.transaction, hexstr(settled.tx_hash)),
            ("digest", receipt.digest, hexstr(task.result_digest)),
            ("results", receipt.results, task.results.decode(errors="replace")),
            ("enclave", receipt.enclave, enclave),
            ("quorum", receipt.quorum, self.network.contracts.quorum or ZERO),
        ):
            if told != found:
                raise IntegrityError(f"the receipt's {what} is {told}, on chain it is {found}")
        if quorum is not None:
            granted, threshold = nodes & set(await quorum.members()), await quorum.threshold()
            if len(granted) < threshold:
                raise IntegrityError(
                    f"the receipt holds grants of {len(granted)} nodes, {threshold} are needed"
                )
        if (stored := receipt.proof.get("storeReceipt")) is not None:
            SignedReceipt.from_json(stored).check(store_domain(receipt.chain_id, address(receipt.hub)))
        root = unhex(self.network.tee_root) if self.network.tee_root else None
        claims = DcapVerifier(root).verify(receipt.evidence, settled.block.timestamp)
        ReportData(receipt.expected_report_data()).check(claims, settled.block.timestamp)
