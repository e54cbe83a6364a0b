"""A real PostgreSQL server of one's own, for tests and the bench: a data directory, a free port.

Durable as in production (fsync on). It dies with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import psycopg

from tests.ports import free_port


class PostgresMissing(RuntimeError):
    """PostgreSQL is not installed. A failure, never a reason to skip."""


class Cluster:
    """``with Cluster() as cluster: cluster.url("postgres")``; superuser ``postgres``, trusted."""

    def __init__(self, *, options: tuple[str, ...] = ()) -> None:
        self.options = options
        self.port = 0
        self._directory: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        binaries = _binaries()
        self._directory = Path(tempfile.mkdtemp(prefix="coppice-postgres-"))
        data = self._directory / "data"
        as_user: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            owner = pwd.getpwnam("postgres")
            os.chown(self._directory, owner.pw_uid, owner.pw_gid)
            ids = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}"]
            as_user = ["setpriv", *ids, "--clear-groups"]
        subprocess.run(
            [*as_user, binaries / "initdb", "--no-sync", "--auth=trust", "--username=postgres"]
            + ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions", f"--pgdata={data}"],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            cwd="/",
        )
        self.port = free_port()
        self._log = self._directory / "log"
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                ["setpriv", "--pdeathsig=QUIT", *as_user[1:], binaries / "postgres", "-D", data]
                + ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}"]
                + ["-c", f"unix_socket_directories={self._directory}"]
                + [part for option in self.options for part in ("-c", option)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which stop it in order
                cwd="/",
            )
        self._await()

    def _await(self) -> None:
        if self._server is None:
            raise RuntimeError("not started")
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self._log.read_text(errors="replace")) from None
                time.sleep(0.05)

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(5)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgres://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Run one statement outside any transaction, as the superuser."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self, name: str, template: str = "template1") -> str:
        """A new database, a copy of ``template``; its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_major)
    if found:
        return found[-1].parent
    if (there := shutil.which("initdb")) is not None:
        return Path(there).resolve().parent
    raise PostgresMissing("PostgreSQL's server programs are not installed (package postgresql)")


def _major(initdb: Path) -> int:
    return int(initdb.parent.parent.name)
