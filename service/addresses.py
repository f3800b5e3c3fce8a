"""The addresses that webhooks may be sent to: public ones, and private networks that the operator names."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

#: Translates to IPv4 (RFC 6052): what counts is the address inside.
_NAT64 = IPv6Network("64:ff9b::/96")
#: Never public, whatever the standard library of this version has of them: local NAT64 (RFC 8215), addresses
#: of the form ::a.b.c.d (RFC 4291), Teredo (RFC 4380), site-local ones (RFC 3879), "this network", protocol
#: assignments (RFC 6890).
_NEVER: tuple[Network, ...] = (
    *(IPv6Network(text) for text in ("64:ff9b:1::/48", "::/96", "2001::/32", "fec0::/10")),
    IPv4Network("0.0.0.0/8"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),  # 6to4 relays (RFC 7526)
)


def may_reach(address: str, private: Sequence[Network]) -> bool:
    """Whether ``address`` is public, or in one of the networks ``private``. False for what is no address."""
    try:
        parsed = _inside(ip_address(address))
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        return False
    if any(parsed in network for network in private if network.version == parsed.version):
        return True
    return (
        parsed.is_global
        and not (parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified or parsed.is_loopback)
        and not any(parsed in network for network in _NEVER if network.version == parsed.version)
    )


def _inside(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address leads to, where it does."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks such as ``10.0.0.0/8``. Raises `ValueError`, with the text at fault."""
    return tuple(ip_network(text) for text in texts)
