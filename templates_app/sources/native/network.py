"""Below HTTP: connections to addresses that were judged, TLS, and time that runs out.

httpcore calls these in place of its own. A host is looked up and judged when a connection to it is
made, and the connection goes to one of those addresses: what the name means a moment later does not
matter.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Self

import httpcore

from templates_app.sources import hosts
from templates_app.sources.credentials import unreadable_authorities

CONNECT_SECONDS = 10.0  # to one address; also a TLS handshake
IDLE_SECONDS = 60.0  # without a byte, in either direction

#: Bytes of one read. httpcore asks for 64 KiB, h11 takes any, and a large blob costs a third less.
_PIECE = 256 * 1024


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


class Backend(httpcore.NetworkBackend):
    """Connects to vetted addresses, and knows what is open."""

    def __init__(self, named: tuple[str, ...]) -> None:
        self._named = named
        self._open: set[Stream] = set()
        self._down = False
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
                return Stream(made, self)
        raise Failure("unreachable", f"{host}:{port}: {trouble}", again=True)

    def sleep(self, seconds: float) -> None:
        """Of httpcore's own retries, which are not used."""
        raise NotImplementedError

    def keep(self, stream: Stream) -> None:
        with self._lock:
            self._open.add(stream)
            if self._down:
                stream.shut_down()

    def forget(self, stream: Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def shut_down(self) -> None:
        with self._lock:
            self._down = True
            for stream in self._open:
                stream.shut_down()


class Stream(httpcore.NetworkStream):
    def __init__(self, connected: socket.socket, backend: Backend) -> None:
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
        with suppress(OSError):  # it may not be connected any more
            # Not SSLSocket's own, which takes TLS away: who reads would get what is encrypted.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

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
def tls(own: str) -> ssl.SSLContext:
    """The system's authorities (or SSL_CERT_FILE's), and our own ones, PEM."""
    context = ssl.create_default_context()
    if own:
        try:
            context.load_verify_locations(cadata=own)
        except ssl.SSLError as error:
            raise unreadable_authorities(str(error)) from None
    return context
