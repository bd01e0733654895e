"""One task from the worker's hello to the result: what happens inside the enclave, in order."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealdeal.model.deals import task_id
from sealdeal.model.evidence import impossible
from sealdeal.model.images import Process
from sealdeal.model.orders import Params
from sealdeal.model.results import COMPUTED, OUT
from sealdeal.model.sealing import SecretKind
from sealdeal.model.types import ZERO, Address, hexstr, keccak

from . import app, inputs
from .admission import Admission, Asking
from .archive import bytes_entry
from .delivery import Delivery, Outcome, seals
from .failures import AppFault, Failure
from .hello import PROMISED_BYTES, Hello
from .network import Network, ask_for_hosts
from .outputs import Outputs
from .stream import Channel

_IMPOSSIBLE: Final = {
    "APP_IMAGE_DOWNLOAD_FAILED": "the app's checksum on chain is zero: no image has it",
    "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING": "the deal asks for an encrypted result, and no key of its "
    "beneficiary is known (deals without a TEE cannot have one)",
}
ERROR_FILE: Final = "error.txt"
_STDERR_TAIL: Final = 8 << 10
_TOO_LONG: Final = 128 + signal.SIGXFSZ
_ROOM: Final = 2 * PROMISED_BYTES
"""What an app may leave, and its archive."""
_RESERVED_FILES, _RESERVED_BYTES = 4, 64 << 10
"""Enough for an error and its archive, in bytes and in inodes."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one task is done."""

    work: Path
    bwrap: Path

    def make(self) -> None:
        for folder in (self.root, self.inputs, self.outputs, self._reserve):
            folder.mkdir()
        for number in range(_RESERVED_FILES):
            (self._reserve / str(number)).write_bytes(bytes(_RESERVED_BYTES))

    @property
    def room(self) -> int:
        """Bytes that may still be written."""
        found = os.statvfs(self.work)
        return found.f_bavail * found.f_frsize

    def make_room(self) -> None:
        """For the error that is an app's own which has filled everything: what was held back is free now."""
        for file in self._reserve.iterdir():
            file.unlink()

    def drop_inputs(self) -> None:
        """The app has ended, and its result's archive needs room: what it read goes."""
        shutil.rmtree(self.inputs, ignore_errors=True)

    @property
    def _reserve(self) -> Path:
        return self.work / "reserve"

    @property
    def root(self) -> Path:
        """The app's image."""
        return self.work / "root"

    @property
    def inputs(self) -> Path:
        return self.work / "in"

    @property
    def outputs(self) -> Path:
        return self.work / "out"


def run(channel: Channel, work: Path, bwrap: Path) -> None:
    """Do the task that `channel` opens with, in the empty folder `work`, and say `done`.

    Raises Failure (nothing is to be contributed), or BrokenStream when the worker went away.
    """
    hello, place = Hello.from_json(channel.hello()), _Place(work, bwrap)
    place.make()
    admission, outcome = (_attested if hello.deal.tee else _standard)(channel, hello, place)
    channel.event("status", phase="COMPUTED")
    place.drop_inputs()
    channel.event("done", **Delivery(channel, hello, admission, outcome).deliver(work))


def _attested(channel: Channel, hello: Hello, place: _Place) -> tuple[Admission, Outcome]:
    """A deal that asks for a TEE: evidence first, then secrets, then the app.

    What the deal itself makes impossible is attested as an error: all that shows it is in the manifest.
    """
    deal, params = hello.deal, hello.deal.parsed_params
    asking = Asking(channel, hello, secrets.token_bytes)
    asking.begin()
    bulk = asking.bulk = inputs.fetch_bulk(channel, hello) if params.bulk_cid else None
    process = _fetch_app(channel, hello, place) if any(hello.app_checksum) else None
    manifest = asking.prove()
    channel.event("status", phase="DATA_DOWNLOADING", step="attested")
    if fault := _fault(hello, params, manifest.impossible, bulk):
        return asking.admission(), _error(hello, fault, ran=False)
    assert process is not None
    admission = asking.admission()
    found = admission.gathered.secrets
    key = found[(SecretKind.DATASET_KEY.value, "")] if deal.has_dataset else None
    _fetch_data(channel, hello, params, place, key)
    left_out = _fetch_bulk_data(channel, hello, bulk, place, found)
    said = "; ".join(filter(None, [_blame(admission.gathered.blamed), left_out]))
    channel.event("status", phase="DATA_DOWNLOADED", step="secrets", message=said)
    channel.event("status", phase="COMPUTING", step="app")
    variables = _environment(hello, params, found, bulk)
    return admission, _compute(channel, hello, params, process, variables, place)


def _standard(channel: Channel, hello: Hello, place: _Place) -> tuple[None, Outcome]:
    """A deal without a TEE: the same sandboxes, but no evidence, and so no secrets. Data arrive as they lie.

    That the deal is one is the worker's word. A worker that lies about it gains a run without secrets, on
    data that stay encrypted, and a result that the hub refuses.

    What the deal itself makes impossible is contributed as an error: no offer can refuse such a deal, and
    left undone it would cost the pool its stake.
    """
    deal, params = hello.deal, hello.deal.parsed_params
    bulk = inputs.fetch_bulk(channel, hello) if params.bulk_cid else None
    if fault := _fault(hello, params, impossible(hello.app_checksum, deal.params, ""), bulk):
        return None, _error(hello, fault, ran=False)
    process = _fetch_app(channel, hello, place)
    channel.event("status", phase="DATA_DOWNLOADING")
    _fetch_data(channel, hello, params, place, None)
    left_out = _fetch_bulk_data(channel, hello, bulk, place, None)
    channel.event("status", phase="DATA_DOWNLOADED", message=left_out)
    channel.event("status", phase="COMPUTING", step="app")
    variables = _environment(hello, params, {}, bulk)
    return None, _compute(channel, hello, params, process, variables, place)


def _fetch_app(channel: Channel, hello: Hello, place: _Place) -> Process:
    channel.event("status", phase="APP_DOWNLOADING")
    process = inputs.fetch_image(channel, hello, place.root)
    channel.event("status", phase="APP_DOWNLOADED")
    if process.hosts:
        ask_for_hosts(channel, process.hosts)
    return process


def _fetch_data(channel: Channel, hello: Hello, params: Params, place: _Place, key: bytes | None) -> None:
    if hello.deal.has_dataset:
        inputs.fetch_dataset(channel, hello, place.inputs / hello.deal.dataset.pointer, key)
    for number, url in enumerate(params.input_files, 1):
        inputs.fetch_input(channel, number, url, place.inputs, hello.limits.dataset_bytes)


def _fetch_bulk_data(
    channel: Channel,
    hello: Hello,
    bulk: inputs.Bulk | None,
    place: _Place,
    found: dict[tuple[str, str], bytes] | None,
) -> str:
    """Fetch those of the slice's datasets that the app may see; what is to be said of the others.

    In a TEE these are the ones whose keys the nodes released (`found`); without one, those that the worker
    says fit the deal, as they lie in their store.
    """
    left_out = []
    for number, dataset in enumerate(bulk.datasets if bulk else (), 1):
        key = None if found is None else found.get((SecretKind.DATASET_KEY.value, dataset.dataset))
        seen = hello.bulk[number - 1].usable if found is None else key is not None
        if not seen or not inputs.fetch_one_of_many(channel, hello, number, dataset, place.inputs, key):
            left_out.append(f"left out dataset {number}, {dataset.dataset}")
    return "; ".join(left_out)


def _blame(blamed: dict[Address, str]) -> str:
    return "; ".join(f"set aside node {node}: {why}" for node, why in sorted(blamed.items()))


def _fault(hello: Hello, params: Params, cause: str, bulk: inputs.Bulk | None) -> AppFault | None:
    """What the deal itself makes impossible for everyone; `cause`: as `model.evidence.impossible` says."""
    if bulk and bulk.fault:
        return AppFault("TASK_DESCRIPTION_INVALID", f"the documents of the deal's bulk: {bulk.fault}")
    if params.result_storage_provider != "ipfs" and hello.deal.callback == ZERO:
        return AppFault(
            "TASK_DESCRIPTION_INVALID",
            f"the deal asks for its result in {params.result_storage_provider[:40]}; "
            "here ipfs is the one storage",
        )
    return AppFault(cause, _IMPOSSIBLE[cause]) if cause else None


def _environment(
    hello: Hello, params: Params, found: dict[tuple[str, str], bytes], bulk: inputs.Bulk | None
) -> dict[str, str]:
    """wire.md §5.2 and §2.2."""
    deal = hello.deal
    variables = {
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "IEXEC_TASK_ID": hexstr(task_id(deal.dealid, hello.index)),
        "IEXEC_DEAL_ID": hexstr(deal.dealid),
        "IEXEC_TASK_INDEX": str(hello.index),
        "IEXEC_IN": "/iexec_in",
        "IEXEC_OUT": OUT,
        "IEXEC_BOT_SIZE": str(deal.bot_size),
        "IEXEC_BOT_FIRST_INDEX": str(deal.bot_first),
        "IEXEC_BOT_TASK_INDEX": str(hello.index),
        "IEXEC_DATASET_ADDRESS": deal.dataset.pointer,
        "IEXEC_DATASET_FILENAME": deal.dataset.pointer,
        "IEXEC_INPUT_FILES_NUMBER": str(len(params.input_files)),
    }
    if params.input_files:
        variables["IEXEC_INPUT_FILES_FOLDER"] = "/iexec_in"
    for number, url in enumerate(params.input_files, 1):
        variables[f"IEXEC_INPUT_FILE_NAME_{number}"] = inputs.input_name(url)
    if bulk:
        variables["IEXEC_BULK_SLICE_SIZE"] = str(len(bulk.datasets))
        for number, dataset in enumerate(bulk.datasets, 1):
            variables[f"IEXEC_DATASET_{number}_FILENAME"] = dataset.dataset
    for (kind, _), value in found.items():
        if kind == SecretKind.APP_SECRET:
            text = _text(value, "the app developer's secret")
            variables |= {"IEXEC_APP_DEVELOPER_SECRET": text, "IEXEC_APP_DEVELOPER_SECRET_1": text}
    for number, name in params.secrets.items():
        held = found.get((SecretKind.REQUESTER_SECRET.value, name))
        if number > 0 and held is not None:
            variables[f"IEXEC_REQUESTER_SECRET_{number}"] = _text(held, f"the requester's secret {name}")
    return variables


def _text(value: bytes, what: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Failure("TASK_DESCRIPTION_INVALID", f"{what} is no text, and cannot be in an app's environment")
    return text


def _compute(
    channel: Channel,
    hello: Hello,
    params: Params,
    process: Process,
    environment: dict[str, str],
    place: _Place,
) -> Outcome:
    """Run the app and pack what it left, or the error that it is to blame for.

    On a worker with less room than an app may count on, nothing is the app's fault.
    """
    stderr, exit_code = b"", None
    roomy = place.room >= _ROOM
    try:
        ended = app.run_app(
            place.bwrap,
            place.root,
            place.inputs,
            place.outputs,
            process,
            params.args,
            environment,
            hello.limits,
            Network(channel, process.hosts) if process.hosts else None,
        )
        stderr, exit_code = ended.stderr, ended.exit_code
        if ended.exit_code == _TOO_LONG and not hello.limits.as_promised:
            raise Failure("APP_COMPUTE_FAILED", "the app's output is longer than this worker allows")
        if ended.exit_code:
            raise AppFault("APP_COMPUTE_FAILED", _how(ended.exit_code), ended.exit_code)
        outputs = Outputs(place.outputs, hello.limits)  # open until the guest ends: read when it is sent
        computed = outputs.computed()
        if hello.deal.callback != ZERO and computed.callback is None:
            raise AppFault(
                "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED",
                f"the deal asks for a callback and its {COMPUTED} has no callback-data",
            )
        logs = {"stdout.txt": ended.stdout, "stderr.txt": ended.stderr}
        entries = outputs.entries(logs, sealed=seals(hello))
        return Outcome(
            computed.digest,
            computed.callback or b"",
            tuple(entries),
            None,
            exit_code,
            stdout=ended.stdout,
            stderr=ended.stderr,
        )
    except AppFault as fault:
        if not roomy:
            what = f"{fault}; but this worker gives apps less than {_ROOM >> 20} MiB for files"
            raise Failure(fault.cause, what) from None
        if fault.exit_code is None:
            fault.exit_code = exit_code
        place.make_room()
        return _error(hello, fault, stderr)


def _error(hello: Hello, fault: AppFault, stderr: bytes = b"", *, ran: bool = True) -> Outcome:
    """The error that is contributed in a result's place."""
    error = _error_text(fault, stderr, ran)
    said = {"deterministic-output-path": f"{OUT}/{ERROR_FILE}", "error-message": fault.cause}
    entries = bytes_entry(COMPUTED, json.dumps(said).encode()), bytes_entry(ERROR_FILE, error)
    # A callback's digest must be that of its data, on chain: an error calls back with none.
    callback = hello.deal.callback != ZERO
    digest = keccak(b"") if callback else hashlib.sha256(error).digest()
    return Outcome(digest, b"", entries, fault, fault.exit_code, ran, stderr=stderr)


def _how(exit_code: int) -> str:
    return (
        f"the app ended by signal {exit_code - 128}"
        if exit_code > 128
        else f"the app exited with code {exit_code}"
    )


def _error_text(fault: AppFault, stderr: bytes, ran: bool) -> bytes:
    """error.txt: for the beneficiary, so that it may quote the app."""
    lines = [f"cause: {fault.cause}", f"message: {fault}"]
    if fault.exit_code is not None:
        lines.append(f"exit code: {fault.exit_code}")
    if not ran:
        return "\n".join([*lines, ""]).encode()
    tail = stderr[-_STDERR_TAIL:].decode(errors="replace")
    return "\n".join([*lines, "", "the end of the app's standard error:", tail]).encode()
