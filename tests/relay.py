"""A network between a server and a registry: it counts what comes, stops, breaks and heals."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """Hands TCP connections on to ``upstream`` (host:port), on a loopback port of its own.

    After ``stop_after`` bytes to the client nothing more passes, or with ``breaks`` all connections
    end and no new one begins, until :meth:`heal`.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.partition(":")
        self.upstream = (host, int(port))
        self.passed = 0  # bytes to the client since the last heal()
        self.stop_after: int | None = None
        self.breaks = False
        self.reached = threading.Event()
        self._healthy = threading.Event()
        self._healthy.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"localhost:{self._listener.getsockname()[1]}"

    def heal(self) -> None:
        """Everything passes from now on, counted from 0; old connections are over."""
        self.stop_after = None
        self._end_all()
        self.passed = 0
        self._healthy.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all()
        self._healthy.set()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._healthy.is_set():
                client.close()
                continue
            server = socket.create_connection(self.upstream)
            with self._lock:
                self._open |= {client, server}
            for source, target, counted in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass, args=(source, target, counted), daemon=True
                ).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counted and not self._may_pass(len(data)):
                    return
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _may_pass(self, size: int) -> bool:
        with self._lock:
            if self.stop_after is None or self.passed + size <= self.stop_after:
                self.passed += size
                return True
        self._healthy.clear()
        self.reached.set()
        if self.breaks:
            self._end_all()
        return False

    def _end_all(self) -> None:
        with self._lock:
            ended, self._open = self._open, set()
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def relay(upstream: str) -> Iterator[Relay]:
    made = Relay(upstream)
    try:
        yield made
    finally:
        made.close()
