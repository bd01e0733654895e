"""./dev: it refuses what it cannot trust, and says what to do where it cannot go on."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).parents[1]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def versions(file: str) -> dict[str, str]:
    text = (ROOT / "requirements" / file).read_text()
    return dict(re.findall(r"^([a-z0-9][^=\s]*)==([^\s;]+)", text, re.MULTILINE))


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_exact_and_hashed_and_names_no_address(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9._\-\[\]]*==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_development_packages_contain_the_runtime_ones() -> None:
    assert versions("run.txt").items() <= versions("dev.txt").items()
    assert versions("run.txt")


def test_every_dependency_of_the_project_is_compiled() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    compiled = versions("dev.txt")
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    wanted += [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    names = {re.split(r"[\[<>=~ ]", name)[0] for name in wanted}
    assert names <= compiled.keys()


def test_help_names_every_command() -> None:
    source = (ROOT / "dev.py").read_text()
    commands = re.findall(r'^        case "([a-z]+)":', source, re.MULTILINE)
    assert len(commands) > 8
    assert [c for c in commands if f"./dev {c} " not in dev.HELP] == []


def test_an_unknown_command_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.main(["frobnicate"]) == 2
    said = capsys.readouterr().err
    assert "'frobnicate'" in said and "./dev demo" in said


def test_without_a_new_enough_python_it_says_what_to_install(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dev", tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname",):
        (folder / name).symlink_to(shutil.which(name) or "")
    for name in ("python3", "python3.12"):  # an old one, and a shim of one that is not there
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", tmp_path / "dev", "test"], env={"PATH": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "3.11" in done.stderr and "apt install python3" in done.stderr


def test_a_newer_python_beside_an_old_one_is_found(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dev", tmp_path)
    (tmp_path / "dev.py").write_text("import sys; print('started with', sys.argv[1:])")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "dirname").symlink_to(shutil.which("dirname") or "")
    (folder / "python3").write_text("#!/bin/sh\nexit 1\n")
    (folder / "python3").chmod(0o755)
    (folder / "python3.12").symlink_to(getattr(sys, "_base_executable", sys.executable))
    done = subprocess.run(
        ["/bin/sh", tmp_path / "dev", "run", "a b"], env={"PATH": str(folder)}, capture_output=True, text=True
    )
    assert done.stdout == "started with ['run', 'a b']\n"


def tarball(path: Path, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode = kind, len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return str(path)


def test_a_package_is_unpacked_without_its_outer_folder(tmp_path: Path) -> None:
    dev.unpack(tarball(tmp_path / "p.tgz", ("package/bin/anvil", b"elf")), str(tmp_path / "out"))
    assert (tmp_path / "out/bin/anvil").read_bytes() == b"elf"
    assert (tmp_path / "out/bin/anvil").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["package/../../escaped", "/etc/escaped", "other/file", "../escaped"])
def test_a_package_with_a_foreign_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(dev.Stop, match="npm packages do not have"):
        dev.unpack(tarball(tmp_path / "p.tgz", (name, b"")), str(tmp_path / "in" / "out"))
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_package_with_links_or_pipes_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(dev.Stop):
        dev.unpack(tarball(tmp_path / "p.tgz", ("package/x", b""), kind=kind), str(tmp_path / "out"))


@pytest.mark.parametrize("pinned_in", ["anvil.json", "poco.json"])
def test_npm_packages_are_pinned_to_one_version_and_its_sha512(pinned_in: str) -> None:
    pinned = dev.pins(pinned_in)
    assert re.fullmatch(r"\d+\.\d+\.\d+", pinned["version"])
    hashes = pinned["sha512"].values() if isinstance(pinned["sha512"], dict) else [pinned["sha512"]]
    assert [len(base64.b64decode(each, validate=True)) for each in hashes] == [64] * len(hashes) != []


def test_the_javascript_tools_are_pinned_with_all_that_they_need() -> None:
    folder = ROOT / "requirements" / "js"
    text = (folder / "package-lock.json").read_text()
    assert "://" not in text
    packages = json.loads(text)["packages"]
    asked = json.loads((folder / "package.json").read_text())["dependencies"]
    assert packages.pop("")["dependencies"] == asked
    assert {"iexec", "@iexec/dataprotector", "esbuild", "graphql", "socket.io-client", "undici"} == set(asked)
    for name, package in packages.items():
        assert re.match(r"\d+\.\d+\.\d+", package["version"]), name
        kind, _, digest = package["integrity"].partition("-")
        assert kind == "sha512" and len(base64.b64decode(digest, validate=True)) == 64, name
    assert all(packages[f"node_modules/{name}"]["version"] == version for name, version in asked.items())


def test_a_javascript_package_with_another_hash_is_not_installed(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By npm itself, without its registry: the package lies in a file."""
    content = tarball(elsewhere / "p.tgz", ("package/package.json", b'{"name":"p","version":"1.0.0"}'))
    right = base64.b64encode(hashlib.sha512(Path(content).read_bytes()).digest()).decode()
    at = f"file:{content}"
    monkeypatch.setattr(dev, "ROOT", str(elsewhere / "root"))
    monkeypatch.setattr(dev, "JS", str(elsewhere / "npm/js"))
    pinned = elsewhere / "root/requirements/js"
    pinned.mkdir(parents=True)
    (pinned / "package.json").write_text(json.dumps({"dependencies": {"p": at}}))
    for digest, fits in ((right, True), (base64.b64encode(bytes(64)).decode(), False)):
        entry = {"version": "1.0.0", "resolved": at, "integrity": f"sha512-{digest}"}
        packages = {"": {"dependencies": {"p": at}}, "node_modules/p": entry}
        document = {"lockfileVersion": 3, "requires": True, "packages": packages}
        (pinned / "package-lock.json").write_text(json.dumps(document))
        if fits:
            dev.install_js()
            assert dev.js_fresh()
        else:
            with pytest.raises(dev.Stop, match="EINTEGRITY"):
                dev.install_js()
            assert not dev.js_fresh()
        assert (elsewhere / "npm/js/node_modules/p/package.json").is_file()  # what was there stays
    assert [path.name for path in (elsewhere / "npm").iterdir()] == ["js"]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dev.py installs here, on a platform that has pinned packages."""
    monkeypatch.setattr(dev, "DEV", str(tmp_path))
    monkeypatch.setattr(dev, "BIN", str(tmp_path / "bin"))
    monkeypatch.setattr(dev, "STAMPS", str(tmp_path / "stamps"))
    monkeypatch.setattr(dev, "POCO", str(tmp_path / "npm/@iexec/poco"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "stamps").mkdir()
    return tmp_path


def packing(monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
    """npm's answer is this package from now on; its sha512 as requirements/ write it."""

    def pack(package: str, folder: str) -> str:
        return tarball(Path(folder) / "p.tgz", ("package/artifacts/x.json", content))

    monkeypatch.setattr(dev, "npm_pack", pack)
    with tempfile.TemporaryDirectory() as folder:
        return base64.b64encode(hashlib.sha512(Path(pack("", folder)).read_bytes()).digest()).decode()


def test_an_anvil_with_another_hash_is_not_installed(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing(monkeypatch, b"another")
    with pytest.raises(dev.Stop, match=r"requirements/anvil\.json says"):
        dev.install_anvil()
    assert not (elsewhere / "bin").exists()
    assert list((elsewhere / "npm").iterdir()) == [] and dev.stamp("anvil") == ""


def test_official_contracts_with_another_hash_do_not_replace_the_pinned_ones(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = packing(monkeypatch, b"{}")
    monkeypatch.setattr(dev, "pins", lambda name: {"version": "6.1.0", "sha512": right})
    dev.install_poco()
    assert dev.poco_fresh()
    packing(monkeypatch, b"another")
    with pytest.raises(dev.Stop, match=r"(?s)@iexec/poco@6\.1\.0 has sha512 .*requirements/poco\.json says"):
        dev.install_poco()
    assert (elsewhere / "npm/@iexec/poco/artifacts/x.json").read_bytes() == b"{}"
    assert [path.name for path in (elsewhere / "npm").iterdir()] == ["@iexec"]


def test_only_the_development_level_fetches_the_official_contracts(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "packages_fresh", lambda level: True)
    monkeypatch.setattr(dev, "anvil_fresh", lambda: True)
    for fresh in ("halmos_fresh", "js_fresh"):
        monkeypatch.setattr(dev, fresh, lambda: True)
    right = packing(monkeypatch, b"{}")
    monkeypatch.setattr(dev, "pins", lambda name: {"version": "6.1.0", "sha512": right})
    dev.prepare("run")
    assert not (elsewhere / "npm").exists()
    dev.prepare("dev")
    assert (elsewhere / "npm/@iexec/poco/artifacts/x.json").is_file()
    monkeypatch.setattr(dev, "npm_pack", lambda package, folder: pytest.fail(f"{package} fetched again"))
    dev.prepare("dev")


def test_only_the_development_level_has_halmos_in_an_environment_of_its_own(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fresh in ("packages_fresh", "anvil_fresh", "poco_fresh", "js_fresh"):
        monkeypatch.setattr(dev, fresh, lambda *_: True)
    monkeypatch.setattr(dev, "HALMOS", str(elsewhere / "halmos"))
    monkeypatch.setattr(dev, "install_uv", lambda: None)
    asked: list[tuple[str, ...]] = []

    def uv(*arguments: str) -> None:
        asked.append(arguments)
        (elsewhere / "halmos/bin").mkdir(parents=True, exist_ok=True)
        (elsewhere / "halmos/bin/halmos").touch()

    monkeypatch.setattr(dev, "uv", uv)
    dev.prepare("run")
    assert not asked
    dev.prepare("dev")
    dev.prepare("dev")
    assert [arguments[0] for arguments in asked] == ["venv", "pip"]
    assert "--require-hashes" in asked[1] and asked[1][-1].endswith("requirements/halmos.txt")


def test_without_pip_and_without_root_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "can_use_apt", lambda: False)
    monkeypatch.setattr(dev, "find_pip", lambda base: [])
    with pytest.raises(dev.Stop, match="apt install python3-venv"):
        dev.pip()


def test_a_failed_step_shows_what_was_said_and_leaves_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "STAMPS", str(tmp_path))
    with pytest.raises(dev.Stop, match=r"(?s)no such index.*exit code 3"), dev.step("did it", "it", "1"):
        dev.execute([sys.executable, "-c", "print('no such index'); raise SystemExit(3)"])
    assert dev.stamp("it") == ""
    with dev.step("did it", "it", "1"):
        dev.execute([sys.executable, "-c", ""])
    assert dev.stamp("it") == "1"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any tool, not even apt; returns the folder that is its whole PATH."""
    monkeypatch.setattr(dev, "APT", str(tmp_path / "apt"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = dev.on_path
    monkeypatch.setattr(
        dev, "on_path", lambda program, folders="": found(program, "") if not folders else None
    )
    monkeypatch.setattr(dev, "first", lambda pattern: None)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_a_missing_sandbox_stops_what_needs_it(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = dev.missing_tools("demo")
    assert [tool.name for tool in missing] == ["bwrap"]
    with pytest.raises(dev.Stop, match="apt install bubblewrap"):
        dev.install_tools(missing, ("bwrap",))
    dev.install_tools(missing, ())
    assert "apt install bubblewrap" in capsys.readouterr().err


def test_every_level_of_tools_contains_the_one_before(bare: Path) -> None:
    demo, tests, soak = (
        [tool.name for tool in dev.missing_tools(level)] for level in ("demo", "test", "soak")
    )
    assert demo == tests[: len(demo)] and tests == soak[: len(tests)]
    assert {"runc", "docker-registry"} <= set(tests) and "qemu-system-x86_64" in set(soak) - set(tests)
    assert dev.missing_tools("") == []


def test_a_tool_that_is_there_is_not_missing(bare: Path) -> None:
    (bare / "bwrap").touch(0o755)
    assert dev.missing_tools("demo") == []


def test_what_apt_cannot_bring_is_named_and_the_rest_goes_on(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (bare / "apt-get").touch(0o755)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    asked: list[str] = []

    def apt(*arguments: str, cwd: str = "") -> None:
        asked.append(arguments[-1])
        if arguments[-1] == "runc":
            raise dev.Stop("no package runc")
        (bare / {"bubblewrap": "bwrap"}.get(arguments[-1], arguments[-1])).touch(0o755)

    monkeypatch.setattr(dev, "apt", apt)
    tools = [tool for tool in dev.TOOLS if tool.name in ("bwrap", "openssl", "runc")]
    dev.install_tools(tools, ("bwrap",))
    assert asked == ["update", "bubblewrap", "openssl", "runc"]
    said = capsys.readouterr().err
    assert "no package runc" in said and "each by name" in said and "openssl is missing" not in said


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="only Debian and its kin have dpkg-deb")
def test_a_package_of_debians_is_unpacked_and_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    (source / "DEBIAN").mkdir(parents=True)
    told = "Package: it\nVersion: 1\nArchitecture: all\nMaintainer: tests\nDescription: it\n"
    (source / "DEBIAN/control").write_text(told)
    (source / "DEBIAN/postinst").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (source / "DEBIAN/postinst").chmod(0o755)
    (source / "usr/bin").mkdir(parents=True)
    (source / "usr/bin/it").touch(0o755)

    def apt(*arguments: str, cwd: str = "") -> None:
        assert arguments == ("download", "it")
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", source, cwd], check=True)

    monkeypatch.setattr(dev, "APT", str(tmp_path / "apt"))
    monkeypatch.setattr(dev, "apt", apt)
    tool = dev.Tool("it", "it", "tests", "test", unpacked=True, at="usr/bin/it")
    assert tool.path() is None
    for _ in range(2):
        dev.unpack_from_apt("it")
        assert tool.path() == str(tmp_path / "apt/it/usr/bin/it")
    assert [path.name for path in (tmp_path / "apt").iterdir()] == ["it"]
    assert not (tmp_path / "started").exists()


def test_what_it_starts_compiles_a_module_once_and_keeps_it_in_its_own_folder(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dev.py", tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    (source / "module.py").touch()
    (tmp_path / ".dev/venv/bin").mkdir(parents=True)
    (tmp_path / ".dev/venv/bin/python").symlink_to(sys.executable)
    become = f"import dev; dev.become(['-c', 'import subprocess, sys; {STARTED}'], cwd={str(source)!r})"
    forbidding = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", become], cwd=tmp_path, env=forbidding, check=True)
    assert [path.name for path in source.iterdir()] == ["module.py"]
    kept = tmp_path / ".dev" / "compiled" / source.relative_to("/")
    assert [path.name.split(".")[0] for path in kept.iterdir()] == ["module"]


STARTED = 'subprocess.run([sys.executable, "-c", "import module"], check=True)'


def test_the_soak_runs_what_the_tests_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(dev, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(dev, "become", lambda arguments, cwd="": became.append(arguments))
    dev.main(["test", "-m", "mine"])
    dev.main(["soak"])
    tests, soak = ([a[n + 1] for n, name in enumerate(a) if name == "-m"][1:] for a in became)
    assert tests == ["not soak", "mine"]  # pytest goes by the last
    assert soak == ["hypothesis or soak"]


def test_runtime_packages_count_as_there_when_the_development_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "STAMPS", str(tmp_path))
    monkeypatch.setattr(dev, "PYTHON", sys.executable)
    assert not dev.packages_fresh("run")
    (tmp_path / "packages").write_text(dev.package_inputs("dev"))
    assert dev.packages_fresh("run") and dev.packages_fresh("dev")
    (tmp_path / "packages").write_text(dev.package_inputs("run"))
    assert dev.packages_fresh("run") and not dev.packages_fresh("dev")
    (tmp_path / "packages").write_text("dev " + "0" * 64)
    assert not dev.packages_fresh("run")
