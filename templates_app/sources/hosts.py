"""Which registry hosts the server may speak to, and by which address.

Whoever may import chooses the host, and the server asks it: without a rule that is a way to reach
what only the server can reach (SSRF). Private, loopback, link-local and similar addresses are
refused, save for hosts that the operator has named.

The native client looks a host up when it connects, and connects to what was judged: the registry,
each redirect, token service and mirror. buildah connects by itself: its host is judged before it
starts, and what a name means a moment later, a redirect and a token service are its own affair.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Any

from templates_app.errors import PullFailed, RegistryNotAllowed
from templates_app.names import Reference

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Family, and the address as socket.connect() takes it.
Found = tuple[socket.AddressFamily, Any]

#: RFC 6052 section 2.1: the last 32 bits are an IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

#: Where docker.io is really asked, as every tool does.
_ASKED_INSTEAD = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
#: Its names: one registry for credentials, and its official images have `library/` in front.
HUB = frozenset({*_ASKED_INSTEAD, "registry-1.docker.io"})

_LOOKUP_SECONDS = 60.0  # a resolver gives up before that


def asked(host: str) -> str:
    """The host (with its port) that is asked where a reference names ``host``."""
    return _ASKED_INSTEAD.get(host, host)


def vet(reference: Reference, *, allowed: tuple[str, ...], insecure: tuple[str, ...]) -> None:
    """Nothing, if the reference's host may be asked; else RegistryNotAllowed.

    A host is named exactly as in references: ``localhost:5000`` does not allow ``localhost:22``.
    PullFailed (unreachable) for a host that has no address.
    """
    host = asked(reference.host)
    name, _, port = host.rpartition(":") if _has_port(host) else (host, "", "443")
    named = (*allowed, *insecure)
    if reference.host not in named and not is_named(name.strip("[]"), int(port), named):
        addresses(name.strip("[]"), int(port), named=named, seconds=_LOOKUP_SECONDS)


def is_named(name: str, port: int, named: tuple[str, ...]) -> bool:
    """Whether the operator has named this host; an IPv6 address comes without brackets here."""
    shown = f"[{name}]" if ":" in name else name
    return f"{shown}:{port}" in named or (port in (80, 443) and shown in named)


def addresses(name: str, port: int, *, named: tuple[str, ...], seconds: float) -> list[Found]:
    """What to connect to, all of it judged. RegistryNotAllowed; PullFailed (unreachable)."""
    found = _look_up(name, port, seconds)
    if not is_named(name, port, named):
        # Every one of them: which one answers is not ours to say.
        for _, address in found:
            if not is_public(ipaddress.ip_address(address[0])):
                raise RegistryNotAllowed(
                    f"The registry host {name} is on a private, loopback or link-local address."
                )
    return found


def _look_up(name: str, port: int, seconds: float) -> list[Found]:
    """getaddrinfo(3) knows no limit of time, so it works in a thread that may be left behind."""
    results: list[list[Found]] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        results.append([(one[0], one[4]) for one in found])

    thread = threading.Thread(target=ask, name=f"look up {name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not results or not results[0]:
        raise PullFailed(
            f"The registry host {name} has no address that can be found.", reason="unreachable"
        )
    return results[0]


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's; one that hides an IPv4 address is judged by it.

    ``is_global`` is false for private, loopback, link-local, shared (RFC 6598), unspecified and
    reserved addresses (the IANA special-purpose registries).
    """
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            hidden = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if hidden is not None:
            return is_public(hidden)
        if address.is_site_local or address.is_reserved:
            # Reserved: all that IANA has not given out, with ::127.0.0.1 (RFC 4291, 2.5.5.1) in it.
            return False
    return address.is_global and not address.is_multicast
