"""The real server as a process of its own: gunicorn with the repository's settings.

It and the management commands are forked with their modules loaded (tests/fork_server.py);
``forked=False`` starts Python, as an installation does.

``server`` (fixture) makes one: ``server(pool, database_url=…, gate="on")``; several may share a
database, a pool and a state directory. All are stopped when the test ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests import fork_server
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
STARTS_WITHIN = 60.0  # seconds


class Installation:
    """A state directory, a pool, a database: what several processes of Coppice share."""

    def __init__(self, state: Path, *, pool: str, database_url: str = "", **settings: str) -> None:
        self.state = state
        self.keys = state / "trusted-keys"
        self.keys.mkdir(parents=True, exist_ok=True)
        if pool.startswith("dir:"):
            Path(pool.removeprefix("dir:")).mkdir(parents=True, exist_ok=True)
        self.env = {
            name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ
        }
        self.env |= {
            "COPPICE_STATE_DIR": str(state),
            "COPPICE_POOL": pool,
            "COPPICE_TRUSTED_KEYS": str(self.keys),
            "COPPICE_NODE": "test",
            "PYTHONWARNINGS": "error::ResourceWarning",
            **settings,
        }
        if database_url:
            self.env["DATABASE_URL"] = database_url
        else:
            (state / "coppice.sqlite3").write_bytes(_migrated())
        self.tokens: dict[str, str] = {}

    def manage(
        self, *args: str, check: bool = True, timeout: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """A management command, in a process that is forked with Django in it."""
        done = fork_server.run(list(args), {**self.env, **env}, timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"manage.py {' '.join(args)}: {done.stdout}{done.stderr}")
        return done

    def spawn(self, *args: str) -> subprocess.Popen[bytes]:
        """A management command that goes on in the background (qcluster)."""
        with (self.state / f"{args[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), *args],
                env=self.env,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def token(self, role: str) -> str:
        if role not in self.tokens:
            made = self.manage("create_token", f"a-{role}", "--role", role, "--json")
            self.tokens[role] = json.loads(made.stdout)["token"]
        return self.tokens[role]

    def events(self) -> list[dict[str, Any]]:
        """What happened, without what each start of a server and each look here leave behind."""
        lines = self.manage("export_events").stdout.splitlines()
        beside = ("policy-changed", "exported")
        return [one for one in map(json.loads, lines) if one["type"] not in beside]

    def types(self) -> list[str]:
        return [event["type"] for event in self.events()]


class Server:
    """One gunicorn of an installation, on a free loopback port."""

    def __init__(self, installation: Installation, *, forked: bool = True) -> None:
        self.installation, self.forked = installation, forked
        self.log = installation.state / "server.log"
        self.process: fork_server.Forked | subprocess.Popen[bytes] | None = None
        self.port = 0
        self._clients: list[httpx.Client] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.port = free_port()
        with self.log.open("ab") as log:
            self.process = self._begin(
                [
                    f"--config={ROOT / 'deploy/gunicorn.conf.py'}",
                    f"--bind=127.0.0.1:{self.port}",
                    "coppice_site.wsgi:application",
                ],
                log.fileno(),
            )
        until = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    def _begin(self, words: list[str], log: int) -> fork_server.Forked | subprocess.Popen[bytes]:
        env = self.installation.env
        if self.forked:
            return fork_server.start("gunicorn", words, env, out=log, err=log)
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *words],
            env=env,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def api(self, role: str | None = "operator", timeout: float = 120) -> httpx.Client:
        headers = {}
        if role:
            headers["Authorization"] = f"Bearer {self.installation.token(role)}"
        client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)
        self._clients.append(client)
        return client

    def kill(self) -> None:
        """SIGKILL to the server's whole process group, as a machine that dies would do it.

        Programs that it started are in groups of their own: they go on, as orphans.
        """
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        while self._clients:
            self._clients.pop().close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()


def pytest_unconfigure() -> None:
    fork_server.stop()


@functools.cache
def _migrated() -> bytes:
    """An empty database in a file of SQLite."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "coppice.sqlite3"
        url = f"sqlite:///{made}"
        Installation(Path(place) / "state", pool="", database_url=url).manage("migrate")
        return made.read_bytes()


class MakeServer(Protocol):
    def __call__(self, installation: Installation, *, forked: bool = True) -> Server: ...


@pytest.fixture
def serve() -> Iterator[MakeServer]:
    """``serve(installation)`` starts a server; all are stopped at the end of the test."""
    servers: list[Server] = []

    def make(installation: Installation, *, forked: bool = True) -> Server:
        server = Server(installation, forked=forked)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


class Keys:
    """Key pairs made by the real signify, and signatures by it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(mode=0o700)

    def make(self, name: str) -> Path:
        """The secret key's path; the public one is beside it, as ``NAME.pub``."""
        secret, public = self.place / f"{name}.sec", self.place / f"{name}.pub"
        _signify("-G", "-n", "-c", name, "-p", str(public), "-s", str(secret))
        return secret

    def trust(self, name: str, installation: Installation) -> Path:
        """Make the key if it is not there, and let the installation trust it; its secret's path."""
        secret = self.place / f"{name}.sec"
        if not secret.exists():
            self.make(name)
        (installation.keys / f"{name}.pub").write_bytes((self.place / f"{name}.pub").read_bytes())
        return secret

    def sign(self, secret: Path, text: bytes) -> str:
        message, signature = self.place / "message", self.place / "message.sig"
        message.write_bytes(text)
        _signify("-S", "-s", str(secret), "-m", str(message), "-x", str(signature))
        return signature.read_text()


def _signify(*args: str) -> None:
    subprocess.run(["signify-openbsd", *args], check=True, capture_output=True, timeout=30)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")
