"""The receipt of a finished task: everything needed to check it with nothing but a chain node.

A receipt holds what the parties published (manifest, evidence, grants, the enclave's statement, the store's
receipt) and what the chain said. `Receipt.check` verifies all that signatures and hashes can show; what the
chain says today, and whether the evidence's chain of certificates ends at a trusted root, is the caller's to
add (`sdk.client` does both). Format: the JSON of `to_json`, `version` 1.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from .cid import path_in
from .deals import (
    Grant,
    ResultStatement,
    authorisation_message,
    enclave_message,
    quorum_domain,
    result_domain,
)
from .eip712 import digest
from .errors import IntegrityError, InvalidInput, SealdealError
from .evidence import Evidence, Manifest, report_data
from .keys import message_digest, recover_digest, recover_message
from .orders import Params
from .results import result_location
from .types import ZERO, Address, Bytes32, address, bytes32, keccak, unhex


@dataclass(frozen=True)
class Receipt:
    """One finished task. Times are chain seconds, amounts nRLC, hashes and bytes 0x hexadecimal text."""

    version: int
    trust: str
    """`hardware` or `simulated`: what the network's quorum stands for."""
    chain_id: int
    hub: str
    quorum: str
    dealid: str
    taskid: str
    worker: str
    price: int
    """What the sponsor paid for the task."""
    digest: str
    results: str
    """The text on chain: where the result lies."""
    transaction: str
    """The transaction that settled the task."""
    block: int
    """Number of its block."""
    proof: dict[str, Any]
    """The public attestation bundle: manifest, evidence, hpkeKey, enclave, nonces, grants, the enclave's
    signature for the contract, its statement, the store's receipt."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises InvalidInput when `value` is not a receipt of a version known here."""
        if not isinstance(value, dict) or value.get("version") != 1:
            raise InvalidInput(
                "expected a receipt of version 1 (a JSON object with version, dealid, taskid, proof …)"
            )
        try:
            return cls(**value)
        except TypeError as wrong:
            raise InvalidInput(f"this is not a receipt: {wrong}") from None

    @property
    def enclave(self) -> Address:
        return address(self.proof["enclave"])

    @property
    def evidence(self) -> Evidence:
        return Evidence.from_json(self.proof["evidence"])

    @property
    def manifest(self) -> Manifest:
        return Manifest.from_json(self.proof["manifest"])

    @property
    def sealed_digest(self) -> bool:
        """Whether the digest is salted, as the attested deal asks; the salt lies in the result itself."""
        manifest = self.manifest
        return Params.parse(manifest.params).sealed_digest and manifest.callback == ZERO

    def expected_report_data(self) -> bytes:
        """What the evidence must carry: it ties the hardware's word to manifest, keys and nonces."""
        nonces = [(address(node), unhex(nonce)) for node, nonce in self.proof["nonces"].items()]
        return report_data(self.manifest.hash(), unhex(self.proof["hpkeKey"]), self.enclave, nonces)

    def check(self) -> frozenset[Address]:
        """Verify every signature and hash. Returns the SMS nodes whose grants are good.

        Raises IntegrityError naming the first thing that is not as it should be.
        """
        try:
            return self._check()
        except (KeyError, TypeError, AttributeError, ValueError) as wrong:
            raise IntegrityError(f"the receipt's proof is incomplete: {wrong!r}") from None
        except IntegrityError:
            raise
        except SealdealError as wrong:
            raise IntegrityError(f"the receipt does not verify: {wrong}") from None

    def _check(self) -> frozenset[Address]:
        hub, worker, taskid = address(self.hub), address(self.worker), bytes32(self.taskid)
        manifest, statement = self.manifest, ResultStatement.from_json(self.proof["statement"])
        told = (manifest.chain_id, manifest.hub, manifest.task_id, manifest.worker)
        _same("the manifest's chain, hub, task and worker", (self.chain_id, hub, taskid, worker), told)
        signer = recover_digest(
            digest(result_domain(self.chain_id, hub), statement), unhex(self.proof["statementSignature"])
        )
        _same("the signer of the result statement", self.enclave, signer)
        expected = ResultStatement(
            task=taskid,
            worker=worker,
            digest=bytes32(self.digest),
            results=keccak(self._stated_results(manifest.task_index).encode()),
            beneficiaryKey=_key_hash(manifest.result_key),
        )
        _same("the result statement", expected, statement)
        message = enclave_message(worker, taskid, bytes32(self.digest))
        came = recover_message(message, unhex(self.proof["enclaveSignature"]))
        _same("the signer of the contribution", self.enclave, came)
        _ = self.evidence, self.expected_report_data()  # the caller verifies them; here they must be readable
        return frozenset(self._grants(worker, taskid))

    def _stated_results(self, index: int) -> str:
        """The link that the enclave signed: the one on chain; or, of a task settled in a batch, the result's
        own, which the store's receipt names. On chain then is the task's index in a directory, made later.
        """
        try:
            _, name = path_in(result_location(self.results.encode()))
        except InvalidInput:
            name = ""
        if not name:
            return self.results
        _same("the result's place in its batch", str(index), name)
        link = "/ipfs/" + self.proof["storeReceipt"]["receipt"]["cid"]
        return json.dumps({"storage": "ipfs", "location": link})

    def _grants(self, worker: Address, taskid: Bytes32) -> list[Address]:
        asked = message_digest(authorisation_message(worker, taskid, self.enclave))
        domain = quorum_domain(self.chain_id, address(self.quorum))
        found = []
        for node, grant in self.proof["grants"].items():
            signed = digest(domain, Grant(asked, int(grant["validUntil"])))
            _same(
                f"the grant of node {node}", address(node), recover_digest(signed, unhex(grant["signature"]))
            )
            found.append(address(node))
        return found


def _key_hash(text: str) -> Bytes32:
    return hashlib.sha256(text.encode()).digest() if text else bytes(32)


def _same(what: str, expected: Any, came: Any) -> None:
    if expected != came:
        raise IntegrityError(f"{what} should be {expected}, and is {came}")
