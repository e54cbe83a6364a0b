"""What the tests of the ``coppice`` command share.

``FakeApi`` is a real HTTP server that answers what a test tells it: for shapes that the real one
cannot be made to show at will (it hangs, breaks off, talks garbage). Problem documents are made by
the API's own function. ``run`` runs a command in this process, ``spawn`` in one of its own,
``in_terminal`` on a pseudo-terminal of a given width.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from click.testing import CliRunner, Result

from templates_app.api.errors import MEDIA_TYPE, body
from templates_app.cli.main import cli
from templates_app.errors import CoppiceError
from tests.servers import ROOT

TOKEN = "a-token-of-the-tests"
NAME = "fbsd14-min"
DIGEST = "sha256:" + "ab" * 32
COPPICE = [sys.executable, "-m", "templates_app.cli.main"]
#: Tests that a shell runs in the background inherit from it that Ctrl-C is ignored.
_HEEDING = ["env", "--default-signal=INT"]


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """``raw`` is written as it is, headers and all, and the connection closed."""

    status: int = 200
    json: Any = None
    content: bytes | None = None
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


Handler = Callable[[Asked], Answer]


class FakeApi:
    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Handler] = {}
        self.asked: list[Asked] = []
        #: Set at the end: handlers that hang wait for it, so that no thread outlives its test.
        self.over = threading.Event()
        fake = self

        class Handle(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                fake._handle(self)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handle)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, method: str, path: str, answer: Answer | Handler | Any) -> None:
        """What ``METHOD path`` answers: an Answer, a function of the request, or plain JSON."""
        if callable(answer):
            self.routes[method, path] = answer
        else:
            made = answer if isinstance(answer, Answer) else Answer(json=answer)
            self.routes[method, path] = lambda _asked: made

    def paths(self, method: str) -> list[str]:
        return [one.path for one in self.asked if one.method == method]

    def _handle(self, http: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(http.path)
        length = int(http.headers.get("Content-Length") or 0)
        sent = http.rfile.read(length) if length else b""
        asked = Asked(
            method=http.command,
            path=unquote(parts.path),
            query={key: values[-1] for key, values in parse_qs(parts.query).items()},
            headers={key.lower(): value for key, value in http.headers.items()},
            body=json.loads(sent) if sent else None,
        )
        self.asked.append(asked)
        handler = self.routes.get((asked.method, asked.path))
        answer = handler(asked) if handler else problem(404, "not_found", "Nothing here.")
        if answer.raw is not None:
            http.wfile.write(answer.raw)
            http.close_connection = True
            return
        content = answer.content
        if content is None:
            content = b"" if answer.status == 204 else json.dumps(answer.json).encode()
        http.send_response(answer.status)
        http.send_header("Content-Type", answer.kind)
        http.send_header("Content-Length", str(len(content)))
        for key, value in answer.headers.items():
            http.send_header(key, value)
        http.end_headers()
        http.wfile.write(content)


def problem(status: int, code: str, detail: str = "It is so.", **more: Any) -> Answer:
    document = {
        "type": f"urn:coppice:error:{code}",
        "title": "A title",
        "status": status,
        "code": code,
        "detail": detail,
        "nextStep": "",
        "requestId": "request-0001",
        **more,
    }
    return Answer(status=status, json=document, kind=MEDIA_TYPE)


def problem_of(error: CoppiceError) -> Answer:
    """The answer that the API makes of an error, by its own function."""
    return Answer(status=error.status, json=body(error, "request-0001"), kind=MEDIA_TYPE)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()


# --- ways to run a command -----------------------------------------------------------------------


def environment(url: str, token: str | None = TOKEN, **more: str | None) -> dict[str, str | None]:
    """None removes a variable: nothing of the tester's own environment may reach a test."""
    unset = (
        "COPPICE_SIGN_PRIVKEY",
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "LINES",
        "TTY_COMPATIBLE",
    )
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    names = (*unset, *proxies, *(name.lower() for name in proxies))
    return {**dict.fromkeys(names), "COPPICE_URL": url, "COPPICE_TOKEN": token, **more}


def run(url: str, *words: str, stdin: str | bytes = "", **more: str | None) -> Result:
    return CliRunner().invoke(
        cli, list(words), input=stdin, env=environment(url, **more), catch_exceptions=False
    )


def _process_environment(url: str, **more: str | None) -> dict[str, str]:
    whole = {**os.environ, "PYTHONUNBUFFERED": "1", **environment(url, **more)}
    return {name: value for name, value in whole.items() if value is not None}


def spawn(
    url: str,
    *words: str,
    stdout: Any = subprocess.PIPE,
    start_new_session: bool = False,
    **more: str | None,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*_HEEDING, *COPPICE, *words],
        cwd=ROOT,
        env=_process_environment(url, **more),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, as a terminal sends it."""
    process.send_signal(signal.SIGINT)


@dataclass
class Terminal:
    status: int
    text: str  # all that was written, escape sequences too


def in_terminal(
    url: str,
    *words: str,
    width: int = 80,
    typed: str = "",
    await_text: str = "",
    timeout: float = 30,
    **more: str | None,
) -> Terminal:
    """Run on a pseudo-terminal; stdout and stderr are both the terminal.

    ``typed`` is typed when ``await_text`` has been seen: before, it would be echoed or flushed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environ = _process_environment(url, **{"TERM": "xterm-256color", **more})
    process = subprocess.Popen(
        # Its controlling terminal, too: without one a typed Ctrl-C is no signal.
        ["setsid", "--ctty", *_HEEDING, *COPPICE, *words],
        cwd=ROOT,
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = bytearray()
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # EIO: the last one has closed the terminal
                break
            if not chunk:
                break
            seen += chunk
            if typed and await_text.encode() in seen:
                _await_reading(process.pid, until)
                os.write(ours, typed.encode())
                typed = ""
    os.close(ours)
    try:
        status = process.wait(30)
    finally:
        process.kill()
        process.wait()
    return Terminal(status, seen.decode("utf-8", "replace").replace("\r\n", "\n"))


def _await_reading(pid: int, until: float) -> None:
    """Until it sleeps: a Ctrl-C just before its read(2) would count after the next key only."""
    while time.monotonic() < until:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "S":
            return
        time.sleep(0.01)


# --- documents, as the API gives them ------------------------------------------------------------


def template(**changes: Any) -> dict[str, Any]:
    return {
        "name": NAME,
        "snapshot": f"zroot/jails/{NAME}-template@base",
        "sizeBytes": 164822016,
        "generation": 1,
        "origin": f"zroot/jails/coppice/{NAME}-g1-3f2a9c01@base",
        "reference": "oci:quay.io/dougrabson/freebsd14-minimal:latest",
        "floating": True,
        "digest": DIGEST,
        "digests": {"index": None, "manifest": DIGEST, "config": "sha256:" + "cd" * 32},
        "treeDigest": "sha256:" + "12" * 32,
        "statementDigest": "sha256:" + "34" * 32,
        "platform": "freebsd/amd64",
        "engine": "buildah",
        "entries": 812,
        "milliseconds": {"resolve": 210, "pull": 5400},
        "fetchedBytes": 48_000_000,
        "cachedBytes": 0,
        "writtenBytes": 160_000_000,
        "verdict": {
            "result": "native",
            "abis": ["freebsd/amd64"],
            "configPlatform": "freebsd/amd64",
            "reason": "All programs are for freebsd/amd64.",
        },
        "deviations": [{"path": "etc/resolv.conf", "reason": "planted", "sha256": "00" * 32}],
        "findings": [],
        "adopted": False,
        "missing": False,
        "signed": False,
        "blocked": True,
        "importedAt": "2026-01-02T03:04:05.000006Z",
        "importedBy": "alice",
        "position": 1,
        **changes,
    }


def event(position: int = 1, type_: str = "imported", **changes: Any) -> dict[str, Any]:
    return {
        "position": position,
        "eventId": f"00000000-0000-0000-0000-{position:012}",
        "stream": f"template:{NAME}",
        "version": position,
        "type": type_,
        "schema": 1,
        "data": {"template": NAME, "importId": "3f2a9c01"},
        "meta": {"actor": "alice", "source": "api", "requestId": "request-0001", "node": "n1"},
        "recordedAt": "2026-01-02T03:04:05.000006Z",
        "leafHash": "ef" * 32,
        "sentence": f"Imported {NAME} generation 1 from quay.io/x (157.2M, 812 entries)",
        **changes,
    }


def decision(allowed: bool = False, signed: bool = False, mode: str = "on") -> dict[str, Any]:
    failed = {
        "name": "signed",
        "passed": signed,
        "reason": "1 signature(s) stored." if signed else "Its statement has no signature.",
        "code": None if signed else "template_unsigned",
        "nextStep": None if signed else f"Sign it: coppice tpl sign {NAME}",
    }
    return {
        "template": NAME,
        "generation": 1,
        "mode": mode,
        "allowed": allowed,
        "signed": signed,
        "keyId": "0123456789abcdef" if signed else None,
        "keyLabel": "alice" if signed else None,
        "statementDigest": "sha256:" + "34" * 32,
        "treeDigest": "sha256:" + "12" * 32,
        "code": None if signed else "template_unsigned",
        "checks": [
            {
                "name": "dataset_present",
                "passed": True,
                "reason": "It is on the pool.",
                "code": None,
                "nextStep": None,
            },
            failed,
        ],
    }


def sandbox(**changes: Any) -> dict[str, Any]:
    return {
        "id": "build-7",
        "template": NAME,
        "generation": 1,
        "dataset": "zroot/jails/sandbox-build-7",
        "origin": f"zroot/jails/coppice/{NAME}-g1-3f2a9c01@base",
        "signed": True,
        "gate": "on",
        "createdAt": "2026-01-02T03:04:05.000006Z",
        "createdBy": "gateway",
        **changes,
    }
