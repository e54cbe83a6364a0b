"""A process that runs one use case, with a wire on each of its steps, and dies where it is told.

It is forked from the test, in which Django is loaded: that costs 20 ms, a new one a second.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from django.db import connections

from templates_app.errors import CoppiceError
from tests.faults import steps
from tests.faults.steps import Steps

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
#: Seconds that a use case may take; and what it started, when it is dead.
_LIMIT = 60.0
_running: set[int] = set()


@dataclass(frozen=True)
class End:
    """``steps``, general, were come to; before the last it died, if it was ``killed``.

    ``error`` is the code of ours that it ended with, or a traceback. ``failed``: the number of the
    step at which something was made to fail.
    """

    killed: bool
    error: str | None
    steps: list[str]
    seconds: float
    failed: int | None = None

    @property
    def boundary(self) -> tuple[str, str]:
        """What it had done last, and what it was about to do, when it was killed, or failed."""
        number = self.failed or len(self.steps)
        return (["the beginning", *self.steps][number - 1], self.steps[number - 1])


@contextmanager
def orphans_are_ours() -> Iterator[None]:
    """What a killed process leaves running becomes this process's child, and can be waited for."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        for pid in _running:  # of a test that failed
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        _running.clear()
        library.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def run(
    work: Callable[[], object], act: steps.Act | None = None, *, kill_after: float | None = None
) -> End:
    """``work`` in a process of its own. ``act`` may end it; else SIGKILL after ``kill_after`` s."""
    running = Running(work, act)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(running.pid, signal.SIGKILL)
    return running.end()


class Running:
    """One that was just forked."""

    def __init__(self, work: Callable[[], object], act: steps.Act | None = None) -> None:
        connections.close_all()
        self._programs = {child.pid for child in psutil.Process().children()}
        self._reads, writes = os.pipe()
        self._begun = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reads)
            _in_the_child(work, act, writes)
        os.close(writes)
        _running.add(self.pid)

    def stopped(self) -> bool:
        """Wait until it stops itself (SIGSTOP), or ends: then False."""
        seen = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return seen is not None and seen.si_code == os.CLD_STOPPED

    def end(self) -> End:
        told = _read(self._reads, self.pid)
        seconds = time.monotonic() - self._begun
        _, status = os.waitpid(self.pid, 0)
        _running.discard(self.pid)
        _wait_for_programs(self._programs)
        names = [one["step"] for one in told if "step" in one]
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            return End(True, None, names or ["its beginning"], seconds)
        assert told and "error" in told[-1], f"it ended with status {status} and said {told}"
        failed = next((one["failed"] for one in told if "failed" in one), None)
        return End(False, told[-1]["error"], names, seconds, failed)


def _in_the_child(work: Callable[[], object], act: steps.Act | None, writes: int) -> None:
    def say(**what: object) -> None:
        os.write(writes, json.dumps(what).encode() + b"\n")

    def each(number: int, what: str) -> None:
        say(step=steps.general(what))
        try:
            if act is not None and act(number, what):
                say(failed=number)
        except BaseException:
            say(failed=number)
            raise

    try:
        Steps(each)
        work()
    except CoppiceError as error:
        say(error=error.code)
    except BaseException:  # noqa: BLE001 - told to the test, which fails by it
        say(error=traceback.format_exc())
    else:
        say(error=None)
    finally:
        os._exit(0)


def _read(reads: int, child: int) -> list[dict[str, Any]]:
    data, until = b"", time.monotonic() + _LIMIT
    with os.fdopen(reads, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                os.kill(child, signal.SIGKILL)
                raise AssertionError(f"it hangs after {data.decode().splitlines()[-3:]}")
            chunk = pipe.read(65536)
            if not chunk:
                return [json.loads(line) for line in data.splitlines() if line.endswith(b"}")]
            data += chunk


def _wait_for_programs(before: set[int]) -> None:
    """A zfs that runs is done soon, whoever waits for it; a server does not come back before."""
    left = [
        one
        for one in psutil.Process().children()
        if one.pid not in before and _name(one) in ("zfs", "cp", "rm", "rsync", "mount", "umount")
    ]
    _, alive = psutil.wait_procs(left, timeout=_LIMIT)
    assert not alive, alive


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return "zfs"


def left_running(before: set[int]) -> list[str]:
    """Programs that were started since, and still run; those that have ended are reaped."""
    running = []
    for one in psutil.Process().children():
        if one.pid in before:
            continue
        try:
            one.wait(timeout=0.5)
        except psutil.TimeoutExpired:
            running.append(f"{one.pid} {_name(one)}")
    return running
