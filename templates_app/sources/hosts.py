"""Which registry hosts the server may speak to.

Whoever may import chooses the host, and the server asks it: without a rule that is a way to reach
what only the server can reach (SSRF). Private, loopback, link-local and similar addresses are
refused, save for hosts that the operator has named.

What this cannot stop, because the requests are made by other programs: a name that resolves to
another address a moment later (DNS rebinding), a redirect or a token realm that leads inside. A
firewall for the server's user can; the documentation says so.
"""

from __future__ import annotations

import ipaddress
import socket

from templates_app.errors import PullFailed, RegistryNotAllowed
from templates_app.names import Reference

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: RFC 6052 section 2.1: the last 32 bits are an IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

#: What containers/image makes of docker.io when it asks.
_ASKED_INSTEAD = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


def vet(reference: Reference, *, allowed: tuple[str, ...], insecure: tuple[str, ...]) -> None:
    """Nothing, if the reference's host may be asked; else RegistryNotAllowed.

    A host is named exactly as in references: ``localhost:5000`` does not allow ``localhost:22``.
    PullFailed (unreachable) for a host that has no address.
    """
    host = reference.host
    if host in allowed or host in insecure:
        return
    name, _, port = host.rpartition(":") if _has_port(host) else (host, "", "443")
    name = _ASKED_INSTEAD.get(name, name).strip("[]")
    try:
        found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise PullFailed(
            f"The registry host {host} has no address that can be found.", reason="unreachable"
        ) from None
    # Every one of them: which one a program takes is not ours to say.
    for *_, address in found:
        if not is_public(ipaddress.ip_address(address[0])):
            raise RegistryNotAllowed(
                f"The registry host {host} is on a private, loopback or link-local address."
            )


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
