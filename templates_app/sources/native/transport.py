"""One HTTP request at a time: what is sent, and what comes back.

httpcore speaks HTTP/1.1 and keeps connections; what it connects to and how long it waits is decided
in :mod:`network`. Nothing of the environment (proxies, .netrc) is read, nothing is decompressed, no
redirect is followed.
"""

from __future__ import annotations

import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpcore

from templates_app.sources.credentials import authorities
from templates_app.sources.native.network import Backend, Deadline, Failure, TooLarge, tls

MAX_ERROR = 64 * 1024  # bytes that are read of a body that is of no use, or an error's (D12)

_URL = re.compile(
    r"(https?)://(\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9._-]{0,253}))(?::([0-9]{1,5}))?"
    r"((?:[/?][\x21\x22\x24-\x7e]*)?)",
    re.IGNORECASE,
)
_PORTS = {"http": 80, "https": 443}


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

    def __init__(self, response: httpcore.Response, url: Url, on_close: Callable[[], None]) -> None:
        self.status, self.url = response.status, url
        self._response, self._on_close = response, on_close
        self._closed = False

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
            raise Failure("corrupt", f"{self.url}: {_cut(error)}", again=True) from None

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
        if not self._closed:
            self._closed = True
            try:
                self._response.close()
            finally:
                self._on_close()


class Transport:
    """Connections of one use; threads may share it."""

    def __init__(
        self, *, allowed: tuple[str, ...], insecure: tuple[str, ...], ca_file: Path | None
    ) -> None:
        self._insecure = insecure
        self._ca_file = ca_file
        self._backend = Backend((*allowed, *insecure))
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()
        self._active = 0  # requests that are not answered, or whose answer is not closed
        self.closed = threading.Event()

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
        pool = self._begin(url.scheme)
        try:
            return Answer(pool.handle_request(request), url, self._end)
        except BaseException as error:
            self._end()
            if isinstance(error, httpcore.RemoteProtocolError):
                raise Failure("unreachable", f"{url}: {_cut(error)}", again=True) from None
            if isinstance(error, httpcore.LocalProtocolError):
                # A header or target that h11 does not send: it was the other side's text.
                raise Failure("unreachable", f"{url}: {_cut(error)}") from None
            raise

    def _begin(self, scheme: str) -> httpcore.ConnectionPool:
        with self._lock:
            if self.closed.is_set():
                raise Failure("unreachable", "given up")
            if scheme not in self._pools:
                # Reading all authorities takes 20 ms, so not for hosts without TLS.
                context = tls(authorities(self._ca_file)) if scheme == "https" else None
                self._pools[scheme] = httpcore.ConnectionPool(
                    ssl_context=context,
                    max_connections=64,
                    max_keepalive_connections=8,
                    keepalive_expiry=20.0,
                    network_backend=self._backend,
                )
            self._active += 1
            return self._pools[scheme]

    def _end(self) -> None:
        with self._lock:
            self._active -= 1
        self._close_unused()

    def close(self) -> None:
        """From any thread: what is under way fails at once, and nothing more is sent."""
        self.closed.set()
        self._backend.shut_down()
        self._close_unused()

    def _close_unused(self) -> None:
        # Not while a thread reads: the number of a closed socket may be another file's by the time
        # that it looks again. The last one that ends does it.
        with self._lock:
            over = self.closed.is_set() and self._active == 0
        for pool in self._pools.values() if over else ():
            pool.close()


def _cut(error: Exception) -> str:
    """h11 quotes the line that it does not like, all of it."""
    return str(error)[:200]


def _length(content: bytes | None) -> list[tuple[str, str]]:
    return [] if content is None else [("Content-Length", str(len(content)))]
