"""The one place that starts other programs.

Argument lists only, never a shell; every run has a timeout and a process group of its own, which is
killed as a whole when the time is up or the caller is interrupted. A program's stderr goes to our
log and into ``error.private``, never to a caller.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from templates_app.errors import ImportTimeout, ProgramFailed, ProgramKilled, ProgramMissing

logger = logging.getLogger("coppice.run")

#: Marks every process that an import starts, so that recovery finds those of a dead one.
IMPORT_MARK = "COPPICE_RUNS_IMPORT"
_KEPT_STDERR = 4000  # characters of a program's complaint that the log keeps
_MAX_STDOUT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Result:
    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    raw: bytes = b""  # stdout as it came, for what is hashed

    @property
    def program(self) -> str:
        return self.argv[0]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a program may see of ours: enough to run, no secret of the server, messages in C."""
    kept = ("PATH", "HOME", "USER", "TMPDIR", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
    own = {name: os.environ[name] for name in kept if name in os.environ}
    return {**own, "LC_ALL": "C", **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    on_tick: Callable[[], None] | None = None,
    tick: float = 0.5,
    log_failure: bool = True,
    descriptors: Sequence[int] = (),
) -> Result:
    """Run ``argv`` to its end and return what it printed.

    ``timeout`` is in seconds. ``on_line`` gets each line of stdout as it comes (``\\r`` ends a line
    too, for progress displays); the lines are then not kept. ``on_tick`` is called every ``tick``
    seconds while the program runs, in the caller's thread (so it may use a database connection),
    but not together with ``on_line``. With ``check``, a status other than 0 raises ProgramFailed.
    ProgramMissing, ProgramKilled (ended by a signal that we did not send) and ImportTimeout are
    raised in any case. Without ``log_failure`` a status other than 0 is no warning in the log: for
    callers to whom it is an answer. ``descriptors`` are open in the program too.
    """
    program = argv[0]
    logger.debug("run", extra={"argv": list(argv)})
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            pass_fds=descriptors,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ProgramMissing(f"The program {program!r} is not installed on the server.") from None
    except PermissionError:
        raise ProgramMissing(f"The program {program!r} may not be run by the server.") from None
    try:
        raw, stderr = _collect(process, timeout, on_line, on_tick, tick)
    except subprocess.TimeoutExpired:
        raise ImportTimeout(
            f"{program} did not end within {timeout:g} seconds.", private=" ".join(argv)
        ) from None
    finally:
        _kill_group(process)
    result = Result(tuple(argv), process.returncode, _text(raw), stderr, raw)
    if result.status < 0:
        name = signal_name(-result.status)
        raise ProgramKilled(f"{program} was killed by {name}.", private=stderr[-_KEPT_STDERR:])
    if result.status != 0:
        logger.log(
            logging.WARNING if log_failure else logging.DEBUG,
            "%s ended with status %d: %s",
            program,
            result.status,
            stderr[-_KEPT_STDERR:].strip(),
            extra={"argv": list(argv)},
        )
        if check:
            raise ProgramFailed(
                f"{program} ended with status {result.status}.", private=stderr[-_KEPT_STDERR:]
            )
    return result


class Started:
    """A program that works beside the caller, in a process group of its own; :meth:`end` it.

    It gets the descriptors that are named and no other; its stderr is a pipe. Whoever starts it is
    the thread that ends it, on any way out.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], descriptors: Sequence[int]
    ) -> None:
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(env),
            pass_fds=descriptors,
            start_new_session=True,
        )

    @property
    def stderr(self) -> int:
        """The descriptor to read its complaints from."""
        if self._process.stderr is None:
            raise ValueError("the program was started without pipes")
        return self._process.stderr.fileno()

    def status(self, seconds: float) -> int | None:
        """Its exit status, or the negative number of the signal that ended it; None if it runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """The program is over, and nothing of its process group is left."""
        _kill_group(self._process)


def _collect(
    process: subprocess.Popen[bytes],
    timeout: float,
    on_line: Callable[[str], None] | None,
    on_tick: Callable[[], None] | None,
    tick: float,
) -> tuple[bytes, str]:
    if on_line is None:
        out, err = _communicate(process, timeout, on_tick, tick)
        return out, _text(err)
    if process.stdout is None or process.stderr is None:
        raise ValueError("the program was started without pipes")
    errors: list[bytes] = []
    drain = threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True)
    drain.start()
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _signal_group(process)

    timer = threading.Timer(timeout, expire)
    timer.start()
    try:
        rest = b""
        while chunk := os.read(process.stdout.fileno(), 65536):
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                if line:
                    on_line(_text(line))
            rest = rest[-65536:]
        process.wait()
    except BaseException:
        _signal_group(process)
        raise
    finally:
        timer.cancel()
        # The pipes are closed after this: not while the thread still reads from one.
        drain.join(5)
    if expired.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout)
    return b"", _text(b"".join(errors))


def _communicate(
    process: subprocess.Popen[bytes],
    timeout: float,
    on_tick: Callable[[], None] | None,
    tick: float,
) -> tuple[bytes, bytes]:
    """What it prints, until it is over; TimeoutExpired."""
    deadline = time.monotonic() + timeout
    try:
        ending = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # FreeBSD; an old Linux
        return _communicate_in_steps(process, deadline, on_tick, tick)
    try:
        return _communicate_until(ending, process, deadline, on_tick, tick)
    finally:
        os.close(ending)


def _communicate_until(
    ending: int,
    process: subprocess.Popen[bytes],
    deadline: float,
    on_tick: Callable[[], None] | None,
    tick: float,
) -> tuple[bytes, bytes]:
    """``ending`` becomes readable when the process has ended.

    Popen's own asks again and again whether it has, in steps that begin at 1 ms: and most programs
    close their pipes a moment before they are over.
    """
    if process.stdout is None or process.stderr is None:
        raise ValueError("the program was started without pipes")
    printed = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    awaited = {*printed, ending}
    poll = select.poll()
    for descriptor in awaited:
        poll.register(descriptor, select.POLLIN)
    next_tick = time.monotonic() + tick
    while awaited:
        left = deadline - time.monotonic()
        if left <= 0:
            raise subprocess.TimeoutExpired(process.args, 0)
        if on_tick is not None and time.monotonic() >= next_tick:
            on_tick()
            next_tick = time.monotonic() + tick
        for descriptor, _ in poll.poll(1000 * (min(left, tick) if on_tick else left)):
            if descriptor in printed and (chunk := os.read(descriptor, 65536)):
                printed[descriptor] += chunk
            else:
                poll.unregister(descriptor)
                awaited.remove(descriptor)
    process.wait()
    out, err = printed.values()
    return bytes(out), bytes(err)


def _communicate_in_steps(
    process: subprocess.Popen[bytes],
    deadline: float,
    on_tick: Callable[[], None] | None,
    tick: float,
) -> tuple[bytes, bytes]:
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            # After TimeoutExpired another call goes on where this one was; nothing is lost.
            return process.communicate(timeout=min(left, tick) if on_tick else left)
        except subprocess.TimeoutExpired:
            if on_tick is None or time.monotonic() >= deadline:
                raise
        on_tick()


def _drain(stream: object, into: list[bytes]) -> None:
    kept = 0
    while chunk := os.read(stream.fileno(), 65536):  # type: ignore[attr-defined]
        if kept < 1_000_000:
            into.append(chunk)
            kept += len(chunk)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The program is over; where it was not before, nothing of its process group is left."""
    _signal_group(process)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _signal_group(process: subprocess.Popen[bytes]) -> None:
    # Not poll(): it would reap a program that has ended while a child of it keeps our pipes open,
    # and that child would live on. Until it is reaped, its number can be nobody else's.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def signal_name(number: int) -> str:
    """As signal(7) names it."""
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have no name
        return f"signal {number}"


def _text(data: bytes) -> str:
    return data[:_MAX_STDOUT].decode("utf-8", "replace")
