"""Why contracts refuse, in words: the texts and codes of PoCo 6.1 (poco.md §5 to §8)."""

from __future__ import annotations

_MATCH = {
    "00": "the request and the workerpool order name different categories",
    "01": "the category does not exist on this hub",
    "02": "the request asks for more trust than the workerpool order offers",
    "03": "the app costs more than the request's appmaxprice",
    "04": "the dataset costs more than the request's datasetmaxprice",
    "05": "the workerpool costs more than the request's workerpoolmaxprice",
    "06": "the workerpool order's tag lacks a bit that the app, the dataset or the request asks for",
    "07": "a TEE is asked for and the app order's tag does not say TEE",
    "10": "the request names another app",
    "11": "the request names another dataset",
    "12": "the request is restricted to another workerpool",
    "13": "the app order is restricted to another dataset",
    "14": "the app order is restricted to another workerpool",
    "15": "the app order is restricted to another requester",
    "16": "the dataset order is restricted to another app",
    "17": "the dataset order is restricted to another workerpool",
    "18": "the dataset order is restricted to another requester",
    "19": "the workerpool order is restricted to another app",
    "1a": "the workerpool order is restricted to another dataset",
    "1b": "the workerpool order is restricted to another requester",
    "20": "the app is not in this hub's app registry",
    "21": "the app order is not signed by the app's owner",
    "30": "the dataset is not in this hub's dataset registry",
    "31": "the dataset order is not signed by the dataset's owner",
    "40": "the workerpool is not in this hub's workerpool registry",
    "41": "the workerpool order is not signed by the workerpool's owner",
    "50": "the request order is not signed by its requester",
    "51": "the request order's salt chooses another matcher",
    "60": "one of the orders is used up or cancelled: its whole volume is consumed",
}

_TEXTS = {
    "IexecEscrow: Transfer amount exceeds balance": (
        "the free stake is too low for what this locks: deposit more "
        "(the requester pays app + dataset + workerpool price for each task, "
        "the workerpool's owner stakes 30 % of its price)"
    ),
    "IexecEscrow: Transfer from empty address": "the payer is the zero address",
    "failled-transferFrom": "the token refused the transfer to the hub: check balance and allowance",
    "failed-transferFrom": "the token refused the transfer to the hub: check balance and allowance",
    "wrong-token": "deposits are made in the hub's own token",
    "invalid-signature-format": "a signature is 65 bytes (or 64 compact), or empty when presigned",
    "invalid-sender-or-signature": "only the asset's owner (or the requester) may sign or close the order",
    "already-configured": "this hub was configured before",
    "fallback-disabled": "the hub has no such function",
    "task-pending": "the task has no result yet",
    "Ownable: caller is not the owner": "only the contract's owner may do this",
    "Create2: Failed on deploy": "the very same entry exists already for that owner",
}

_SILENT = {
    "initialize": "the index is outside the deal, or the task is initialised already",
    "initializeArray": "an index is outside its deal, or a task is initialised already",
    "contribute": (
        "the task is not active, its contribution deadline has passed, this worker has contributed already, "
        "the tag requires an enclave, or the authorisation or the enclave's signature is not valid"
    ),
    "contributeAndFinalize": (
        "the task is not active, its contribution deadline has passed, somebody contributed already, "
        "the deal's trust is not 1, the callback's hash is not the digest, the tag requires an enclave, "
        "or the authorisation or the enclave's signature is not valid"
    ),
    "reveal": "no consensus yet, the reveal deadline has passed, or the digest is not the one contributed",
    "reopen": "only the pool's owner, while a consensus has passed its reveal deadline without any reveal",
    "finalize": "only the pool's owner, after the reveals, before the final deadline, with that callback",
    "claim": "the task is neither active nor revealing, or its final deadline has not passed",
    "claimArray": "a task is neither active nor revealing, or its final deadline has not passed",
    "withdraw": "the free stake is lower than the amount",
    "viewCategory": "the category does not exist",
    "changePolicy": "only the workerpool's owner; the scheduler's ratio is at most 100 (percent)",
    "matchOrders": "an asset that an order names is not a contract with an owner",
    "sponsorMatchOrders": "an asset that an order names is not a contract with an owner",
}

_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow (an amount is too large, or more is released than is locked)",
    0x12: "division by zero",
    0x21: "not a value of its enumeration",
    0x32: "index out of bounds",
}

_ERROR = bytes.fromhex("08c379a0")  # Error(string)
_PANIC = bytes.fromhex("4e487b71")  # Panic(uint256)


def standard_reason(data: bytes) -> str | None:
    """The text of `Error(string)` or `Panic(uint256)`; None for no data; else the hexadecimal itself."""
    if not data:
        return None
    if data[:4] == _PANIC and len(data) >= 36:
        number = int.from_bytes(data[4:36], "big")
        return f"Panic 0x{number:02x}: {_PANICS.get(number, 'an internal check failed')}"
    if data[:4] == _ERROR and len(data) >= 68:
        start = 4 + int.from_bytes(data[4:36], "big")
        size = int.from_bytes(data[start : start + 32], "big")
        return data[start + 32 : start + 32 + size].decode(errors="replace")
    return "0x" + data[:68].hex()


def explain(reason: str | None, doing: str = "") -> str:
    """What a refusal means and what to do, or an empty string when the reason speaks for itself.

    `doing` is the function called, which is all there is to go by when a contract gives no data.
    """
    if reason is None:
        return _SILENT.get(doing, "")
    if "matchOrders-0x" in reason:
        return _MATCH.get(reason.rpartition("0x")[2].lower(), "")
    return _TEXTS.get(reason, "")
