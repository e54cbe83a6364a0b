"""The engine's two processes, seen from the server: start, end, and what they say.

They are fresh interpreters, not forks of a server with threads and a database connection, and
import neither Django nor anything that speaks HTTP. Their environment carries the import's mark, so
that recovery ends those of a server that died; on Linux the kernel does that at once.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import isal

import templates_app
from templates_app import run
from templates_app.errors import CoppiceError, ImportTimeout, ProgramFailed, ProgramKilled
from templates_app.run import IMPORT_MARK
from templates_app.sources.native import failures, wire
from templates_app.sources.native.confine import Ceiling
from templates_app.sources.native.limits import Limits
from templates_app.sources.native.wire import Say

_PIPE = 1024 * 1024  # bytes between the two: what the reader may be ahead
_KEPT_STDERR = 4000  # bytes of a process's complaint that are kept
_GRACE = 5.0  # seconds for one to say why, after the other is gone
_FILES_OF_READER, _FILES_OF_WRITER = 64, 1024
#: No site: it would cost as much again as the start itself. So where to look is said.
_PATHS = [str(Path(one).parent) for one in (*templates_app.__path__, *isal.__path__)]
_START = (
    "import json, sys; sys.path[:0] = json.loads(sys.argv[1])['paths'];"
    " from templates_app.sources.native import {module}; {module}.main()"
)


@dataclass(slots=True)
class Worker:
    """One process. ``over``: its end of the socket is closed."""

    name: str
    program: run.Started
    control: socket.socket
    over: bool = False
    stderr: bytes = b""


@dataclass(slots=True)
class Crew:
    """Reader and writer, running."""

    reader: Worker
    writer: Worker
    woken: socket.socket  # a byte comes where another thread has something to say
    _waker: socket.socket
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def wake(self) -> None:
        """Let :meth:`messages` return; from any thread."""
        with suppress(OSError):
            self._waker.send(b"\0")

    def messages(self, seconds: float) -> Iterator[tuple[str, Say, bytes]]:
        """What comes within ``seconds``: who said it (reader or writer), what, and its body.

        Raises what a process says went wrong, and ProgramKilled, ProgramFailed or ImportTimeout
        where one is gone without a word.
        """
        for key, _ in self._selector.select(seconds):
            worker: Worker | None = key.data[0]
            if worker is None:
                self.woken.recv(4096)
            elif key.data[1] == "stderr":
                self._complaint(worker)
            elif message := self._heard(worker):
                yield (worker.name, *message)

    def _heard(self, worker: Worker) -> tuple[Say, bytes] | None:
        try:
            what, body, descriptor = wire.hear(worker.control)
            if descriptor >= 0:  # none of them has one to give: it was taken over
                os.close(descriptor)
        except wire.Broken:
            self._selector.unregister(worker.control)
            worker.over = True
            self._judge_end()
            return None
        if what == Say.FAILED:
            raise failures.again(worker.name, json.loads(body))
        return what, body

    def _complaint(self, worker: Worker) -> None:
        data = os.read(worker.program.stderr, 65536)
        worker.stderr = (worker.stderr + data)[-_KEPT_STDERR:]
        if not data:
            self._selector.unregister(worker.program.stderr)

    def _judge_end(self) -> None:
        """One is gone without a word. Its end may be the other's: whoever has a reason, says it."""
        until = time.monotonic() + _GRACE
        both = (self.reader, self.writer)
        while not all(one.over for one in both) and time.monotonic() < until:
            for key, _ in self._selector.select(0.1):
                worker = key.data[0]
                if worker is None:
                    self.woken.recv(4096)
                elif key.data[1] == "stderr":
                    self._complaint(worker)
                else:
                    self._heard(worker)  # raises what it says; asks us again if it is gone too
        ended = [(one.program.status(0.2 if one.over else 0), one) for one in both]
        # One that was killed explains one that lost its partner.
        for status, one in sorted(ended, key=lambda each: each[0] or 0):
            if status:
                raise _ended(one, status)
        raise ProgramFailed(
            "The native engine's processes ended before their work was done.",
            private="; ".join(one.stderr.decode("utf-8", "replace") for one in both),
        )

    def watch(self) -> None:
        for worker in (self.reader, self.writer):
            self._selector.register(worker.control, selectors.EVENT_READ, (worker, "control"))
            self._selector.register(worker.program.stderr, selectors.EVENT_READ, (worker, "stderr"))
        self._selector.register(self.woken, selectors.EVENT_READ, (None, ""))

    def end(self) -> None:
        """Both are over, whatever they were at: nobody waits for them any more."""
        self.reader.program.end()
        self.writer.program.end()

    def close(self) -> None:
        self._selector.close()


def _ended(worker: Worker, status: int) -> CoppiceError:
    private = worker.stderr.decode("utf-8", "replace")
    if status == -signal.SIGXCPU:
        return ImportTimeout(f"The native engine's {worker.name} used up its processor time.")
    if status < 0:
        name = run.signal_name(-status)
        return ProgramKilled(
            f"The native engine's {worker.name} was killed by {name}.", private=private
        )
    return ProgramFailed(f"The native engine's {worker.name} failed.", private=private)


@contextmanager
def working(
    *,
    into: Path,
    home: Path,
    limits: Limits,
    layers: int,
    content_bytes: int,
    left_out: tuple[str, ...],
    wait: bool,
    import_id: str,
) -> Iterator[Crew]:
    """Both processes, and an end of both however the block is left.

    ``into`` is what the writer fills, ``home`` a place of ours: the reader is confined to an empty
    directory there. ``content_bytes`` of layers that are there already count towards the limit.
    ``wait``: the writer waits for GO after each layer. OSError.
    """
    empty = home / "empty"
    empty.mkdir(mode=0o555, parents=True, exist_ok=True)
    environment = {IMPORT_MARK: import_id, "HOME": str(empty)}
    with ExitStack() as stack:

        def directory(path: Path) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        def begin(name: str, pipe: int, root: Path, ceiling: Ceiling, **more: Any) -> Worker:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            # One that was taken over must not hold the server up with half a message.
            ours.settimeout(limits.seconds)
            with theirs:
                given = {
                    "paths": _PATHS,
                    "parent": os.getpid(),
                    "control": theirs.fileno(),
                    "pipe": pipe,
                    "root": directory(root),
                    "ceiling": dataclasses.asdict(ceiling),
                    **more,
                }
                program = run.Started(
                    [sys.executable, "-I", "-S", "-c", _START.format(module=f"{name}_process")]
                    + [json.dumps(given)],
                    env=environment,
                    descriptors=[theirs.fileno(), pipe, given["root"]],
                )
            stack.callback(program.end)
            return Worker(name, program, ours)

        reads, writes = os.pipe()
        try:
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                with suppress(PermissionError):  # the user's pipes are many already
                    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, _PIPE)
            seconds = limits.seconds * layers
            reader = begin(
                "reader",
                writes,
                empty,
                Ceiling(
                    memory_bytes=limits.memory_bytes,
                    file_bytes=0,
                    files=_FILES_OF_READER,
                    seconds=seconds,
                ),
                limits=dataclasses.asdict(limits),
                content_bytes=content_bytes,
                left_out=left_out,
            )
            writer = begin(
                "writer",
                reads,
                into,
                Ceiling(
                    memory_bytes=limits.memory_bytes,
                    file_bytes=limits.file_bytes,
                    files=_FILES_OF_WRITER,
                    seconds=seconds,
                ),
                wait=wait,
            )
        finally:
            os.close(reads)
            os.close(writes)
        woken, waker = socket.socketpair()
        stack.callback(woken.close)
        stack.callback(waker.close)
        waker.setblocking(False)
        crew = Crew(reader, writer, woken, waker)
        stack.callback(crew.close)
        crew.watch()
        yield crew
