"""Which registry hosts may be asked: the internet's, and those that the operator has named."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.errors import PullFailed, RegistryNotAllowed
from templates_app.names import Reference
from templates_app.sources import hosts


def vet(host, *, allowed=(), insecure=()):
    hosts.vet(Reference.parse(f"{host}/a/b:1"), allowed=allowed, insecure=insecure)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:5000",
        "LOCALHOST:5000",
        "127.0.0.1",
        "127.0.0.1:5000",
        "127.1.2.3:5000",
        "10.0.0.1:5000",
        "172.16.0.1:5000",
        "192.168.1.1:5000",
        "169.254.169.254",  # the metadata service of clouds
        "100.64.0.1",  # RFC 6598
        "0.0.0.0:5000",
        "255.255.255.255",
        "224.0.0.1",
        "198.18.0.1",
        # Other ways to write 127.0.0.1 that getaddrinfo takes.
        "0x7f.1:5000",
        "0177.0.0.1:5000",
        "2130706433:5000",
        "127.1:5000",
        # IPv6
        "[::1]",
        "[::1]:5000",
        "[::]:5000",
        "[fe80::1]:5000",
        "[fc00::1]:5000",
        "[fec0::1]:5000",
        "[ff02::1]:5000",
        "[::ffff:7f00:1]:5000",
        "[::7f00:1]:5000",  # RFC 4291: IPv4-compatible
        "[64:ff9b::7f00:1]:5000",  # NAT64
        "[2002:7f00:1::]:5000",  # 6to4
    ],
)
def test_a_host_of_the_inside_is_refused(host):
    with pytest.raises(RegistryNotAllowed) as refused:
        vet(host)
    assert "private, loopback or link-local" in refused.value.detail
    assert "COPPICE_REGISTRIES_ALLOWED" in refused.value.next_step


@pytest.mark.parametrize("host", ["8.8.8.8", "8.8.8.8:5000", "[2606:4700:4700::1111]:443"])
def test_a_host_of_the_internet_may_be_asked(host):
    vet(host)


def test_a_host_that_the_operator_named_may_be_asked():
    vet("localhost:5000", allowed=("localhost:5000",))
    vet("localhost:5000", insecure=("localhost:5000",))
    vet("LocalHost:5000", allowed=("localhost:5000",))


def test_a_host_is_named_with_its_port():
    for named in (("localhost:5000",), ("localhost",), ("127.0.0.1:22",)):
        with pytest.raises(RegistryNotAllowed):
            vet("localhost:22", allowed=named, insecure=named)


def test_a_named_host_is_not_even_looked_up():
    vet("no-such-host.invalid:5000", allowed=("no-such-host.invalid:5000",))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "no-such-host.invalid:5000"])
def test_a_host_without_an_address_is_unreachable(host):
    with pytest.raises(PullFailed) as failed:
        vet(host)
    assert failed.value.reason == "unreachable"


def answers(monkeypatch, *addresses):
    """What a name server would say; asking a real one would need the internet."""
    asked = []

    def getaddrinfo(host, port, **rest):
        asked.append((host, port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_that_leads_inside_is_refused(monkeypatch):
    asked = answers(monkeypatch, "10.1.2.3")
    with pytest.raises(RegistryNotAllowed):
        vet("registry.example.com")
    assert asked == [("registry.example.com", 443)]


def test_one_private_address_among_several_is_enough(monkeypatch):
    answers(monkeypatch, "93.184.216.34", "93.184.216.35", "::1")
    with pytest.raises(RegistryNotAllowed):
        vet("registry.example.com:5000")
    answers(monkeypatch, "93.184.216.34", "93.184.216.35")
    vet("registry.example.com:5000")


def test_an_address_with_a_zone_is_judged(monkeypatch):
    answers(monkeypatch, "fe80::1%eth0")
    with pytest.raises(RegistryNotAllowed):
        vet("registry.example.com")


def test_the_docker_hub_is_asked_under_the_name_that_programs_use(monkeypatch):
    asked = answers(monkeypatch, "93.184.216.34")
    vet("docker.io")
    assert asked == [("registry-1.docker.io", 443)]


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_in_an_ipv6_one_is_judged_by_itself(number):
    plain = ipaddress.IPv4Address(number)
    hidden = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),  # RFC 4291: mapped
        ipaddress.IPv6Address((0x0064FF9B << 96) | number),  # RFC 6052
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),  # RFC 3056
    ]
    assert [hosts.is_public(one) for one in hidden] == [hosts.is_public(plain)] * 3


@given(st.ip_addresses() | st.ip_addresses(network="::/8") | st.ip_addresses(network="fc00::/6"))
def test_what_counts_as_public_is_never_private(address):
    # Those that hide an IPv4 address are the test above's: they are judged by what they hide.
    hiding = ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16")
    hides = any(address in ipaddress.ip_network(one) for one in hiding)
    if hosts.is_public(address) and not hides:
        assert not (
            address.is_private
            or address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address.is_reserved
        )
