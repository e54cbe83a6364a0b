"""A registry that does what a test says, down to the bytes on the wire; and names for hosts.

``liar``     an HTTP server of one's own; ``liars`` makes further ones
``context``  settings that allow to ask it, without TLS
``names``    what host names mean, instead of what a name server says
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from templates_app.errors import PullFailed
from templates_app.names import Digest, Platform, Reference
from templates_app.sources.base import SourceContext
from templates_app.sources.native import client, throttle, tokens
from templates_app.sources.native.registry import Registry


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]  # names in lower case
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


class Answering(http.server.BaseHTTPRequestHandler):
    """What a test's function gets to answer with."""

    protocol_version = "HTTP/1.1"
    liar: Liar
    seen: Seen

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Seen(self.command, self.path, headers, self.rfile.read(length))
        with self.liar.lock:
            self.liar.requests.append(self.seen)
        for pattern, answer in self.liar.answers:
            if re.search(pattern, self.path):
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True  # the client has had enough
                return
        self.send(404)

    do_HEAD = do_POST = do_GET

    def send(
        self,
        status: int = 200,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """An answer; ``length`` says another Content-Length than the body's, and then it ends."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = self.close_connection or length is not None

    def raw(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def drip(self, data: bytes, seconds: float) -> None:
        """One byte after the other, until the client goes or the test ends."""
        for number in range(len(data)):
            if self.liar.stopped.wait(seconds):
                break
            self.raw(data[number : number + 1])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Silent: ``requests`` has it."""


Answer = Callable[[Answering], None]


@dataclass(slots=True)
class Liar:
    """``on`` says what is answered; without anything said it is 404."""

    tls: tuple[Path, Path] | None = None  # key, certificate
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)
    server: Any = None
    thread: Any = None

    def start(self) -> Liar:
        handler = type("Handler", (Answering,), {"liar": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls[1], self.tls[0])
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def stop(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def port(self) -> int:
        return int(self.server.server_port)

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def at(self, name: str) -> str:
        return f"{name}:{self.port}"

    def on(self, pattern: str, answer: Answer) -> None:
        """The latest that matches the target counts."""
        self.answers.insert(0, (pattern, answer))

    def gives(self, pattern: str, body: bytes = b"", status: int = 200, **headers: str) -> None:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        self.on(pattern, lambda it: it.send(status, body, said))

    def targets(self, method: str = "") -> list[str]:
        return [one.target for one in self.requests if method in ("", one.method)]

    def sent(self, header: str) -> list[str]:
        """What came in a header, request by request; "" where it was not there."""
        return [one.headers.get(header.lower(), "") for one in self.requests]


def in_turn(*answers: Answer) -> Answer:
    """One after the other; the last for ever."""
    left = list(answers)
    lock = threading.Lock()

    def answer(it: Answering) -> None:
        with lock:
            now = left.pop(0) if len(left) > 1 else left[0]
        now(it)

    return answer


def status(number: int, **headers: str) -> Answer:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda it: it.send(number, b"", said)


def ranged(blob: bytes, most: int | None = None) -> Answer:
    """A blob as a registry gives it, with ranges; ``most`` bytes and then the connection breaks."""

    def answer(it: Answering) -> None:
        begin = re.fullmatch(r"bytes=([0-9]+)-", it.seen.headers.get("range", ""))
        first = int(begin[1]) if begin else 0
        part = blob[first:]
        headers = {"Content-Range": f"bytes {first}-{len(blob) - 1}/{len(blob)}"} if begin else {}
        sent = part if most is None else part[:most]
        it.send(206 if begin else 200, sent, headers, length=len(part))

    return answer


def wants(header: str, challenge: str, then: Answer) -> Answer:
    """401 with this challenge, unless the request has this Authorization."""

    def answer(it: Answering) -> None:
        if it.seen.headers.get("authorization") == header:
            then(it)
        else:
            it.send(401, b"", {"WWW-Authenticate": challenge})

    return answer


def to(url: str, code: int = 307) -> Answer:
    return lambda it: it.send(code, b"", {"Location": url})


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def liars(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Liar]]:
    # A port is given out again: what a registry of an earlier test wanted there, this one does not.
    monkeypatch.setattr(tokens, "_tokens", {})
    monkeypatch.setattr(tokens, "_wanted", {})
    monkeypatch.setattr(throttle, "_throttles", {})
    made: list[Liar] = []

    def make(tls: tuple[Path, Path] | None = None) -> Liar:
        made.append(Liar(tls).start())
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.stop()


@pytest.fixture
def liar(liars: Callable[..., Liar]) -> Liar:
    return liars()


@pytest.fixture
def context(liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceContext:
    """With pauses that tests can wait for."""
    monkeypatch.setattr(client, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(client, "_FIRST_LIMITED", 0.02)
    return SourceContext(
        platform=Platform("linux", "amd64"),
        allowed=(),
        insecure=(liar.host,),
        auth_file=None,
        step_seconds=30,
        state_dir=tmp_path,
        limit_image_bytes=2**30,
    )


BLOB = bytes(range(256)) * 40_000  # ten megabytes
MANIFEST = b'{"schemaVersion":2}'
USER, PASSWORD = "me", "s3cret"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def asked(context: SourceContext, liar: Liar | str, repository: str = "a/b") -> Registry:
    host = liar if isinstance(liar, str) else liar.host
    return Registry(Reference.parse(f"{host}/{repository}:1"), context)


def whole(it: Registry, size: int = len(BLOB), offset: int = 0) -> bytes:
    return b"".join(it.blob(Digest(digest_of(BLOB)), size, offset=offset))


def failed(call: Callable[..., object], *args: Any) -> PullFailed:
    with pytest.raises(PullFailed) as caught:
        call(*args)
    return caught.value


def with_login(context: SourceContext, *hosts: str, **more: str) -> SourceContext:
    """An entry for each of the hosts; ``more`` is added to each, or replaces."""
    entry = {"auth": BASIC.removeprefix("Basic "), **more}
    place = context.state_dir / "auth.json"
    place.write_text(json.dumps({"auths": dict.fromkeys(hosts, entry)}))
    return replace(context, auth_file=place)


class Names(dict[str, list[str]]):
    """Host name -> its addresses, one for each time that it is asked; the last for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.real = socket.getaddrinfo

    def __call__(self, host: str, port: int, *args: Any, **rest: Any) -> Any:
        self.asked.append(host)
        if host not in self:
            if host.endswith((".example", ".invalid")):
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return self.real(host, port, *args, **rest)
        left = self[host]
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made
