"""The chain: the only part that speaks JSON-RPC."""

from .abi import Event
from .contract import Contract, artefact
from .deploy import (
    CATEGORIES,
    DeployOptions,
    QuorumTerms,
    deploy,
    deploy_data_protector,
    deploy_quorum,
)
from .errors import (
    BlockGone,
    ChainUnreachable,
    DeploymentStopped,
    KeystoreError,
    NotMined,
    Reverted,
    RpcError,
)
from .follow import Batch, Follower, Progress, RolledBack
from .hub import Hub
from .local import Anvil, Heartbeat
from .quorum import Quorum
from .reads import Addresses
from .rpc import Rpc
from .sender import Receipt, Sender
from .verify import Compared, verify
from .wallet import Wallet

__all__ = [
    "CATEGORIES",
    "Addresses",
    "Anvil",
    "Batch",
    "BlockGone",
    "ChainUnreachable",
    "Compared",
    "Contract",
    "DeployOptions",
    "DeploymentStopped",
    "Event",
    "Follower",
    "Heartbeat",
    "Hub",
    "KeystoreError",
    "NotMined",
    "Progress",
    "Quorum",
    "QuorumTerms",
    "Receipt",
    "Reverted",
    "RolledBack",
    "Rpc",
    "RpcError",
    "Sender",
    "Wallet",
    "artefact",
    "deploy",
    "deploy_data_protector",
    "deploy_quorum",
    "verify",
]
