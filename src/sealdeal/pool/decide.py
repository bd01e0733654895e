"""What a scheduler does: a pure function of what it sees.

`decide` gets one view (the chain at one block, the workers, the attempts so far) and the time, and
says what to do now. It remembers nothing. Carrying its actions out twice, or in two places, is harmless:
the chain refuses a second initialisation or claim, and an attempt's number is taken once.

A task ends in one of two ways: a worker's contributeAndFinalize completes it, or, once its final deadline
has passed, a claim refunds the requester (and costs the pool its stake; nobody else has to notice). Those
of a batched deal are not begun one by one: workers hand in results, and blocks of them are settled together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sealdeal.model.batches import MAX_TASKS
from sealdeal.model.deals import CONTRIBUTION_RATIO, FINAL_RATIO, Deal, Task, TaskStatus, task_id
from sealdeal.model.orders import tag_bits
from sealdeal.model.types import Address, Block
from sealdeal.sdk.pool import Attempt

from .rules import Rules

SHORTEST_ATTEMPT = 30
"""Seconds that an attempt is given at least, while the contribution deadline allows."""
BATCH = 50
"""Tasks in one transaction: about 4 million gas."""
BLOCK = MAX_TASKS
"""Tasks of a batched deal that are settled together; a page of the deal has two such blocks."""
HASTE = 600
"""Seconds before the contribution deadline at which a block is no longer waited for; less for short tasks."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task of our pool, and what of its deal matters here. Times are seconds of the chain's clock."""

    taskid: bytes
    dealid: bytes
    index: int
    status: TaskStatus
    contributors: tuple[Address, ...]
    contribution_deadline: int
    final_deadline: int
    tag: int
    tee: bool
    trust: int
    worker_stake: int
    """nRLC."""
    batched: bool = False
    block: int = 0
    """Which block of its deal's tasks it is in."""

    @classmethod
    def of(cls, deal: Deal, index: int, task: Task, reference_time: int) -> TaskView:
        """From what the chain shows; an UNSET task's deadlines are those it will get (poco.md §8)."""
        if task.status == TaskStatus.UNSET:
            task = deal.to_begin(index, reference_time)
        return cls(
            taskid=task_id(deal.dealid, index),
            dealid=deal.dealid,
            index=index,
            status=task.status,
            contributors=task.contributors,
            contribution_deadline=task.contribution_deadline,
            final_deadline=task.final_deadline,
            tag=tag_bits(deal.tag),
            tee=deal.tee,
            trust=deal.trust,
            worker_stake=deal.worker_stake,
            batched=deal.batched,
            block=(index - deal.bot_first) // BLOCK,
        )

    @property
    def open(self) -> bool:
        """Whether a worker may work on it."""
        return self.status == TaskStatus.ACTIVE or (self.batched and self.status == TaskStatus.UNSET)

    @property
    def reference_time(self) -> int:
        """Seconds."""
        return (self.final_deadline - self.contribution_deadline) // (FINAL_RATIO - CONTRIBUTION_RATIO)

    @property
    def ended(self) -> bool:
        return self.status in (TaskStatus.COMPLETED, TaskStatus.FAILED)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker that polls, or polled when it got what it still runs."""

    address: Address
    slots: int
    tags: int
    standard: bool
    seen: float
    """When it was last heard of, in seconds since 1970."""
    stake: int = 0
    """Its free stake in the hub, nRLC."""
    running: frozenset[bytes] = frozenset()
    """Tasks that it says it runs, also those whose attempt is over for us."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """An attempt that was made or is being made."""

    task: bytes
    worker: Address
    number: int
    """From 1."""
    deadline: int
    status: Attempt

    @property
    def live(self) -> bool:
        return not self.status.ended

    @property
    def blameless(self) -> bool:
        """It ended because the worker vanished or was told to stop, not because it could not do it."""
        return self.status in (Attempt.WORKER_LOST, Attempt.ABORTED)


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a decision reads: the chain at `block`, and what this pool knows."""

    block: Block
    tasks: tuple[TaskView, ...]
    """Of deals that are recorded for our pool and have not been forgotten."""
    workers: tuple[WorkerView, ...]
    attempts: tuple[AttemptView, ...]
    """All attempts at these tasks, and all live ones."""
    noted: frozenset[tuple[bytes, str]] = frozenset()
    """(task, cause) of notes that were made already."""
    rules: Rules = field(default_factory=Rules)
    handed: frozenset[bytes] = frozenset()
    """Tasks of batched deals whose result was handed in."""


@dataclass(frozen=True, slots=True)
class Initialize:
    """Open these tasks (dealid, index) on chain, in one transaction."""

    tasks: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """Refund the requesters of these tasks, in one transaction."""

    tasks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ClaimUnset:
    """The same for tasks (dealid, index) of batched deals that have not begun."""

    tasks: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Settle what was handed in for these tasks of one block."""

    dealid: bytes
    tasks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a task to a worker."""

    task: bytes
    worker: Address
    attempt: int
    deadline: int


@dataclass(frozen=True, slots=True)
class End:
    """Close an attempt."""

    task: bytes
    attempt: int
    status: Attempt
    cause: str
    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """Tell those who follow a task why it does not go on."""

    task: bytes
    cause: str
    message: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Every task of this deal has ended: look at it no more."""

    dealid: bytes


Action = Initialize | Claim | ClaimUnset | Settle | Assign | End | Note | Forget


def decide(view: View, now: float) -> list[Action]:
    """What to do, given what is seen. `now`: seconds since 1970, at least the block's timestamp.

    At most one attempt at a task is live at any time.
    """
    tasks = {task.taskid: task for task in view.tasks}
    workers = {worker.address: worker for worker in view.workers}
    ends = [end for attempt in view.attempts if (end := _end(attempt, tasks, workers, view, now))]
    closed = {(end.task, end.attempt): end.status for end in ends}
    attempts = [
        AttemptView(a.task, a.worker, a.number, a.deadline, closed.get((a.task, a.number), a.status))
        for a in view.attempts
    ]
    assigns, notes = _assign(view, attempts, now)
    unset = [task for task in view.tasks if task.status == TaskStatus.UNSET and not task.batched]
    undone = [
        task
        for task in view.tasks
        if task.status == TaskStatus.UNSET and task.batched and now >= task.final_deadline
    ]
    overdue = [
        task
        for task in view.tasks
        if task.status in (TaskStatus.ACTIVE, TaskStatus.REVEALING) and now >= task.final_deadline
    ]
    return [
        *ends,
        *(Initialize(tuple((t.dealid, t.index) for t in some)) for some in _batches(unset)),
        *(Claim(tuple(t.taskid for t in some)) for some in _batches(overdue)),
        *(ClaimUnset(tuple((t.dealid, t.index) for t in some)) for some in _batches(undone)),
        *_settle(view, attempts, now),
        *assigns,
        *(note for note in notes if (note.task, note.cause) not in view.noted),
        *_forget(view.tasks, attempts),
    ]


def _end(
    attempt: AttemptView,
    tasks: dict[bytes, TaskView],
    workers: dict[Address, WorkerView],
    view: View,
    now: float,
) -> End | None:
    """How a live attempt ends now, if it does."""
    if not attempt.live:
        return None

    def end(status: Attempt, cause: str = "", message: str = "") -> End:
        return End(attempt.task, attempt.number, status, cause, message)

    task = tasks.get(attempt.task)
    if task is None:
        return end(Attempt.ABORTED, "TASK_NOT_ACTIVE", "the deal is not on the chain any more")
    if task.status == TaskStatus.COMPLETED:
        if attempt.worker in task.contributors:
            return end(Attempt.COMPLETED)
        return end(Attempt.ABORTED, "TASK_ALREADY_CONTRIBUTED", "another worker completed the task")
    if task.status == TaskStatus.FAILED:
        return end(Attempt.ABORTED, "TASK_NOT_ACTIVE", "the task was claimed: its final deadline passed")
    if attempt.status == Attempt.CONTRIBUTE_AND_FINALIZE_DONE and now < task.final_deadline:
        return None  # the worker says it is on chain; this block is too old to show it
    if attempt.task in view.handed and now < task.final_deadline:
        return None  # its worker has done its part
    if now >= task.contribution_deadline:
        return end(Attempt.FAILED, "CONTRIBUTION_TIMEOUT", "the contribution deadline passed")
    if now >= attempt.deadline:
        return end(Attempt.FAILED, "ASSIGNMENT_EXPIRED", "the attempt's own deadline passed")
    worker = workers.get(attempt.worker)
    lost_after = view.rules.lost_after
    if worker is None or now - worker.seen >= lost_after:
        return end(Attempt.WORKER_LOST, "WORKER_LOST", f"nothing heard of it for {lost_after:g} s")
    return None


def _assign(view: View, attempts: list[AttemptView], now: float) -> tuple[list[Assign], list[Note]]:
    tried: dict[bytes, list[AttemptView]] = defaultdict(list)
    busy: dict[Address, int] = defaultdict(int)
    for attempt in attempts:
        tried[attempt.task].append(attempt)
        busy[attempt.worker] += attempt.live and attempt.task not in view.handed
    present = [w for w in view.workers if now - w.seen < view.rules.lost_after]
    assigns, notes = [], []
    for task in sorted(view.tasks, key=lambda task: (task.contribution_deadline, task.taskid)):
        if not task.open or task.taskid in view.handed:
            continue
        before = tried[task.taskid]
        if reason := _hopeless(task, before, view.rules, now):
            notes.append(reason)
            continue
        if any(attempt.live for attempt in before):
            continue
        if present and not any(_able(worker, task) for worker in present):
            notes.append(Note(task.taskid, "NO_ABLE_WORKER", _unable(task)))
        able = [w for w in present if _able(w, task) and task.taskid not in w.running]
        willing = [w for w in able if not view.rules.require_stake or w.stake >= task.worker_stake]
        if able and not willing:
            least = f"{task.worker_stake} nRLC of free stake, which this pool asks of workers"
            notes.append(Note(task.taskid, "STAKE_TOO_LOW", f"no worker present has {least}"))
        failed = {a.worker for a in before if not a.blameless}
        lost = {a.worker for a in before if a.blameless}
        free = [w for w in willing if w.address not in failed and busy[w.address] < w.slots]
        if free:
            # Whoever was lost on this task comes last: perhaps the task is what kills it.
            best = min(free, key=lambda w: (w.address in lost, busy[w.address] - w.slots, w.address))
            busy[best.address] += 1
            number = max((attempt.number for attempt in before), default=0) + 1
            deadline = _attempt_deadline(task, view.rules, now)
            assigns.append(Assign(task.taskid, best.address, number, deadline))
    return assigns, notes


def _hopeless(task: TaskView, before: list[AttemptView], rules: Rules, now: float) -> Note | None:
    """Why no attempt can be made any more, if so; the claim will refund the requester."""
    if now >= task.contribution_deadline:
        return Note(task.taskid, "CONTRIBUTION_TIMEOUT", "no result in time; the requester will be refunded")
    if task.trust > 1:
        return Note(
            task.taskid, "TRUST_NOT_1", f"this pool takes trust 1 only, the deal asks for {task.trust}"
        )
    if sum(not attempt.live for attempt in before) >= rules.attempts:
        return Note(
            task.taskid, "ATTEMPTS_EXHAUSTED", f"{rules.attempts} attempts failed; see each one's cause"
        )
    return None


def _settle(view: View, attempts: list[AttemptView], now: float) -> list[Settle]:
    """Blocks of which nothing more is to be waited for, and whatever there is when the time runs out."""
    tried: dict[bytes, list[AttemptView]] = defaultdict(list)
    for attempt in attempts:
        tried[attempt.task].append(attempt)
    blocks: dict[tuple[bytes, int], list[TaskView]] = defaultdict(list)
    for task in view.tasks:
        if task.batched and task.open and not task.contributors and now < task.contribution_deadline:
            blocks[task.dealid, task.block].append(task)
    settles = []
    for (dealid, _), block in sorted(blocks.items()):
        there = [task for task in block if task.taskid in view.handed]
        missing = [
            task
            for task in block
            if task.taskid not in view.handed and not _hopeless(task, tried[task.taskid], view.rules, now)
        ]
        haste = now >= block[0].contribution_deadline - min(HASTE, block[0].reference_time)
        if there and (haste or not missing):
            settles.append(
                Settle(dealid, tuple(task.taskid for task in sorted(there, key=lambda t: t.index)))
            )
    return settles


def _able(worker: WorkerView, task: TaskView) -> bool:
    """Whether the worker's machine can serve the deal."""
    return not task.tag & ~worker.tags and (task.tee or worker.standard)


def _unable(task: TaskView) -> str:
    if not task.tee:
        return (
            "the deal asks for no TEE, and no worker present runs such deals: unless one comes in time, the "
            "requester is refunded and the pool loses its stake"
        )
    return f"no worker present has the tag bits {task.tag:#x} that the deal asks for"


def _attempt_deadline(task: TaskView, rules: Rules, now: float) -> int:
    """The time left, shared fairly among the attempts, but never so short that none can succeed."""
    window = (
        (task.final_deadline - task.contribution_deadline)
        * CONTRIBUTION_RATIO
        // (FINAL_RATIO - CONTRIBUTION_RATIO)
    )
    return min(task.contribution_deadline, int(now) + max(window // rules.attempts, SHORTEST_ATTEMPT))


def _batches(tasks: list[TaskView]) -> Iterable[list[TaskView]]:
    """Most urgent first."""
    ordered = sorted(tasks, key=lambda task: (task.contribution_deadline, task.dealid, task.index))
    return (ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH))


def _forget(tasks: tuple[TaskView, ...], attempts: list[AttemptView]) -> list[Forget]:
    open_deals = {task.dealid for task in tasks if not task.ended}
    deal_of = {task.taskid: task.dealid for task in tasks}
    open_deals |= {deal_of[a.task] for a in attempts if a.live and a.task in deal_of}
    return [Forget(dealid) for dealid in sorted({task.dealid for task in tasks} - open_deals)]
