"""A Coppice of one's own on this machine, for the demo and for `make run`: all in one directory.

A pool (ZFS on a file where this machine can, else the directory pool), a registry, keys, a
database, a server, each on a free port of 127.0.0.1. What listens on ports already is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var"
HOME = VAR / "demo"  # another one: work_in
PYTHON = ROOT / ".venv" / "bin" / "python"
COPPICE = ROOT / ".venv" / "bin" / "coppice"
PRIVATE_ZFS = ROOT / "deploy" / "private-zfs"
#: Before what mounts: zfs-fuse hangs where two do (templates_app/datasets/zfs_command.py).
ALONE = ("flock", "/var/run/zfs")
NO_ZFS_HERE = 69  # private-zfs's exit status where root, /dev/fuse or a program is missing
POOL_FILE_BYTES = 4 << 30  # sparse: it takes what is written
START_SECONDS = 60.0
USUAL_PORT = 8420  # COPPICE_URL's default


class Failed(Exception):
    """The text is for the person who typed make."""


def work_in(directory: Path) -> None:
    global HOME
    HOME = directory.resolve()


def shown(path: Path) -> str:
    """As one who stands in the checkout would write it."""
    return os.path.relpath(path, ROOT)


# --- processes and ports -------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """What our programs see: nothing of an operator's own Coppice, and /usr/sbin on PATH."""
    own = ("COPPICE_", "DJANGO_", "DATABASE_URL", "GUNICORN_", "WEB_CONCURRENCY", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    kept["PATH"] = f"{kept.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    return {**kept, **more}


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return its stdout; Failed with its words if it fails."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=env or environment(),
            cwd=ROOT,
            check=False,
        )
    except FileNotFoundError:
        raise Failed(f"{words[0]} is not installed; see deploy/packages.txt.") from None
    if done.returncode != 0:
        said = last_lines(done.stderr or done.stdout)
        raise Failed(f"{' '.join(words)} ended with status {done.returncode}:\n{said}")
    return done.stdout


def last_lines(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-15:])


def free_port(wished: int = 0) -> int:
    """``wished`` if nobody has it on 127.0.0.1, else one that is free."""
    for port in (wished, 0):
        with socket.socket() as probe:
            # As servers do: a port whose last connections have just ended is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise Failed("There is no free port on 127.0.0.1.")


@contextlib.contextmanager
def running(
    name: str, argv: Sequence[str | Path], env: Mapping[str, str], url: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ready when it answers at ``url``; stopped at the end. It gets its own session.

    So Ctrl-C reaches us alone, and we stop it in order: first whoever uses it.
    """
    log = HOME / "log" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a") as output:
        try:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                cwd=ROOT,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise Failed(f"{argv[0]} is not installed; see deploy/packages.txt.") from None
    try:
        until = time.monotonic() + START_SECONDS
        while url and not answers(url):
            if process.poll() is not None or time.monotonic() > until:
                tail = last_lines(log.read_text(errors="replace"))
                raise Failed(f"{name} does not answer at {url}. The end of {shown(log)}:\n{tail}")
            time.sleep(0.1)
        yield process
    finally:
        stop(process)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http on 127.0.0.1
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Afterwards nothing of the process's group runs."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main(work: Callable[[], None]) -> int:
    """Run ``work`` and say in a sentence what went wrong; the program's exit status.

    SIGTERM and SIGHUP end it as Ctrl-C does: through every ``finally``.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        work()
    except Failed as failure:
        print(f"\nFailed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything that was started is stopped.", file=sys.stderr)
        return 130
    return 0


def beside_a_zfs(module: str, *arguments: str) -> str:
    """The kind of pool to use; where it is "zfs", we are in a private ZFS's namespace.

    The first time this starts the program once more inside deploy/private-zfs.
    """
    again = [str(PRIVATE_ZFS), sys.executable, "-m", module, *arguments]
    if os.environ.get("PRIVATE_ZFS"):
        return "zfs"
    probe = subprocess.run(
        [str(PRIVATE_ZFS), "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if probe.returncode == 0:
        os.execv(again[0], again)  # noqa: S606 - an argument list, no shell
    if probe.returncode != NO_ZFS_HERE:
        raise Failed(f"deploy/private-zfs failed: {probe.stderr.strip()}")
    why = probe.stderr.strip().removeprefix("private-zfs: ")
    print(f"No ZFS on this machine ({why}): the directory pool is used, its copies are slower.")
    return "dir"


# --- what lies in the directory ------------------------------------------------------------------


@dataclass
class Local:
    """What one has to know to open it again; kept in local.json, for its owner's eyes alone."""

    kind: str  # of the pool: "zfs" or "dir"
    port: int
    registry_port: int
    login: str = "auditor"
    password: str = ""
    token: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def registry(self) -> str:
        return f"localhost:{self.registry_port}"

    @property
    def pool(self) -> str:
        return "zfs:zroot/jails" if self.kind == "zfs" else f"dir:{HOME / 'pool'}"

    @property
    def secret_key(self) -> Path:
        return HOME / "keys" / "coppice.sec"

    def server_environment(self) -> dict[str, str]:
        return environment(
            COPPICE_POOL=self.pool,
            COPPICE_STATE_DIR=str(HOME / "state"),
            COPPICE_REQUIRE_SIGNED_TEMPLATES="1",
            COPPICE_TRUSTED_KEYS=str(HOME / "trusted"),
            COPPICE_REGISTRIES_INSECURE=self.registry,
        )

    def client_environment(self, **more: str) -> dict[str, str]:
        return environment(COPPICE_URL=self.url, COPPICE_TOKEN=self.token, **more)

    def manage(self, *words: str, **more: str) -> str:
        env = {**self.server_environment(), **more}
        return run([PYTHON, ROOT / "manage.py", *words], env=env)

    def save(self) -> None:
        path = HOME / "local.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One program at a time works in the directory; at the end its pool is closed."""
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with HOME.with_name(f"{HOME.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(
                f"`make demo` or `make run` works in {shown(HOME)} now; end it first."
            ) from None
        try:
            yield
        finally:
            export_pool()


def export_pool() -> None:
    """Unmount and close the pool if we have it open; private-zfs ends with the same for its own."""
    if not os.environ.get("PRIVATE_ZFS") or not (HOME / "zroot.zfs").exists():
        return
    until = time.monotonic() + 10
    while "zroot" in run(["zpool", "list", "-H", "-o", "name"]).split():
        try:
            run(["zpool", "export", "zroot"])
        except Failed:  # zfs-fuse's unmounts are lazy: busy for a moment
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def clear() -> None:
    """Remove what an earlier run left, but never reach through a mount."""
    mounts = Path("/proc/self/mountinfo")
    if mounts.exists():
        inside = [line.split()[4].replace("\\040", " ") for line in mounts.read_text().splitlines()]
        for point in sorted(inside, reverse=True):
            if point.startswith(f"{HOME}/"):
                run(["umount", "--", point])
    if HOME.exists():
        shutil.rmtree(HOME)


def make(kind: str) -> Local:
    """A fresh pool, database, pair of keys, login and token."""
    clear()
    HOME.mkdir(mode=0o700)
    local = Local(kind, free_port(USUAL_PORT), free_port(), password=secrets.token_urlsafe(9))
    (HOME / "keys").mkdir(mode=0o700)
    (HOME / "trusted").mkdir()
    public = HOME / "trusted" / "coppice.pub"
    comment = ["-c", "coppice demo"]
    run(["signify-openbsd", "-G", "-n", *comment, "-p", public, "-s", local.secret_key])
    if kind == "zfs":
        file = HOME / "zroot.zfs"
        file.touch()
        os.truncate(file, POOL_FILE_BYTES)
        run(
            [*ALONE, "zpool", "create", "-o", "cachefile=none", "-m", HOME / "zroot", "zroot", file]
        )
        run([*ALONE, "zfs", "create", "zroot/jails"])
    else:
        (HOME / "pool").mkdir()
    local.manage("migrate", "--verbosity", "0")
    local.manage(
        "createsuperuser",
        "--noinput",
        "--username",
        local.login,
        "--email",
        "auditor@localhost",
        DJANGO_SUPERUSER_PASSWORD=local.password,
    )
    roles = [f"--role={role}" for role in ("operator", "signer", "gateway")]
    local.token = local.manage("create_token", "demo", *roles).strip()
    local.save()
    return local


def reopen(kind: str) -> Local | None:
    """What an earlier run left, with its pool imported; None where there is nothing."""
    path = HOME / "local.json"
    if not path.exists():
        return None
    local = Local(**json.loads(path.read_text()))
    if local.kind != kind:
        raise Failed(
            f"{shown(HOME)} has a {local.kind} pool, but {kind} is what can be used here now."
            " Run `make demo` to make it anew."
        )
    if kind == "zfs":
        run([*ALONE, "zpool", "import", "-f", "-o", "cachefile=none", "-d", HOME, "zroot"])
    local.port, local.registry_port = free_port(local.port), free_port(local.registry_port)
    local.manage("migrate", "--verbosity", "0")
    local.save()
    return local


def registry(local: Local) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Debian's docker-registry on a port of its own, its blobs in var/demo/registry."""
    config = HOME / "registry.yml"
    settings = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(HOME / "registry")}},
        "http": {"addr": f"127.0.0.1:{local.registry_port}"},
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    argv: list[str | Path] = ["docker-registry", "serve", config]
    return running("docker-registry", argv, environment(), f"http://{local.registry}/v2/")


def server(local: Local) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    argv: list[str | Path] = [
        PYTHON,
        "-m",
        "gunicorn",
        "--config",
        ROOT / "deploy" / "gunicorn.conf.py",
    ]
    argv += ["--bind", f"127.0.0.1:{local.port}", "--graceful-timeout", "5"]
    argv += ["coppice_site.wsgi:application"]
    return running("coppice", argv, local.server_environment(), f"{local.url}/healthz")


def queue_worker(local: Local) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    argv: list[str | Path] = [PYTHON, ROOT / "manage.py", "qcluster"]
    return running("qcluster", argv, local.server_environment())
