"""What an SMS node answers to an attested guest, and what the guest makes of the answers of several.

A `Release` holds the node's sealed secrets and its grant for (worker, task, enclave), signed as a whole.
`gather` is the guest's side: it believes no node alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from .deals import Grant, authorisation_blob, authorisation_message, quorum_domain
from .eip712 import digest
from .errors import BadSignature, InvalidInput, SealdealError, SecretRefused
from .evidence import Manifest, canonical_json
from .keys import Key, message_digest, recover_digest, recover_message
from .sealing import (
    Door,
    SealingKey,
    SecretKind,
    SecretShares,
    owner_challenge,
    recover_secret,
    release_info,
    secrets_domain,
    vouch_challenge,
    without_push,
)
from .types import ZERO, Address, Bytes32, address, bytes32, hexstr, keccak, unhex

Name = tuple[str, str]
"""(kind, name) of a secret within one task."""


@dataclass(frozen=True, slots=True)
class SealedItem:
    """One secret, or one share of it, sealed to the guest."""

    kind: str
    name: str
    version: int
    door: str
    """`own`, `split`: `ciphertext` is a share and `document` says of what; `single`: it is the whole."""
    document: SecretShares | None
    signature: bytes
    """The owner's, of the document (`own`) or of `owner_challenge` for the whole secret (`single`); or, of
    `vouch_challenge`, that of the node that made the shares (`split`)."""
    ciphertext: bytes
    """HPKE, with `release_info` of this node, kind, name and version."""
    formerly: str = ""
    """`split` when a node had made shares of it before its owner did: that node saw it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "door": self.door,
            "document": self.document.to_json() if self.document else None,
            "signature": hexstr(self.signature),
            "ciphertext": hexstr(self.ciphertext),
            "formerly": self.formerly,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        document = value["document"]
        return cls(
            kind=str(value["kind"]),
            name=str(value["name"]),
            version=int(value["version"]),
            door=Door(value["door"]).value,
            document=SecretShares.from_json(document) if document else None,
            signature=unhex(value["signature"]),
            ciphertext=unhex(value["ciphertext"]),
            formerly=str(value.get("formerly", ""))[:20],
        )


@dataclass(frozen=True, slots=True)
class Release:
    """A node's whole answer to one enclave."""

    node: Address
    manifest_hash: Bytes32
    hpke_key: bytes
    enclave: Address
    sealed: tuple[SealedItem, ...]
    missing: tuple[Name, ...]
    """What the deal asks for and this node does not hold."""
    valid_until: int
    """Chain time until which the grant counts: the task's contribution deadline."""
    grant: bytes
    """The node's signature of `Grant` on the quorum's domain."""
    signature: bytes = b""
    """The node's personal signature of `digest`."""

    def digest(self) -> Bytes32:
        """keccak("sealdeal release 1" ‖ canonical JSON of everything but the signature)."""
        members = self.to_json()
        del members["signature"]
        return keccak(b"sealdeal release 1" + canonical_json(members))

    def signed(self, key: Key) -> Self:
        """The same, signed by the node's key."""
        return replace(self, signature=key.sign_message(self.digest()))

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "manifestHash": hexstr(self.manifest_hash),
            "hpkeKey": hexstr(self.hpke_key),
            "enclave": self.enclave,
            "sealed": [item.to_json() for item in self.sealed],
            "missing": [{"kind": kind, "name": name} for kind, name in self.missing],
            "grant": {"validUntil": self.valid_until, "signature": hexstr(self.grant)},
            "signature": hexstr(self.signature),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises InvalidInput for anything but what `to_json` makes."""
        try:
            return cls(
                node=address(value["node"]),
                manifest_hash=bytes32(value["manifestHash"]),
                hpke_key=bytes32(value["hpkeKey"]),
                enclave=address(value["enclave"]),
                sealed=tuple(SealedItem.from_json(item) for item in value["sealed"]),
                missing=tuple((str(item["kind"]), str(item["name"])) for item in value["missing"]),
                valid_until=int(value["grant"]["validUntil"]),
                grant=unhex(value["grant"]["signature"]),
                signature=unhex(value["signature"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise InvalidInput(
                f"expected a release as SMS nodes answer it, got a malformed one: {wrong}"
            ) from None

    def check(self, manifest: Manifest, hpke_key: bytes, enclave: Address) -> None:
        """This answer is from one of the manifest's nodes, for this enclave, with a true grant.

        Raises SecretRefused or BadSignature, naming the node.
        """
        if self.node not in manifest.nodes:
            raise SecretRefused(f"expected an answer of one of the quorum's nodes, got one of {self.node}")
        if recover_message(self.digest(), self.signature) != self.node:
            raise BadSignature(f"node {self.node}: its answer is not signed by its key")
        if (self.manifest_hash, self.hpke_key, self.enclave) != (manifest.hash(), hpke_key, enclave):
            raise SecretRefused(f"node {self.node} answered for another manifest or enclave than the asker's")
        granted = grant_digest(manifest, enclave, self.valid_until)
        if recover_digest(granted, self.grant) != self.node:
            raise BadSignature(f"node {self.node}: its grant is not signed by its key")


def grant_digest(manifest: Manifest, enclave: Address, valid_until: int) -> Bytes32:
    """The 32 bytes that a node signs to vouch for (worker, task, enclave) until `valid_until`."""
    asked = message_digest(authorisation_message(manifest.worker, manifest.task_id, enclave))
    return digest(
        quorum_domain(manifest.chain_id, manifest.quorum), Grant(digest=asked, validUntil=valid_until)
    )


@dataclass(frozen=True, slots=True, repr=False)
class Gathered:
    """What the guest may use."""

    secrets: dict[Name, bytes]
    doors: dict[Name, Door]
    """The door that each secret came through."""
    authorisation: bytes
    """The quorum's blob for the hub, of `threshold` grants."""
    blamed: dict[Address, str]
    """Nodes whose answers were set aside, and why."""


def gather(manifest: Manifest, key: SealingKey, enclave: Address, releases: Iterable[Release]) -> Gathered:
    """Secrets and authorisation from the nodes' answers; no node is believed alone.

    A secret that its owner split counts when the owner that the deal records signed its document, or when
    `manifest.threshold` nodes show it (a resource may have been sold between publication and deal). One
    that a node split (door `split`) counts when that owner pushed it: the signature is of the secret itself,
    and the node is named if it is not. A whole secret (door `single`) counts when that owner signed it, and
    nothing else that counts is shown.
    One of a bulk's datasets may be left out, when as many nodes as the threshold do so.
    Raises SecretRefused while something is lacking (then ask more nodes and call again), naming liars.
    """
    blamed: dict[Address, str] = {}
    grants: dict[int, dict[Address, bytes]] = {}
    shown: dict[Name, list[Shown]] = {}
    good: list[Release] = []
    for release in releases:
        try:
            release.check(manifest, key.public, enclave)
            items = [(release.node, item, _open(item, release, key)) for item in release.sealed]
        except SealdealError as refusal:
            blamed[release.node] = str(refusal)
            continue
        good.append(release)
        grants.setdefault(release.valid_until, {})[release.node] = release.grant
        for node, item, value in items:
            shown.setdefault((item.kind, item.name), []).append((node, item, value))

    until, signatures = max(grants.items(), key=lambda group: len(group[1]), default=(0, {}))
    if len(signatures) < manifest.threshold:
        raise SecretRefused(_lacking(f"{manifest.threshold} grants", len(signatures), blamed))

    answered = {*blamed, *(node for group in grants.values() for node in group)}
    secrets: dict[Name, bytes] = {}
    doors: dict[Name, Door] = {}
    absent = Counter(name for release in good for name in release.missing)
    for name, items in sorted(shown.items()):
        try:
            if (split := _recovered(manifest, name, items, answered, blamed)) is not None:
                secrets[name], doors[name] = split
            elif (whole := _whole(manifest, name, items, blamed)) is not None:
                secrets[name], doors[name] = whole, Door.SINGLE
        except SecretRefused:
            if not _left_out(manifest, name, absent):
                raise
    for dataset in manifest.datasets:
        name = SecretKind.DATASET_KEY.value, str(dataset.dataset)
        if name not in secrets and not _left_out(manifest, name, absent):
            wanted = f"the key of dataset {dataset.dataset}, or that {manifest.threshold} nodes leave it out"
            raise SecretRefused(_lacking(wanted, absent[name], blamed))

    needs_key = manifest.dataset != ZERO and not manifest.impossible
    if needs_key and (SecretKind.DATASET_KEY.value, "") not in secrets:
        raise SecretRefused(_lacking(f"the key of dataset {manifest.dataset}", 0, blamed))
    chosen = dict(sorted(signatures.items())[: manifest.threshold])
    return Gathered(secrets, doors, authorisation_blob(until, chosen), blamed)


Shown = tuple[Address, SealedItem, bytes]
"""A node, what it showed, and the plaintext of that."""


@dataclass(slots=True)
class _Split:
    """One document, and what nodes showed of it."""

    document: SecretShares
    shares: dict[Address, bytes] = field(default_factory=dict)
    by_owner: bool = False
    """Its owner signed the document."""
    plain: int = 0
    """How many nodes show it as an owner's, this one's or a former one's."""
    vouchers: set[Address] = field(default_factory=set)
    """Door `split`: who made the shares, by their signatures."""
    seen: bool = False
    """A node saw the secret whole, by a node's word."""


def _whose(manifest: Manifest, name: Name) -> tuple[Address, Address, str]:
    """(subject, its owner as far as the deal tells, the secret's own name) of what is shown under `name`.

    Keys of a bulk's datasets are shown under the datasets' addresses. Raises SecretRefused for what the deal
    has nothing to do with.
    """
    match name:
        case (SecretKind.DATASET_KEY, ""):
            return manifest.dataset, manifest.dataset_owner, ""
        case (SecretKind.DATASET_KEY, which):
            for each in manifest.datasets:
                if each.dataset == which:
                    return each.dataset, each.owner, ""
        case (SecretKind.APP_SECRET, own):
            return manifest.app, manifest.app_owner, own
        case (SecretKind.REQUESTER_SECRET, own):
            return manifest.requester, manifest.requester, own
    raise SecretRefused(
        f"expected secrets of the datasets, the app or the requester, got a {name[0][:40]!r} {name[1][:80]!r}"
    )


def _left_out(manifest: Manifest, name: Name, absent: Mapping[Name, int]) -> bool:
    """Whether enough nodes say that a dataset of a bulk has no key, or may not be used in this deal."""
    kind, which = name
    return kind == SecretKind.DATASET_KEY and which != "" and absent[name] >= manifest.threshold


def _documents(
    manifest: Manifest, name: Name, shown: list[Shown], blamed: dict[Address, str]
) -> list[_Split]:
    """What is shown in shares under `name`: the owner's documents first, later versions before earlier."""
    found: dict[Bytes32, _Split] = {}
    for node, item, value in shown:
        document = item.document
        if document is None:
            continue
        try:
            subject, owner, own = _whose(manifest, name)
            if (document.kind, document.name, document.subject) != (name[0], own, subject):
                raise SecretRefused(f"node {node} showed a document of another secret")
            document.check_share(node, value)
            signed = digest(secrets_domain(manifest.chain_id, manifest.hub), document)
            split = found.setdefault(document.struct_hash(), _Split(document))
            if item.door == Door.SPLIT:
                split.vouchers.add(recover_message(vouch_challenge(signed), item.signature))
            else:
                split.by_owner |= recover_digest(signed, item.signature) == owner
                split.plain += 1
            split.shares[node] = value
            split.seen |= Door.SPLIT in (item.door, item.formerly)
        except SealdealError as lie:
            blamed[node] = str(lie)
    return sorted(found.values(), key=lambda split: (not split.by_owner, -split.document.version))


def _recovered(
    manifest: Manifest,
    name: Name,
    shown: list[Shown],
    answered: Collection[Address],
    blamed: dict[Address, str],
) -> tuple[bytes, Door] | None:
    """The newest version that can be had; an older one only when nodes still to be asked can't complete it
    (its owner did not finish replacing it), so that no single node takes anyone back to an old secret.

    Of what no owner signed, a document of fewer nodes than the threshold is worth nothing, so that no single
    node keeps anyone waiting for one that it made up. Raises SecretRefused when nodes still lack.
    """
    lacking: SecretRefused | None = None
    for split in _documents(manifest, name, shown, blamed):
        document, came = split.document, len(split.shares)
        could = came + len(set(document.nodes).difference(answered))
        least = document.threshold if split.by_owner else max(document.threshold, manifest.threshold)
        if split.vouchers and not split.by_owner and split.plain < manifest.threshold:
            if came >= document.threshold and (secret := _pushed(manifest, name, split, blamed)) is not None:
                return secret, Door.SPLIT
            if came >= least or could < least:
                continue
        elif came >= least:
            return recover_secret(document, split.shares), Door.SPLIT if split.seen else Door.OWN
        elif not split.by_owner and came < manifest.threshold:
            continue
        wanted = f"{document.threshold} shares of {document.kind} {document.name}".rstrip()
        lacking = lacking or SecretRefused(_lacking(wanted, came, blamed))
        if could >= least:
            break
    if lacking is not None:
        raise lacking
    return None


def _pushed(manifest: Manifest, name: Name, split: _Split, blamed: dict[Address, str]) -> bytes | None:
    """The secret of a document that a node made, if its owner pushed that very secret to it.

    A dataset's key may be its former owner's, when enough nodes show it: a false one can't choose what the
    data becomes (see `_whole`). Otherwise the node that vouched for it is named.
    """
    document = split.document
    subject, owner, _ = _whose(manifest, name)
    try:
        secret, signature = without_push(recover_secret(document, split.shares))
        signer = recover_message(owner_challenge(document.kind, subject, document.name, secret), signature)
        if signer == owner:
            return secret
        why = f"was pushed by {signer} and not by its owner {owner}"
    except SealdealError as lie:
        secret, why = b"", str(lie)
    for node in split.vouchers:
        blamed[node] = f"node {node} vouched for a {document.kind} of {subject} that {why}"
    former = document.kind == SecretKind.DATASET_KEY and len(split.shares) >= manifest.threshold
    return secret if former and secret else None


def _whole(manifest: Manifest, name: Name, shown: list[Shown], blamed: dict[Address, str]) -> bytes | None:
    """The whole secret that its owner signed. Raises SecretRefused when the owner signed several."""
    values = set()
    for node, item, value in shown:
        try:
            if item.document is not None:
                continue
            subject, owner, own = _whose(manifest, name)
            signer = recover_message(owner_challenge(name[0], subject, own, value), item.signature)
            # A dataset's key may be its former owner's. A false one can't choose what the data becomes: the
            # encrypted bytes are those of the checksum on chain.
            if signer != owner and name[0] != SecretKind.DATASET_KEY:
                raise SecretRefused(
                    f"node {node} showed a {name[0]} signed by {signer} and not by its owner {owner}"
                )
            values.add(value)
        except SealdealError as lie:
            blamed[node] = str(lie)
    if len(values) > 1:
        nodes = ", ".join(sorted(node for node, _, _ in shown))
        raise SecretRefused(
            f"expected one value of {name[0]}, got several ({nodes}): publish it again, split"
        )
    return values.pop() if values else None


def _open(item: SealedItem, release: Release, key: SealingKey) -> bytes:
    info = release_info(release.manifest_hash, release.node, item.kind, item.name, item.version)
    try:
        return key.open(item.ciphertext, info)
    except SecretRefused as refusal:
        raise SecretRefused(f"node {release.node}: {refusal}") from None


def _lacking(wanted: str, came: int, blamed: Mapping[Address, str]) -> str:
    why = f"; set aside: {'; '.join(blamed.values())}" if blamed else ""
    return f"expected {wanted}, got {came}{why}"
