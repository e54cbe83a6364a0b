"""One HTTP request at a time, to addresses that were vetted: connections, TLS, limits of time.

httpcore speaks HTTP/1.1 and keeps connections; what it connects to and how long it waits is decided
here. A host's addresses are looked up and judged when the connection is made, and the connection
goes to one of those (a name that means another address a moment later does not matter). Nothing of
the environment (proxies, .netrc) is read, nothing is decompressed, no redirect is followed.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import httpcore

from templates_app.sources import hosts
from templates_app.sources.credentials import authorities, unreadable_authorities

CONNECT_SECONDS = 10.0  # to one address; also a TLS handshake
IDLE_SECONDS = 60.0  # without a byte, in either direction
MAX_ERROR = 64 * 1024  # bytes that are read of a body that is of no use, or an error's (D12)

#: Bytes of one read. httpcore asks for 64 KiB, h11 takes any, and a large blob costs a third less.
_PIECE = 256 * 1024

_URL = re.compile(
    r"(https?)://(\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9._-]{0,253}))(?::([0-9]{1,5}))?"
    r"((?:[/?][\x21\x22\x24-\x7e]*)?)",
    re.IGNORECASE,
)
_PORTS = {"http": 80, "https": 443}


class Failure(Exception):
    """A request without a usable answer; ``reason`` is one of PullFailed's, the text for the log.

    ``again``: another attempt may go better. ``refused``: credentials were sent, in vain.
    """

    def __init__(
        self, reason: str, private: str, *, again: bool = False, refused: bool = False
    ) -> None:
        super().__init__(private)
        self.reason, self.private, self.again, self.refused = reason, private, again, refused


class TimeUp(Failure):
    """The time for the whole of it is over."""

    def __init__(self) -> None:
        super().__init__("unreachable", "the time for it is over")


class TooLarge(Failure):
    """A body of more bytes than are read."""


class Deadline(float):
    """Seconds for the whole of something. httpcore hands it on to the stream as its timeout."""

    __slots__ = ("_ends",)
    _ends: float

    def __new__(cls, seconds: float) -> Self:
        made = super().__new__(cls, seconds)
        made._ends = time.monotonic() + seconds
        return made

    def left(self) -> float:
        return self._ends - time.monotonic()

    def step(self, most: float) -> float:
        """Seconds that one step may wait, ``most`` at the most. TimeUp when there are none."""
        left = self.left()
        if left <= 0:
            raise TimeUp
        return min(left, most)


@dataclass(frozen=True, slots=True)
class Url:
    scheme: str
    host: str  # lower case, an IPv6 address without brackets
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """ValueError for anything but http(s), a host and a path; user names are no part of it."""
        found = _URL.fullmatch(text.partition("#")[0])
        if not found:
            raise ValueError("not an address that is asked")
        scheme, host, port, target = found.groups()
        scheme = scheme.lower()
        number = int(port) if port else _PORTS[scheme]
        if not 0 < number < 65536:
            raise ValueError("not a port")
        target = target if target.startswith("/") else f"/{target}"
        return cls(scheme, host.strip("[]").lower(), number, target)

    def join(self, text: str) -> Url:
        return Url.parse(urllib.parse.urljoin(f"{self.base}{self.target}", text))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def base(self) -> str:
        """Scheme, host and port: what credentials are bound to."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        """For logs: what stands behind a ``?`` may be a signature that opens a door."""
        return f"{self.base}{self.target.partition('?')[0]}"


class Answer:
    """Status and headers; the body is still to come. Close it."""

    def __init__(self, response: httpcore.Response, url: Url) -> None:
        self.status, self.url = response.status, url
        self._response = response

    def headers(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [v.decode("latin-1") for n, v in self._response.headers if n.lower() == wanted]

    def header(self, name: str) -> str:
        """The first of that name, or nothing."""
        return next(iter(self.headers(name)), "")

    def chunks(self) -> Iterator[bytes]:
        """The body as transferred, in pieces. Failure where it breaks off."""
        if self.header("Content-Encoding").lower() not in ("", "identity"):
            # Only identity was asked for; what is compressed on the way has no digest to check.
            raise Failure("corrupt", f"{self.url}: a body in an encoding that nobody asked for")
        try:
            yield from self._response.iter_stream()
        except httpcore.RemoteProtocolError as error:
            raise Failure("corrupt", f"{self.url}: {error}", again=True) from None

    def read(self, limit: int) -> bytes:
        """The whole body. TooLarge where it has more than ``limit`` bytes."""
        found = bytearray()
        for chunk in self.chunks():
            found += chunk
            if len(found) > limit:
                raise TooLarge("corrupt", f"{self.url}: more than {limit} bytes")
        return bytes(found)

    def discard(self) -> None:
        """Close it, and keep the connection where only a little of the body was to come."""
        with suppress(Failure):
            self.read(MAX_ERROR)
        self.close()

    def close(self) -> None:
        """The connection too, if the body was not read to its end."""
        self._response.close()


class Transport:
    """Connections of one use; threads may share it."""

    def __init__(
        self, *, allowed: tuple[str, ...], insecure: tuple[str, ...], ca_file: Path | None
    ) -> None:
        self._insecure = insecure
        self._ca_file = ca_file
        self._backend = _Backend((*allowed, *insecure))
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        self._making = threading.Lock()
        self.cancelled = threading.Event()

    def plain(self, host: str) -> bool:
        """Whether a host (as references name it) is spoken to without TLS."""
        return host in self._insecure

    def send(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        deadline: Deadline,
        content: bytes | None = None,
    ) -> Answer:
        """The answer's head. Failure, RegistryNotAllowed, PullFailed for a host without address."""
        if url.scheme == "http" and not self.plain(url.authority):
            raise Failure("tls", f"{url}: not among the hosts that are asked without TLS")
        if self.cancelled.is_set():
            raise Failure("unreachable", "given up")
        said = {"Host": url.authority, "User-Agent": "coppice", "Accept-Encoding": "identity"}
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), deadline)
        request = httpcore.Request(
            method,
            httpcore.URL(
                scheme=url.scheme.encode(),
                host=url.host.encode(),
                port=url.port,
                target=url.target.encode(),
            ),
            headers=[*{**said, **headers}.items(), *_length(content)],
            content=content,
            extensions={"timeout": timeouts},
        )
        try:
            return Answer(self._pool(url.scheme).handle_request(request), url)
        except httpcore.RemoteProtocolError as error:
            raise Failure("unreachable", f"{url}: {error}", again=True) from None
        except httpcore.LocalProtocolError as error:
            # A header or target that h11 does not send: it was the other side's text.
            raise Failure("unreachable", f"{url}: {error}") from None

    def _pool(self, scheme: str) -> httpcore.ConnectionPool:
        with self._making:
            if scheme not in self._pools:
                # Reading all authorities takes 20 ms, so not for hosts without TLS.
                context = _tls(authorities(self._ca_file)) if scheme == "https" else None
                self._pools[scheme] = httpcore.ConnectionPool(
                    ssl_context=context,
                    max_connections=64,
                    max_keepalive_connections=8,
                    keepalive_expiry=20.0,
                    network_backend=self._backend,
                )
            return self._pools[scheme]

    def cancel(self) -> None:
        """From any thread: everything under way fails at once, and nothing more is sent."""
        self.cancelled.set()
        self._backend.shut_down()

    def close(self) -> None:
        """When no thread uses it any more."""
        for pool in self._pools.values():
            pool.close()


def _length(content: bytes | None) -> list[tuple[str, str]]:
    return [] if content is None else [("Content-Length", str(len(content)))]


# --- below httpcore ------------------------------------------------------------------------------


class _Backend(httpcore.NetworkBackend):
    """Connects to vetted addresses, and knows what is open."""

    def __init__(self, named: tuple[str, ...]) -> None:
        self._named = named
        self._open: set[_Stream] = set()
        self._lock = threading.Lock()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        deadline = _deadline(timeout)
        wait = deadline.step(CONNECT_SECONDS)
        found = hosts.addresses(host, port, named=self._named, seconds=wait)
        trouble = "no address"
        for family, address in found:
            made = socket.socket(family, socket.SOCK_STREAM)
            try:
                made.settimeout(deadline.step(CONNECT_SECONDS))
                made.connect(address)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                made.close()
                trouble = f"{address[0]}: {error}"
            except BaseException:
                made.close()
                raise
            else:
                return _Stream(made, self)
        raise Failure("unreachable", f"{host}:{port}: {trouble}", again=True)

    def sleep(self, seconds: float) -> None:
        """Of httpcore's own retries, which are not used."""
        raise NotImplementedError

    def keep(self, stream: _Stream) -> None:
        with self._lock:
            self._open.add(stream)

    def forget(self, stream: _Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def shut_down(self) -> None:
        # Not closed: the number of a closed socket may be another file's by the time that the
        # thread that waits for it looks again.
        with self._lock:
            for stream in self._open:
                stream.shut_down()


class _Stream(httpcore.NetworkStream):
    def __init__(self, connected: socket.socket, backend: _Backend) -> None:
        self._socket, self._backend = connected, backend
        backend.keep(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._within(timeout, IDLE_SECONDS):
            return self._socket.recv(max(max_bytes, _PIECE))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        while buffer:
            with self._within(timeout, IDLE_SECONDS):
                buffer = buffer[self._socket.send(buffer) :]

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            with self._within(timeout, CONNECT_SECONDS):
                # The time is that of the whole handshake: _ssl.c counts down.
                self._socket = ssl_context.wrap_socket(
                    self._socket, server_hostname=server_hostname
                )
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        self._backend.forget(self)
        self._socket.close()

    def shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # not connected any more

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return _is_readable(self._socket)
        if info == "ssl_object" and isinstance(self._socket, ssl.SSLSocket):
            return self._socket
        return None

    @contextmanager
    def _within(self, timeout: float | None, most: float) -> Iterator[None]:
        deadline = _deadline(timeout)
        self._socket.settimeout(deadline.step(most))
        try:
            yield
        except TimeoutError:
            deadline.step(most)  # TimeUp, if that is why
            raise Failure("unreachable", f"silent for {most:.0f} seconds", again=True) from None
        except (ssl.SSLEOFError, ssl.SSLSyscallError) as error:
            raise Failure("unreachable", f"TLS: {error}", again=True) from None
        except ssl.SSLError as error:
            # Certificates, and what is no TLS at all.
            raise Failure("tls", f"TLS: {error}") from None
        except OSError as error:
            raise Failure("unreachable", f"the connection broke: {error}", again=True) from None


def _deadline(timeout: float | None) -> Deadline:
    if not isinstance(timeout, Deadline):
        raise TypeError("every request has a deadline")
    return timeout


def _is_readable(connected: socket.socket) -> bool:
    """Of an idle connection: the other side has ended it, or said what nobody asked."""
    if connected.fileno() < 0:
        return True
    poll = select.poll()  # select() knows no numbers above 1023
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))


@lru_cache(maxsize=4)
def _tls(own: str) -> ssl.SSLContext:
    """The system's authorities (or SSL_CERT_FILE's), and our own ones, PEM."""
    context = ssl.create_default_context()
    if own:
        try:
            context.load_verify_locations(cadata=own)
        except ssl.SSLError as error:
            raise unreadable_authorities(str(error)) from None
    return context
