"""Which addresses are out in the world: none that leads to this machine, its house or its data centre."""

from ipaddress import ip_address, ip_network

import pytest

from supervision import networks


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",  # a public one through NAT64, as hosts without IPv4 see it
        "2002:808:808::1",
    ],
)
def test_what_is_out_in_the_world(text: str) -> None:
    assert networks.is_outside(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",  # noqa: S104 - nothing listens here
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # what tells a machine in a cloud its secrets
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.1.2.3",
        "64:ff9b:1::8.8.8.8",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::",
        "2001:0:808:808::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "ff0e::1",
        "4000::1",
    ],
)
def test_what_is_inside_or_nobody_s(text: str) -> None:
    assert not networks.is_outside(ip_address(text))


def test_hosts_that_are_addresses_by_themselves() -> None:
    assert [networks.read_address(text) for text in ("127.0.0.1", "[::1]", "fe80::1%eth0", "example.org", "127.1")] == [
        ip_address("127.0.0.1"),
        ip_address("::1"),
        ip_address("fe80::1"),
        None,
        None,
    ]


def test_networks_that_are_named_hold_for_mapped_addresses_too() -> None:
    named = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    inside = ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd12::1"]
    outside = ["11.1.2.3", "127.0.0.1", "::ffff:127.0.0.1", "fe80::1"]
    assert [networks.is_within(ip_address(one), named) for one in (*inside, *outside)] == [True] * 4 + [False] * 4
