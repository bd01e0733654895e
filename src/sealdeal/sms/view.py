"""What a node believes of the chain: one task at one final block, and whether to believe that block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sealdeal.chain import Hub, Quorum, Rpc
from sealdeal.model.deals import AppInfo, Assignment, DatasetInfo, Deal, Task, TaskStatus, task_id
from sealdeal.model.errors import NotFound
from sealdeal.model.types import ZERO32, Address, Block, Bytes32, address, hexstr
from sealdeal.sdk.sms import (
    AssignmentRefused,
    ChainDisputed,
    ClockBehind,
    DeadlinePassed,
    NotFinalYet,
    NotTeeDeal,
    TaskNotActive,
)

CLOCK_BEHIND = 300
"""Seconds by which a node's clock may be behind its final block. On a clock that was set back certificates
would live longer, and with them evidence whose keys are known."""
WITNESS_AHEAD = 300
"""Seconds by which the witness's final block may be ahead of the node's: then its chain is held back."""

Place = tuple[Bytes32, int]
"""(dealid, index): where a task lies that can't be found by its id, because it has not begun."""
NOWHERE: Place = (ZERO32, 0)


@dataclass(frozen=True, slots=True)
class View:
    """One task as this node's final block shows it."""

    block: Block
    task: Task
    deal: Deal
    app: AppInfo
    dataset: DatasetInfo | None
    nodes: tuple[Address, ...]
    threshold: int


class ChainView:
    """The chain through one RPC, and a second one that is asked whether it tells the same."""

    def __init__(
        self,
        hub: Hub,
        quorum: Quorum,
        confirmations: int,
        clock: Callable[[], float],
        witness: Rpc | None = None,
    ) -> None:
        self.hub, self.quorum, self.confirmations = hub, quorum, confirmations
        self._clock = clock
        self._witness = Hub(witness, hub.addresses) if witness else None

    async def final(self) -> Block:
        """The final block, if the witness has the same one.

        Raises NotFinalYet while the witness has not come so far, ChainDisputed when it has another block
        there, or is far ahead.
        """
        if self._witness is None:
            return await self.hub.final_block(self.confirmations)
        block, ahead = await asyncio.gather(
            self.hub.final_block(self.confirmations), self._witness.final_block(self.confirmations)
        )
        try:
            other = ahead if ahead.number == block.number else await self._witness.block(block.number)
        except NotFound:
            raise NotFinalYet(f"the witness has not seen block {block.number} yet: ask again") from None
        if other.hash != block.hash:
            raise ChainDisputed(
                f"expected one chain, got block {block.number} as {hexstr(block.hash)} here and as "
                f"{hexstr(other.hash)} at the witness: one of the two is on a fork"
            )
        if ahead.timestamp - block.timestamp > WITNESS_AHEAD:
            raise ChainDisputed(
                f"expected the newest chain, got one of {block.timestamp}, and the witness is at "
                f"{ahead.timestamp}: this node's RPC is held back"
            )
        return block

    def check_clock(self, block: Block) -> None:
        """Raises ClockBehind for a clock that was set back."""
        if (now := int(self._clock())) + CLOCK_BEHIND < block.timestamp:
            raise ClockBehind(
                f"expected a clock at {block.timestamp} or later, as the chain's block {block.number} says; "
                f"this node's is at {now}: its operator must set it"
            )

    async def of(self, assignment: Assignment, signer: Address, place: Place) -> View:
        """The task and all around it, once the assignment that `signer` signed deserves it.

        Raises a SecretRefused that says why, or Unavailable (NotFinalYet, ChainDisputed, ClockBehind).
        """
        block = await self.final()
        named = f"task {hexstr(assignment.task)}"
        found = await self._waiting(assignment.task, place, block)
        if found is None:
            if await self._waiting(assignment.task, place, None):
                raise NotFinalYet(
                    f"{named} is not {self.confirmations} blocks deep yet at this node: ask again in a moment"
                )
            status = (await self.hub.task(assignment.task, block)).status
            raise TaskNotActive(f"expected {named} to be ACTIVE, it is {status.name}")
        task, deal = found
        if signer != deal.workerpool.owner:
            raise AssignmentRefused(
                f"expected an assignment of {named} signed by the workerpool's owner "
                f"{deal.workerpool.owner}, got one of {signer}"
            )
        if not deal.tee:
            raise NotTeeDeal(f"expected a deal that asks for a TEE, the tag of {named} is {hexstr(deal.tag)}")
        now = max(int(self._clock()), block.timestamp)
        for what, deadline in (
            ("contribution deadline", task.contribution_deadline),
            ("assignment", assignment.deadline),
        ):
            if now >= deadline:
                raise DeadlinePassed(f"{named}: the {what} ended at {deadline}, it is {now}")
        self.check_clock(block)
        app, *dataset, nodes, threshold = await self.hub.read_many(
            [
                (self.hub.hub, "viewApp", deal.app.pointer),
                *([(self.hub.hub, "viewDataset", deal.dataset.pointer)] if deal.has_dataset else []),
                (self.quorum.contract, "members"),
                (self.quorum.contract, "threshold"),
            ],
            at=block,
        )
        return View(
            block,
            task,
            deal,
            AppInfo(*app),
            DatasetInfo(*dataset[0]) if dataset else None,
            tuple(address(node) for node in nodes),
            int(threshold),
        )

    async def _waiting(self, taskid: bytes, place: Place, at: Block | None) -> tuple[Task, Deal] | None:
        """The task and its deal, if it waits for a result: it is ACTIVE, or has not begun in a batched deal.

        Anyone may begin a task for its gas: what has not begun gets nothing that it could not get then.
        """
        task = await self.hub.task(taskid, at)
        if task.status is TaskStatus.ACTIVE:
            return task, await self.hub.deal(task.dealid, at)
        dealid, index = place
        if task.status is not TaskStatus.UNSET or index < 0 or task_id(dealid, index) != taskid:
            return None
        try:
            deal = await self.hub.deal(dealid, at)
        except NotFound:
            return None
        if not deal.batched or index not in deal.indices():
            return None
        return await self.hub.task_of(deal, index, at), deal
