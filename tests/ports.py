"""Ports for the programs that the tests start.

Asking the system for one (port 0) and giving it back for a program to take is a race: until the
program listens, the system gives the same port to another test's server or client. These ports are
below those that the system gives out by itself, and each of pytest's workers has its own.
"""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _EACH = 20_000, 1_000
_tried = itertools.count(os.getpid())  # not those that another run on this host begins with


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(_EACH):
        port = _FIRST + worker % 12 * _EACH + next(_tried) % _EACH
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {_FIRST} on is free")
