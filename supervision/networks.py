"""Which network addresses are out in the world, and which are inside: of a house, a machine, a data centre.

`ipaddress` alone does not tell: its `is_global` believes what an IPv6 address wraps around an IPv4 one, and knows
nothing of what providers put behind addresses that look public.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are the IPv4 address that is reached
INSIDE = tuple(
    ip_network(one)
    for one in (
        "100.64.0.0/10",  # RFC 6598: behind a provider's NAT, where some keep what tells of a machine
        "168.63.129.16/32",  # Azure's host, which every machine there reaches
        "192.0.0.0/24",  # RFC 6890: protocol assignments
        "192.88.99.0/24",  # RFC 7526: the nearest 6to4 relay
        "::/96",  # RFC 4291, 2.5.5.1: IPv4-compatible
        "64:ff9b:1::/48",  # RFC 8215: NAT64 of a network's own
        "100::/64",  # RFC 6666: discarded
        "2001::/23",  # RFC 2928: protocol assignments, Teredo among them
        "2001:db8::/32",  # RFC 3849: documentation
        "3fff::/20",  # RFC 9637: documentation
        "5f00::/16",  # RFC 9602: segment routing
        "fec0::/10",  # RFC 3879: site-local
    )
)


def read_address(text: str) -> Address | None:
    """The address that a host is by itself; None for a name."""
    try:
        return ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether it is in one of these, be it as itself or as the IPv4 address that it maps."""
    reached = (address, *_wrapped(address))
    return any(one in network for one in reached for network in networks if one.version == network.version)


def is_outside(address: Address) -> bool:
    """Whether it, and any IPv4 address within it, is of one single machine out in the world."""
    return all(_is_public(one) for one in (address, *_wrapped(address))) and getattr(address, "scope_id", None) is None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and (address.ipv4_mapped is not None or address in NAT64):
        return True  # it is nothing by itself: what it leads to is judged beside it
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in INSIDE if address.version == network.version)
    )


def _wrapped(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 one leads to: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056)."""
    if isinstance(address, IPv4Address):
        return []
    found = [one for one in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if one is not None]
    if address in NAT64:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return list(found)
