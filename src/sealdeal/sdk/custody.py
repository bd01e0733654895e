"""Who holds what of a secret, and who got it: the nodes' words, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sealdeal.model.sealing import APP_SECRET_NAME, Door, SecretKind
from sealdeal.model.types import Address

from .sms import AuditLine, ShareInfo


@dataclass(frozen=True, slots=True)
class SecretId:
    """Which secret is meant, at every node."""

    kind: SecretKind
    subject: Address
    """The dataset, the app, or the account that it belongs to."""
    name: str

    @classmethod
    def dataset(cls, dataset: Address) -> SecretId:
        return cls(SecretKind.DATASET_KEY, dataset, "")

    @classmethod
    def app(cls, app: Address) -> SecretId:
        return cls(SecretKind.APP_SECRET, app, APP_SECRET_NAME)

    @classmethod
    def requester(cls, requester: Address, name: str) -> SecretId:
        return cls(SecretKind.REQUESTER_SECRET, requester, name)

    @classmethod
    def named(cls, owner: Address, name: str) -> SecretId:
        return cls(SecretKind.NAMED, owner, name)

    def __str__(self) -> str:
        named = self.kind in (SecretKind.REQUESTER_SECRET, SecretKind.NAMED)
        return f"{self.kind} {self.name!r} of {self.subject}" if named else f"{self.kind} of {self.subject}"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one node says of a secret."""

    url: str
    node: Address | None
    """None: the node did not say who it is."""
    info: ShareInfo | None
    """None: it holds nothing, or did not answer."""
    problem: str = ""
    """Why it is not known what it holds."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that hold parts of the same thing: shares of one document, or whole secrets of one version."""

    door: Door
    version: int
    document: str
    """Hash of the document, 0x hexadecimal; zeros for whole secrets."""
    threshold: int
    nodes: tuple[Address, ...]
    """Who should hold a part."""
    holders: tuple[Address, ...]
    """Who says to hold one."""
    expires: int
    """Unix time from which deals get nothing; 0 never."""
    revoked: Mapping[Address, int]
    """Node -> unix time from which deals get nothing of it."""
    seen: bool = False
    """Whether a node saw the secret whole once, before its owner split it."""

    @property
    def enough(self) -> bool:
        """Whether a guest can have the secret for deals made before it ended."""
        return len(self.holders) >= self.threshold

    @property
    def complete(self) -> bool:
        return set(self.holders) >= set(self.nodes)

    def live(self, now: int) -> tuple[Address, ...]:
        """Who lets deals made now have its part."""
        if 0 < self.expires <= now:
            return ()
        return tuple(node for node in self.holders if not 0 < self.revoked.get(node, 0) <= now)

    def open(self, now: int) -> bool:
        """Whether a deal made now can have the secret."""
        return len(self.live(now)) >= self.threshold


@dataclass(frozen=True, slots=True)
class Status:
    """Who holds what of a secret, by the nodes' own words."""

    secret: SecretId
    holdings: tuple[Holding, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The newest version first, among equal ones that of most nodes."""
        found: dict[tuple[str, int, str, int, tuple[Address, ...], int], list[ShareInfo]] = {}
        for holding in self.holdings:
            if (info := holding.info) is not None:
                nodes = () if info.door == Door.SINGLE else tuple(info.nodes)
                same = (info.door, info.version, info.documentHash, info.threshold, nodes, info.expires)
                found.setdefault(same, []).append(info)
        made = []
        for (door, version, document, threshold, nodes, expires), infos in found.items():
            holders = tuple(info.node for info in infos)
            made.append(
                Group(
                    door=Door(door),
                    version=version,
                    document=document,
                    threshold=max(1, threshold),
                    nodes=nodes or holders,
                    holders=holders,
                    expires=expires,
                    revoked={info.node: info.revokedAt for info in infos if info.revokedAt},
                    seen=door != Door.OWN or any(info.formerly for info in infos),
                )
            )
        return tuple(sorted(made, key=lambda group: (-group.version, -len(group.holders))))

    @property
    def version(self) -> int:
        """The newest version that any node told of; 0 for none."""
        return max((group.version for group in self.groups), default=0)

    @property
    def silent(self) -> dict[str, str]:
        """URL -> why that node's holding is not known."""
        return {holding.url: holding.problem for holding in self.holdings if holding.problem}

    def available(self, now: int) -> bool:
        """Whether a deal made now can have the secret."""
        return any(group.open(now) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Use:
    """One attempt at a task that got the secret, or shares of it."""

    line: AuditLine
    """As the first node tells it."""
    nodes: Mapping[Address, tuple[AuditLine, ...]]
    """What each node told of it; the same guest may have asked one several times."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Who got a secret: each node's signed words, and where they contradict each other."""

    secret: SecretId
    answered: tuple[Address, ...]
    silent: dict[str, str]
    """URL -> why that node's audit is not here."""
    uses: tuple[Use, ...]
    """Oldest first, by the nodes' clocks."""
    disagreements: tuple[str, ...]
    """What cannot be true of all nodes at once."""

    @classmethod
    def of(
        cls, secret: SecretId, trails: Mapping[Address, Sequence[AuditLine]], silent: dict[str, str]
    ) -> Audit:
        """Put side by side what nodes told; `silent` did not."""
        uses = _uses(trails)
        return cls(secret, tuple(trails), silent, uses, tuple(_contradictions(uses)))


def _uses(trails: Mapping[Address, Iterable[AuditLine]]) -> tuple[Use, ...]:
    found: dict[tuple[str, int], dict[Address, list[AuditLine]]] = {}
    for node, lines in trails.items():
        for line in lines:
            found.setdefault((line.task, line.attempt), {}).setdefault(node, []).append(line)
    uses = []
    for told in found.values():
        first = min((line for lines in told.values() for line in lines), key=lambda line: line.time)
        uses.append(Use(first, {node: tuple(lines) for node, lines in told.items()}))
    return tuple(sorted(uses, key=lambda use: use.line.time))


def _contradictions(uses: Iterable[Use]) -> Iterable[str]:
    """An attempt at a task has one deal, app, worker, enclave and platform, whichever node tells of it."""
    for use in uses:
        for what in ("deal", "app", "appChecksum", "worker", "enclave", "platform", "measurement"):
            said: dict[str, list[Address]] = {}
            for node, lines in use.nodes.items():
                for value in sorted({str(getattr(line, what)) for line in lines}):
                    said.setdefault(value, []).append(node)
            if len(said) > 1:
                sides = "; ".join(f"{value} says {', '.join(nodes)}" for value, nodes in said.items())
                yield f"task {use.line.task}, attempt {use.line.attempt}: the {what} is {sides}"
