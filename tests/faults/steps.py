"""Where a use case can be cut: each effect that it has outside its own memory, found by itself.

Nothing lists the steps of a use case. Python says before each file is made, renamed or removed, and
before each program is started (audit events, PEP 578); the drivers of both databases pass through
one function each. So a step that is added to the product tomorrow is a step here.
"""

from __future__ import annotations

import builtins
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

from templates_app import run
from templates_app.datasets import zfs_command

#: Called before each step with its number, from 1 on, and what it is. What it raises, the step
#: raises. True: it has done something to this step.
Act = Callable[[int, str], bool | None]

_CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.truncate",
    "os.setxattr",
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ONLY_LOOKS = re.compile(
    r"\s*(SELECT(?! \* FROM coppice_append)|PRAGMA|EXPLAIN|SET|SHOW|BEGIN|SAVEPOINT|RELEASE)\b",
    re.I,
)
_VARIES = (
    (re.compile(r"(/[^ /]+)+/(pool|pool-state|zroot-[a-z0-9]+)/"), r"\2/"),
    (re.compile(r"image-[0-9a-f]{8}-[0-9a-f]{4}"), "image-*"),
    (re.compile(r"[0-9a-f]{7,}"), "*"),
    (re.compile(r"[0-9]+"), "#"),
    (re.compile(r"(sandbox-|%#F|/|^)(web|fresh|made|doomed|leaving|adopted)\b"), r"\1NAME"),
)


class ZfsFails(Exception):
    """Raised by an act at the start of a zfs: it fails, with this complaint."""


class DatabaseGone(Exception):
    """Raised by an act at a statement: from then on nothing is answered."""


class Steps:
    """Of this process, from its making on. For a process that was forked for one use case."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._number = 0
        self._lock = threading.RLock()
        self._busy = False
        self._gone = False
        sys.addaudithook(self._audit)
        self._opened()
        self._started()
        self._zfs()
        self._postgresql()
        self._sqlite()

    def step(self, what: str) -> None:
        with self._lock:
            if self._busy:
                return
            self._busy = True
            try:
                self._number += 1
                self._act(self._number, what)
            finally:
                self._busy = False

    # --- files and programs ----------------------------------------------------------------------

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _WRITES and isinstance(path, str | bytes):
                self._file("open", os.fsdecode(path))
        elif event in _CHANGES:
            if event == "os.mkdir" and Path(os.fsdecode(args[0])).is_dir():
                return  # it is there already
            path = args[0] if isinstance(args[0], str | bytes | os.PathLike) else "an open file"
            self._file(event.removeprefix("os."), os.fsdecode(path))
        elif event == "subprocess.Popen" and (words := _program(args[1])) is not None:
            self.step(f"before {words}")

    def _file(self, what: str, path: str) -> None:
        if not path.startswith(("/dev/", "/proc/")):
            self.step(f"{what} {path}")

    def _opened(self) -> None:
        """A file that was opened to be written, and has nothing in it yet."""
        really = io.open

        def opened(file: Any, mode: str = "r", *args: Any, **rest: Any) -> Any:
            made = really(file, mode, *args, **rest)
            if set(mode) & set("wxa+") and not isinstance(file, int):
                self._file("empty", os.fsdecode(file))
            return made

        io.open = opened  # what pathlib calls
        builtins.open = opened

    def _started(self) -> None:
        """A program that runs, and goes on when its caller is dead."""
        really = subprocess.Popen.__init__

        def started(popen: Any, args: Any, *rest: Any, **more: Any) -> None:
            really(popen, args, *rest, **more)
            if (words := _program(args)) is not None:
                self.step(f"while {words}")

        subprocess.Popen.__init__ = started  # type: ignore[method-assign]

    def _zfs(self) -> None:
        really = zfs_command.run

        def ran(argv: Any, **rest: Any) -> run.Result:
            try:
                return really(argv, **rest)
            except ZfsFails as fails:
                return run.Result(tuple(argv), 1, "", str(fails))

        zfs_command.run = ran

    # --- statements ------------------------------------------------------------------------------

    def _statement(self, text: object, gone: type[Exception]) -> None:
        if self._gone:
            raise gone("the server is gone")
        words = text if isinstance(text, str) else text.decode() if isinstance(text, bytes) else ""
        if words and not _ONLY_LOOKS.match(words):
            self._or_gone(" ".join(words.split()[:4])[:60], gone)

    def _or_gone(self, what: str, gone: type[Exception]) -> None:
        try:
            self.step(what)
        except DatabaseGone:
            self._gone = True
        if self._gone:
            raise gone("the server is gone")

    def _postgresql(self) -> None:
        execute, commit = psycopg.Cursor.execute, psycopg.Connection.commit

        def executed(cursor: Any, query: Any, *args: Any, **rest: Any) -> Any:
            self._statement(query, psycopg.OperationalError)
            return execute(cursor, query, *args, **rest)

        def committed(connection: Any) -> None:
            self._or_gone("COMMIT", psycopg.OperationalError)
            commit(connection)

        psycopg.Cursor.execute = executed  # type: ignore[method-assign]
        psycopg.Connection.commit = committed  # type: ignore[method-assign]

    def _sqlite(self) -> None:
        statement, committing = self._statement, self._or_gone

        def traced(base: type[sqlite3.Cursor]) -> type[sqlite3.Cursor]:
            class Traced(base):  # type: ignore[valid-type, misc]
                def execute(self, sql: str, *args: Any) -> Any:
                    statement(sql, sqlite3.OperationalError)
                    return super().execute(sql, *args)

                def executemany(self, sql: str, *args: Any) -> Any:
                    statement(sql, sqlite3.OperationalError)
                    return super().executemany(sql, *args)

            return Traced

        kinds: dict[type[sqlite3.Cursor], type[sqlite3.Cursor]] = {}

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
                if factory not in kinds:
                    kinds[factory] = traced(factory)
                return super().cursor(kinds[factory])

            def commit(self) -> None:
                committing("COMMIT", sqlite3.OperationalError)
                super().commit()

        database = connections[DEFAULT_DB_ALIAS]
        if database.vendor == "sqlite":
            options = connections.settings[DEFAULT_DB_ALIAS]["OPTIONS"]
            options["factory"] = Connection


def _program(args: Any) -> str | None:
    """None for a zfs that only looks."""
    words = [os.fsdecode(word) for word in args]
    if words[0] == "zfs":
        return None if words[1] in ("list", "get") else f"zfs {words[1]}"
    return "the engine" if "python" in words[0] else f"{Path(words[0]).name} {words[1]}"


def general(what: str) -> str:
    """The step's name without what differs from run to run."""
    for pattern, instead in _VARIES:
        what = pattern.sub(instead, what)
    return what


def die() -> None:
    """As a machine without power: nothing of Python's, or of ours, runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal comes when it comes
