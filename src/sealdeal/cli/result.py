"""`sealdeal result`: fetch, decrypt and check results."""

from __future__ import annotations

import json as json_format
from pathlib import Path

from cyclopts import App

from sealdeal.model.receipts import Receipt
from sealdeal.model.types import bytes32

from . import session
from .session import AsJson, WalletName
from .wallet import read_result_key

result = App(name="result", help="Fetch results.")


@result.command
async def get(
    taskid: str, *, out: Path | None = None, wallet: WalletName = None, json: AsJson = False
) -> None:
    """Download a task's result, decrypt it with the wallet's result key, check it, and write it to a folder.

    Parameters
    ----------
    taskid
        The task's id, 0x and 64 digits.
    out
        Folder for the files; `result-` and the id's first digits by default. It must not exist yet.
    """
    wanted = bytes32(taskid)
    name = wallet or session.settings().wallet
    folder = out or Path(f"result-{wanted.hex()[:8]}")
    session.refuse_existing(folder)
    path = session.result_key_file(name)
    private = read_result_key(path, session.password(name)) if path.exists() else None
    async with session.connected() as client:
        saved = await client.save_result(wanted, folder, private)
    receipt = save_receipt(saved.receipt) if saved.receipt else None
    session.show(
        {"folder": str(folder), "files": list(saved.files), "receipt": str(receipt) if receipt else None},
        as_json=json,
    )


@result.command
async def verify(receipt: Path, *, json: AsJson = False) -> None:
    """Check a receipt file against its signatures, the chain, and the TEE's root.

    Parameters
    ----------
    receipt
        The file that `sealdeal result get` or a demo wrote.
    """
    held = Receipt.from_json(json_format.loads(receipt.read_text()))
    async with session.connected() as client:
        await client.verify(held)
    answer = {
        "receipt": str(receipt),
        "task": held.taskid,
        "verified": True,
        "trust": held.trust,
        "digest": "sealed" if held.sealed_digest else "plain",
    }
    session.show(answer, as_json=json)


def save_receipt(receipt: Receipt) -> Path:
    """Write a receipt where receipts are kept; its path."""
    folder = session.settings().receipts
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{receipt.taskid}.json"
    path.write_text(json_format.dumps(receipt.to_json(), indent=1) + "\n")
    return path
