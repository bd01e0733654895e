"""What the subgraphs say and do not keep: it is asked of the chain, at the block that the index shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sealdeal.chain import Hub
from sealdeal.model.types import Address, Block, address, unhex

from .store import GraphStore

_CONTRIBUTIONS = ("UNSET", "CONTRIBUTED", "PROVED", "REJECTED")
_COUNTED: Mapping[str, tuple[str, dict[str, Any] | None]] = {
    "categoriesCount": ("Category", None),
    "appsCount": ("App", None),
    "datasetsCount": ("Dataset", None),
    "workerpoolsCount": ("Workerpool", None),
    "dealsCount": ("Deal", None),
    "tasksCount": ("Task", None),
    "completedTasksCount": ("Task", {"status": "COMPLETED"}),
    "claimedTasksCount": ("Task", {"status": "FAILLED"}),
}
_TRANSACTION = {"from": "from", "to": "to", "value": "value", "gasLimit": "gas", "gasPrice": "gasPrice"}


class Live:
    """Reads of one request; each thing is asked for once."""

    def __init__(self, hub: Hub, store: GraphStore) -> None:
        self._hub, self._store = hub, store
        self._known: dict[tuple[str, str], Any] = {}

    async def value(self, row: Mapping[str, Any], name: str, block: Block) -> Any:
        """A field of an entity that its row does not have."""
        match row["__typename"]:
            case "Account":
                who = address(row["id"])
                if name == "score":
                    return await self._hub.score(who, block)
                state = await self._once("account", who, lambda: self._hub.account(who, block))
                return state.stake if name == "balance" else state.locked
            case "Workerpool":
                at = address(row["id"])
                pool = await self._once("pool", at, lambda: self._hub.workerpool(at, block))
                ratio = pool.worker_stake_ratio if name == "workerStakeRatio" else pool.scheduler_reward_ratio
                return ratio
            case "Contribution":
                worker, task = address(row["worker"]), unhex(row["task"])
                found = await self._once(
                    "contribution", row["id"], lambda: self._hub.contribution(task, worker, block)
                )
                if name == "status":
                    return _CONTRIBUTIONS[found.status]
                return "0x" + found.result_seal.hex() if name == "seal" else found.enclave.lower()
            case "Transaction":
                return await self._transaction(row["id"], name)
            case "Protocol" if name in _COUNTED:
                entity, where = _COUNTED[name]
                return await self._store.count("poco", entity, where)
            case "Protocol":
                return await self._hub.token_balance(self._hub.addresses.hub, block)
        raise AssertionError(f"{row['__typename']}.{name} is kept nowhere")

    async def _transaction(self, hash: str, name: str) -> Any:
        call = "eth_getTransactionReceipt" if name == "gasUsed" else "eth_getTransactionByHash"
        found = await self._once(call, hash, lambda: self._hub.rpc.call(call, hash)) or {}
        value = found.get(_TRANSACTION.get(name, name))
        if name in ("from", "to"):
            return value.lower() if value else None
        return int(value or "0x0", 16)

    async def _once(self, kind: str, of: str | Address, read: Callable[[], Awaitable[Any]]) -> Any:
        if (kind, of) not in self._known:
            self._known[kind, of] = await read()
        return self._known[kind, of]
