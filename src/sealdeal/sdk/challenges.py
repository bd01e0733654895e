"""Challenges: what a wallet signs to be believed by a marketplace, once (wire.md §1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sealdeal.model import eip712
from sealdeal.model.eip712 import Domain, String, Typed
from sealdeal.model.errors import IntegrityError
from sealdeal.model.keys import Signer
from sealdeal.model.types import hexstr


@dataclass(frozen=True)
class Challenge(Typed):
    """What a wallet signs to publish or unpublish, once."""

    challenge: String


def challenge_domain(chain_id: int) -> Domain:
    """Where challenges count."""
    return Domain("iExec Gateway", "1", chain_id)


def challenge_hash(chain_id: int, text: str) -> bytes:
    """The 32 bytes that are signed for a challenge of this text."""
    return eip712.digest(challenge_domain(chain_id), Challenge(text))


def challenge_document(chain_id: int, text: str) -> dict[str, Any]:
    """The typed data that wallets are shown (wire.md §1.2)."""
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
            ],
            "Challenge": [{"name": "challenge", "type": "string"}],
        },
        "domain": {"name": "iExec Gateway", "version": "1", "chainId": str(chain_id)},
        "primaryType": "Challenge",
        "message": {"challenge": text},
    }


def authorization(chain_id: int, document: Mapping[str, Any], signer: Signer) -> str:
    """The header that answers a challenge: `hash_signature_address`.

    Only a challenge is signed: raises IntegrityError when the marketplace asks for another signature.
    """
    text = document.get("message", {}).get("challenge") if isinstance(document, Mapping) else None
    if not isinstance(text, str) or document != challenge_document(chain_id, text):
        raise IntegrityError(
            "the marketplace asked to sign something that is no challenge for this chain; nothing was signed"
        )
    digest = challenge_hash(chain_id, text)
    return f"{hexstr(digest)}_{hexstr(signer.sign_digest(digest))}_{signer.address}"
