"""How the guest earns its secrets: nonces, evidence, and what the SMS nodes release for them.

No node is believed alone. One that lies, is silent or refuses is named, and the others go on; it ends when
`threshold` of them have granted and every secret is recovered, or cannot be any more.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sealdeal.model.errors import InvalidInput, SealdealError, SecretRefused
from sealdeal.model.evidence import Evidence, Manifest, report_data
from sealdeal.model.keys import Key, Rng
from sealdeal.model.release import Gathered, Release, gather
from sealdeal.model.results import check_result_key
from sealdeal.model.sealing import SealingKey
from sealdeal.model.types import Address, hexstr, unhex

from .failures import Failure
from .hello import Hello
from .inputs import Bulk
from .stream import Call, Channel

ANSWER_LIMIT: Final = 1 << 20
"""Bytes of a node's answer."""
PATIENCE: Final = 60.0
"""Seconds to wait for nodes that do not answer, or whose view of the chain is not yet deep enough."""
GRACE: Final = 3.0
"""Seconds to wait for further nodes when those that answered would do."""
_PAUSE: Final = 0.25
_NOT_YET: Final = ("NotFinalYet", "RateLimited")
_REFUSED: Final = "TEE_SESSION_GENERATION_SECURE_SESSION_GENERATION_FAILED"


class NodeRefusal(SealdealError):
    """A node answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if code not in message else message)
        self.said = code


@dataclass(frozen=True, slots=True)
class Nonce:
    """What a node wants to see in the evidence, and the beneficiary's key as it knows it."""

    nonce: bytes
    result_key: str


@dataclass(slots=True)
class Admission:
    """Everything the guest holds once it is admitted."""

    manifest: Manifest
    enclave: Key
    """Signs the result; made here, known nowhere else."""
    hpke: SealingKey
    evidence: Evidence
    nonces: dict[Address, bytes]
    releases: dict[Address, Release]
    gathered: Gathered

    def proof(self) -> dict[str, Any]:
        """The public half, for receipts: it shows to anyone what was attested and who vouched."""
        return {
            "manifest": self.manifest.to_json(),
            "evidence": self.evidence.to_json(),
            "hpkeKey": hexstr(self.hpke.public),
            "enclave": self.enclave.address,
            "nonces": {node: hexstr(nonce) for node, nonce in sorted(self.nonces.items())},
            "grants": {
                node: {"validUntil": release.valid_until, "signature": hexstr(release.grant)}
                for node, release in sorted(self.releases.items())
                if node not in self.gathered.blamed
            },
            "doors": {"/".join(filter(None, name)): door for name, door in self.gathered.doors.items()},
            "blamed": self.gathered.blamed,
        }


@dataclass(slots=True)
class Asking:
    """The talk with all nodes: begun early, so that image and dataset arrive while they think."""

    channel: Channel
    hello: Hello
    rng: Rng
    bulk: Bulk | None = None
    """The datasets of the task's slice, when the deal names a bulk; to be set before `prove`."""
    refused: dict[Address, SealdealError] = field(default_factory=dict)
    """Nodes that will not take part, and their words."""
    _nonces: dict[Address, Call] = field(default_factory=dict)
    _releases: dict[Address, Call] = field(default_factory=dict)
    _taken: dict[Address, Nonce] = field(default_factory=dict)
    _enough: bool = False
    _proven: tuple[Manifest, Key, SealingKey, Evidence] | None = None

    def begin(self) -> None:
        """Ask every node for a nonce."""
        for node in self.hello.nodes:
            self._nonces[node] = self._ask_nonce(node)

    def prove(self) -> Manifest:
        """Take the nonces, get the evidence over them, and ask every node for its release.

        Returns what the evidence binds. Raises Failure when fewer than `threshold` nodes want to talk.
        """
        taken = self._taken = self._collect_nonces()
        key = _agreed_key(taken, self.hello, self.refused)
        manifest = self.hello.manifest(key, self.bulk.datasets if self.bulk else ())
        enclave = Key.generate(self.rng)
        hpke = SealingKey.generate(self.rng)
        bound = report_data(
            manifest.hash(), hpke.public, enclave.address, [(node, n.nonce) for node, n in taken.items()]
        )
        answer = self.channel.call("quote", reportData=hexstr(bound))
        try:
            evidence = Evidence.from_json(answer.answer())
        except SealdealError as error:
            raise Failure("TEE_PREPARATION_FAILED", f"the platform gives no evidence: {error}") from None
        self._proven = manifest, enclave, hpke, evidence
        body = {
            **self._assigned(),
            "manifest": manifest.to_json(),
            "evidence": evidence.to_json(),
            "hpkeKey": hexstr(hpke.public),
            "enclave": enclave.address,
            "nonces": [{"node": node, "nonce": hexstr(n.nonce)} for node, n in sorted(taken.items())],
            **({"bulk": self.bulk.documents.to_json()} if self.bulk else {}),
        }
        for node in taken:
            self._releases[node] = _post(self.channel, node, "/tee/releases", body)
        return manifest

    def admission(self) -> Admission:
        """Wait for the releases. Raises Failure when too few nodes release."""
        assert self._proven is not None
        manifest, enclave, hpke, evidence = self._proven
        releases: dict[Address, Release] = {}
        waiting = dict(self._releases)
        best: Gathered | None = None
        lacking: SecretRefused | None = None
        for node, call in self._as_they_answer(waiting):
            try:
                release = Release.from_json(_json_answer(call))
                if release.node != node:
                    raise SecretRefused(f"node {node} answered as {release.node}")
                releases[node] = release
                if len(releases) >= manifest.threshold:
                    best = gather(manifest, hpke, enclave.address, releases.values())
                    self._enough = True
            except SecretRefused as too_little:
                lacking = too_little
                if node not in releases:
                    self.refused[node] = too_little
            except SealdealError as refusal:
                self.refused[node] = refusal
            missing = {name for release in releases.values() for name in release.missing}
            if best is not None and not missing - set(best.secrets):
                break  # else a node that has not answered yet may hold what these lack
        if best is None:
            few = f"{len(releases)} of the {manifest.threshold} needed nodes released"
            cause = "PRE_COMPUTE_DATASET_KEY_MISSING" if lacking and "dataset" in str(lacking) else _REFUSED
            raise Failure(cause, str(lacking or few) + self._why())
        for call in waiting.values():
            self.channel.abandon(call)
        for node, reason in self.refused.items():
            best.blamed.setdefault(node, str(reason))
        nonces = {node: nonce.nonce for node, nonce in self._taken.items()}
        return Admission(manifest, enclave, hpke, evidence, nonces, releases, best)

    def _as_they_answer(self, waiting: dict[Address, Call]) -> Iterator[tuple[Address, Call]]:
        """Takes calls out of `waiting` as they end. Nodes that are silent too long are set aside; that is
        soon once the caller has set `_enough`.
        """
        self._enough = False
        while waiting:
            ended = self.channel.first_ended(list(waiting.values()), GRACE if self._enough else PATIENCE)
            if ended is None:
                for node, call in waiting.items():
                    self.channel.abandon(call)
                    self.refused[node] = NodeRefusal("Silent", "did not answer in time")
                waiting.clear()
                return
            node = next(node for node, call in waiting.items() if call is ended)
            del waiting[node]
            yield node, ended

    def _ask_nonce(self, node: Address) -> Call:
        return _post(self.channel, node, "/tee/nonces", self._assigned())

    def _assigned(self) -> dict[str, Any]:
        """The assignment, and where its task lies: a node can't find one that has not begun by its id."""
        return {
            "assignment": self.hello.assignment.to_json(),
            "signature": hexstr(self.hello.signature),
            "dealid": hexstr(self.hello.deal.dealid),
            "index": self.hello.index,
        }

    def _collect_nonces(self) -> dict[Address, Nonce]:
        taken: dict[Address, Nonce] = {}
        give_up = time.monotonic() + PATIENCE
        waiting = self._nonces
        while waiting:
            later = []
            for node, call in self._as_they_answer(waiting):
                try:
                    taken[node] = _read_nonce(node, _json_answer(call))
                    self._enough = len(taken) >= self.hello.threshold
                except SealdealError as refusal:
                    self.refused[node] = refusal
                    if isinstance(refusal, NodeRefusal) and refusal.said in _NOT_YET:
                        later.append(node)
            if not later or len(taken) >= self.hello.threshold or time.monotonic() > give_up:
                break
            time.sleep(_PAUSE)
            waiting = {node: self._ask_nonce(node) for node in later}
        for node in taken:
            self.refused.pop(node, None)
        if len(taken) < self.hello.threshold:
            few = f"{len(taken)} of the {self.hello.threshold} needed nodes talk"
            raise Failure(_REFUSED, few + self._why())
        return taken

    def _why(self) -> str:
        return "".join(f"; {node}: {refusal}" for node, refusal in sorted(self.refused.items()))


def _agreed_key(taken: dict[Address, Nonce], hello: Hello, refused: dict[Address, SealdealError]) -> str:
    """The beneficiary's key that `threshold` nodes name, empty when they know none. Nodes that name another
    one are set aside.
    """
    if not hello.deal.parsed_params.result_encryption:
        return ""
    key, votes = Counter(nonce.result_key for nonce in taken.values()).most_common(1)[0]
    for node in [n for n, nonce in taken.items() if nonce.result_key != key]:
        refused[node] = NodeRefusal("OtherKey", "names another key of the beneficiary than the others do")
        del taken[node]
    if votes < hello.threshold:
        raise Failure(
            "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING",
            f"the deal asks for an encrypted result, and no {hello.threshold} nodes name the same key of its "
            f"beneficiary {hello.deal.beneficiary}: push it to the SMS first",
        )
    if key:
        try:
            check_result_key(key)
        except InvalidInput as wrong:
            raise Failure("POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY", str(wrong)) from None
    return key


def _post(channel: Channel, node: Address, path: str, body: Mapping[str, Any]) -> Call:
    content = json.dumps(body, separators=(",", ":")).encode()
    headers = {"content-type": "application/json"}
    return channel.call("http", [content], dest=f"sms:{node}", method="POST", path=path, headers=headers)


def _json_answer(call: Call) -> dict[str, Any]:
    """A node's JSON answer. Raises NodeRefusal, or what the channel raises."""
    status = call.answer().get("status")
    try:
        value = json.loads(call.content(ANSWER_LIMIT))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NodeRefusal("NoAnswer", f"expected a JSON object, got status {status} and something else")
    if status != 200:
        raise NodeRefusal(
            str(value.get("code", status))[:100], str(value.get("error", "no reason given"))[:2000]
        )
    return value


def _read_nonce(node: Address, said: dict[str, Any]) -> Nonce:
    nonce, key = unhex(str(said.get("nonce"))), said.get("beneficiaryKey", "")
    if said.get("node") != node or not 16 <= len(nonce) <= 256 or not isinstance(key, str) or len(key) > 8192:
        raise InvalidInput(f"node {node}: expected its nonce, got something else")
    return Nonce(nonce, key)
