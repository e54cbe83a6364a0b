"""Coppice's processes, forked from one that has loaded Django: they start in 0.1 seconds, not in 2.

``run(argv, env, …)`` is ``manage.py`` with these arguments, ``start("gunicorn", …)`` the server: as
far as tests can tell the processes that they would be otherwise, with settings from their own
environment, connections and an end of their own. Only the modules are there already, loaded under
settings that nobody uses, and what Python does when it ends is left out. Where the start of the
program is the point, start the program: whoever wants to know more than that settings are read
anew does so (tests/unit/test_environment.py, tests/api/test_production.py, `make demo`).

The fork server is started by the first call, and ends with the process that asks it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
MESSAGE = 2**17  # bytes of a request: arguments and environment

_lock = threading.Lock()
_server: tuple[subprocess.Popen[bytes], socket.socket] | None = None


class Forked:
    """A process that was forked; what subprocess.Popen can do with its own, as far as we need it.

    ``told`` is the end of a pipe at which is said what its number is, and later how it ended.
    """

    def __init__(self, argv: list[str], told: int) -> None:
        self.args, self._told = argv, told
        self.returncode: int | None = None
        words = b""
        while not words.endswith(b" "):
            if not (byte := os.read(told, 1)):
                raise AssertionError(f"{argv} was not forked")
            words += byte
        self.pid = int(words)

    def poll(self) -> int | None:
        """Its exit status, -N where signal N ended it, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            until = None if timeout is None else time.monotonic() + timeout
            words = b""
            while not words.endswith(b" "):
                left = None if until is None else max(0.0, until - time.monotonic())
                if not select.select([self._told], [], [], left)[0]:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                words += os.read(self._told, 10)  # written at once
            os.close(self._told)
            self.returncode = int(words)
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def run(argv: list[str], env: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """A management command: its exit status, and what it printed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start("manage.py", argv, env, out=out.fileno(), err=err.fileno())
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(argv, status, *texts)


def start(program: str, argv: list[str], env: dict[str, str], *, out: int, err: int) -> Forked:
    """``manage.py`` or ``gunicorn``, in a session of its own."""
    global _server
    told, tells = os.pipe()
    request = json.dumps({"program": program, "argv": argv, "env": env}).encode()
    assert len(request) < MESSAGE
    try:
        with _lock:
            if _server is None:
                _server = _begin()
            socket.send_fds(_server[1], [request], [out, err, tells])
    finally:
        os.close(tells)
    return Forked(argv, told)


def stop() -> None:
    """End the fork server, if there is one."""
    global _server
    if _server is not None:
        process, connection = _server
        connection.close()
        process.wait(10)
        _server = None


def _begin() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        env = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(its.fileno())],
            env={**env, "PYTHONWARNINGS": "error::ResourceWarning"},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            start_new_session=True,  # Ctrl-C is for the tests; this ends when its socket does
        )
    return process, ours


# --- the fork server ----------------------------------------------------------------------------


def serve(connection: socket.socket) -> None:
    """A process for each request, until nobody is there any more who could ask."""
    while True:
        message, fds, _, _ = socket.recv_fds(connection, MESSAGE, 3)
        if not message:
            return
        request = json.loads(message)
        if os.fork() == 0:
            connection.close()
            _watch(PROGRAMS[request["program"]], request["argv"], request["env"], *fds)
        for one in fds:
            os.close(one)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watch(
    program: Callable[[list[str]], object], argv: list[str], env: dict[str, str], *fds: int
) -> None:
    """Fork once more: this process tells how that one ended, also where it was killed."""
    out, err, tells = fds
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(tells)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.close(out)
        os.close(err)
        _ends(lambda words: _adopt(env) or program(words), argv)
    os.close(out)
    os.close(err)
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(tells, f"{pid} ".encode())
        _, status = os.waitpid(pid, 0)
        os.write(tells, f"{os.waitstatus_to_exitcode(status)} ".encode())
    os._exit(0)


def _adopt(env: dict[str, str]) -> None:
    """What has been read from the environment is read from this one."""
    import random

    import django_q.conf
    from django.conf import settings
    from django.db import connections
    from django.utils.log import configure_logging

    random.seed()
    os.environ.clear()
    os.environ.update(env)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coppice_site.settings")
    del sys.modules["coppice_site.settings"]
    settings._setup()
    vars(connections).update(_settings=None)
    vars(connections).pop("settings", None)
    with contextlib.suppress(AttributeError):  # no connection was made yet
        del connections["default"]
    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
    # The one library that keeps what it read (the key that tasks are signed with, times).
    held = django_q.conf.Conf
    for name, value in vars(importlib.reload(django_q.conf).Conf).items():
        if name.isupper():
            setattr(held, name, value)
    django_q.conf.Conf = held


def _manage(argv: list[str]) -> None:
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", *argv])


def _gunicorn(argv: list[str]) -> None:
    from gunicorn.app.wsgiapp import WSGIApplication

    subprocess.run = _forking(subprocess.run)
    sys.argv = ["gunicorn", *argv]
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]").run()


def _forking(really: Callable[..., Any]) -> Callable[..., Any]:
    """subprocess.run; the recovery that gunicorn begins with is forked too."""

    def run(words: list[str], **how: Any) -> Any:
        if words[:2] != [sys.executable, str(ROOT / "manage.py")]:
            return really(words, **how)
        pid = os.fork()
        if pid == 0:
            _ends(_manage, words[2:])
        _, status = os.waitpid(pid, 0)
        return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status))

    return run


def _ends(program: Callable[[list[str]], object], argv: list[str]) -> NoReturn:
    """Run it as all there is of this process."""
    status = 1
    try:
        program(argv)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - Python prints it and exits with 1, and so do we
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


PROGRAMS: dict[str, Callable[[list[str]], object]] = {"manage.py": _manage, "gunicorn": _gunicorn}


def main() -> None:
    with (
        socket.socket(fileno=int(sys.argv[1])) as connection,
        tempfile.TemporaryDirectory() as place,
    ):
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "coppice_site.settings",
            "COPPICE_STATE_DIR": place,
        }
        import django

        django.setup()
        # With these, all that commands and the server may need; the module that the server begins
        # with does things, and is its own to import.
        import gunicorn.app.wsgiapp  # noqa: F401
        import gunicorn.workers.gthread  # noqa: F401

        import coppice_site.urls  # noqa: F401
        import templates_app.management.base
        import templates_app.sources.oci  # noqa: F401

        gc.freeze()
        serve(connection)


if __name__ == "__main__":
    main()
