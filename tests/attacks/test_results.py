"""Attacks by results: of an app on its guest, and of archives on whoever unpacks them."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sealdeal.guest.outputs import MAX_DEPTH
from sealdeal.model.errors import SealdealError, TooLarge
from sealdeal.model.orders import Params
from sealdeal.model.results import (
    SEAL_ENTRY,
    UnsafeArchive,
    check_digest,
    decrypt_result,
    digest_of,
    generate_result_key,
    told_digest,
    unzip_result,
)
from sealdeal.model.types import keccak
from sealdeal.sdk.archives import unpack_result
from sealdeal.worker.relay import AttemptFailed, Done
from tests.guest.world import CALLBACK, Scene

MakeScene = Callable[..., Scene]

ANSWER = """
    import json
    open("/iexec_out/answer", "w").write("yes")
    json.dump({"deterministic-output-path": "/iexec_out/answer"}, open("/iexec_out/computed.json", "w"))
"""


async def contributes_an_error(task: Scene, cause: str) -> Done:
    """The app's trick is its own fault, attested as an error; nothing else than that leaves the guest."""
    done = await task.run()
    assert done.fault_cause == cause
    files = task.result()
    assert set(files) == {"computed.json", "error.txt"}
    assert b"root:" not in files["error.txt"]
    return done


def with_answer(trick: str) -> str:
    return ANSWER + f"\n    {trick}\n"


async def test_symlink_in_the_output(scene: MakeScene) -> None:
    """The guest opens each name without following links, and takes plain files only."""
    task = scene(with_answer("import os; os.symlink('/etc/passwd', '/iexec_out/passwd')"))
    await contributes_an_error(task, "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED")


async def test_hard_link_in_the_output(scene: MakeScene) -> None:
    """A file with two names is refused: the second may be where the app must not read or write."""
    task = scene(with_answer("import os; os.link('/iexec_out/answer', '/iexec_out/again')"))
    await contributes_an_error(task, "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED")


async def test_fifo_in_the_output(scene: MakeScene) -> None:
    """The guest looks at a name's kind before it opens it, and never waits for a writer."""
    task = scene(with_answer("import os; os.mkfifo('/iexec_out/pipe')"))
    await contributes_an_error(task, "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED")


async def test_socket_in_the_output(scene: MakeScene) -> None:
    """A socket is no plain file, and the guest connects to nothing."""
    task = scene(with_answer("import socket; socket.socket(socket.AF_UNIX).bind('/iexec_out/socket')"))
    await contributes_an_error(task, "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED")


async def test_sparse_file_in_the_output(scene: MakeScene) -> None:
    """The kernel ends an app that makes a file longer than its limit of output, however little it holds."""
    die = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"
    task = scene(with_answer(f"{die}; open('/iexec_out/x', 'w').truncate(1 << 40)"))
    done = await contributes_an_error(task, "APP_COMPUTE_FAILED")
    assert done.exit_code == 128 + 25  # SIGXFSZ


async def test_many_sparse_files_in_the_output(scene: MakeScene) -> None:
    """The guest counts the bytes that files say they have, over all of them, before it reads one."""
    task = scene(with_answer("[open(f'/iexec_out/{n}', 'w').truncate(64 << 20) for n in range(9)]"))
    await contributes_an_error(task, "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED")


async def test_deep_tree_in_the_output(scene: MakeScene) -> None:
    """The guest goes a fixed number of folders deep and no further."""
    task = scene(with_answer(f"import os; os.makedirs('/iexec_out/' + 'd/' * {MAX_DEPTH + 1})"))
    await contributes_an_error(task, "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED")


async def test_worker_that_lowers_limits_to_be_paid_for_an_error(scene: MakeScene) -> None:
    """What goes over a limit lower than every app may count on is attested as nobody's result."""
    die = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"
    for limits, trick in (({"output_files": 1}, ""), ({"output_bytes": 100}, f"{die}; print(1)")):
        task = scene(
            with_answer(trick) + "    open('/iexec_out/more', 'w').write('x' * 200)\n", limits=limits
        )
        with pytest.raises(AttemptFailed) as failed:
            await task.run()
        assert failed.value.cause in ("POST_COMPUTE_OUT_FOLDER_ZIP_FAILED", "APP_COMPUTE_FAILED")
        assert not task.store.archive


async def test_computed_json_that_is_none(scene: MakeScene) -> None:
    """What computed.json names must be a plain file or folder of the output, said in an object of texts."""
    nested = "'[' * 100_000"
    for said in (nested, '\'{"deterministic-output-path": "/iexec_out/../etc/passwd"}\''):
        task = scene(with_answer(f"open('/iexec_out/computed.json', 'w').write({said})"))
        await contributes_an_error(task, "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED")
    texts = b'{"deterministic-output-path": {}}', b'{"deterministic-output-path": "/iexec_out/..%2f"}'
    for content in (b"[]", b"1", b"\xff\xfe", b"", b'{"callback-data": ["0x"]}', *texts):
        with pytest.raises(SealdealError, match=r"computed\.json"):
            told_digest(content, {"answer"}, lambda name: keccak(b""))


async def test_callback_data_that_no_block_can_take(scene: MakeScene) -> None:
    """Callback data above what the hub takes is the app's fault, so that the task ends and is not stuck."""
    text = """
        import json
        json.dump({"callback-data": "0x" + "ab" * 1025}, open("/iexec_out/computed.json", "w"))
    """
    task = scene(text, callback=CALLBACK)
    done = await task.run()
    assert done.fault_cause == "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED"
    assert (done.callback, done.digest) == (b"", keccak(b""))


async def test_guess_of_a_small_result_by_its_digest(scene: MakeScene) -> None:
    """With a sealed digest the chain keeps a salted hash; the salt lies in the encrypted result alone."""
    private, public = generate_result_key(2048)
    asked = Params(result_encryption=True, sealed_digest=True)
    task = scene(ANSWER, params=asked, result_key=public)
    done = await task.run()
    said = json.dumps({"deterministic-output-path": "/iexec_out/answer"}).encode()
    settled = task.deal.settled_digest
    guess = digest_of({"computed.json": said, "answer": b"yes"})
    with pytest.raises(SealdealError, match="on chain it is"):
        check_digest(guess, None, done.digest, settled)
    seal = decrypt_result(task.store.archive, private)[SEAL_ENTRY]
    assert check_digest(guess, seal, done.digest, settled) == "sealed"


async def test_size_of_an_encrypted_result_tells_its_content(scene: MakeScene) -> None:
    """A result with a sealed digest is padded to a step of sizes before it is encrypted."""
    _, public = generate_result_key(2048)
    asked = Params(result_encryption=True, sealed_digest=True)
    sizes = set()
    for answer in ("yes", "no, and here is why: " + "because " * 200):
        task = scene(ANSWER.replace("yes", answer), params=asked, result_key=public)
        await task.run()
        sizes.add(len(task.store.archive))
    assert len(sizes) == 1


# --- archives, on the side that unpacks them ------------------------------------------------------


def archive(*entries: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in (*entries, ("answer", b"yes")):
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            info.external_attr = (mode if name != "answer" else 0o100644) << 16
            made.writestr(info, data)
    return buffer.getvalue()


def refused(
    content: bytes, place: Path, error: type[SealdealError] = UnsafeArchive, limit: int = 1 << 30
) -> None:
    """In memory and on disk; nothing of it is left, in its folder or outside."""
    (inside := place / "in" / "side").mkdir(parents=True)
    (source := inside / "archive.zip").write_bytes(content)
    with pytest.raises(error):
        unzip_result(content, max_bytes=limit)
    with pytest.raises(error):
        unpack_result(source, inside / "out", expected=bytes(32), settled=lambda digest: digest, limit=limit)
    left = [path for path in place.rglob("*") if not stat.S_ISDIR(path.lstat().st_mode)]
    assert left == [source] and not (inside / "out").exists()


def test_zip_with_a_name_that_climbs_out(tmp_path: Path) -> None:
    """The client takes relative names without `..` only, and looks at all of them before it writes one."""
    refused(archive(("../../climbed", b"x")), tmp_path)


def test_zip_with_an_absolute_name(tmp_path: Path) -> None:
    """The client takes relative names only."""
    refused(archive((f"{tmp_path}/absolute", b"x")), tmp_path)


def test_zip_with_a_backslash_in_a_name(tmp_path: Path) -> None:
    """A backslash separates folders elsewhere: no name may have one."""
    refused(archive(("..\\..\\climbed", b"x")), tmp_path)


def test_zip_with_a_drive_in_a_name(tmp_path: Path) -> None:
    """A colon names a drive or a stream elsewhere: no name may have one."""
    refused(archive(("C:climbed", b"x")), tmp_path)


def test_zip_with_a_symlink(tmp_path: Path) -> None:
    """Only entries that say they are plain files or folders are taken, so nothing can be written through."""
    refused(archive(("link", b"/etc"), mode=0o120777), tmp_path)


def test_zip_with_a_device(tmp_path: Path) -> None:
    """Only entries that say they are plain files or folders are taken."""
    refused(archive(("device", b""), mode=0o020666), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_a_name_twice(tmp_path: Path) -> None:
    """Two entries of one name would be one file to a checker and another to a reader: neither is taken."""
    refused(archive(("answer", b"no")), tmp_path)


def test_zip_with_a_file_below_a_file(tmp_path: Path) -> None:
    """Names must make a tree of files."""
    refused(archive(("answer/inner", b"x")), tmp_path)


def test_zip_bomb(tmp_path: Path) -> None:
    """The client counts the bytes that come out, and stops at its limit."""
    refused(archive(("zeros", bytes(16 << 20))), tmp_path, TooLarge, limit=1 << 20)


def test_zip_of_very_many_files(tmp_path: Path) -> None:
    """The client counts entries before it unpacks one."""
    refused(archive(*((str(number), b"") for number in range(10_001))), tmp_path, TooLarge)


def test_zip_that_lies_about_a_size(tmp_path: Path) -> None:
    """What an entry gives is compared with what it says, and counted as it comes."""
    lying = bytearray(archive(("zeros", bytes(1 << 20))))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = lying.index(signature) + offset
        lying[at : at + 4] = (5).to_bytes(4, "little")
    refused(bytes(lying), tmp_path)


def test_zip_whose_entries_share_their_bytes(tmp_path: Path) -> None:
    """Entries that lie on each other, which make a bomb without nesting, end in an error or at the limit."""
    made = bytearray(archive(("zeros", bytes(4 << 20))))
    entry = made[made.index(b"PK\x01\x02") :]
    length = 46 + int.from_bytes(entry[28:30], "little")
    directory, end = bytes(entry[:length]), made.rindex(b"PK\x05\x06")
    copies = [directory.replace(b"zeros", b"%05d" % number) for number in range(50)]
    start = made.index(b"PK\x01\x02")
    tail = bytearray(made[end:])
    tail[8:10] = tail[10:12] = (50).to_bytes(2, "little")
    tail[12:16] = (50 * length).to_bytes(4, "little")
    refused(bytes(made[:start]) + b"".join(copies) + bytes(tail), tmp_path)
