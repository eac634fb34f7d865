"""In: an IP address as text. Out: whether it is one of the public internet, or of somebody's own network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: IPv6-only networks reach the IPv4 internet through it
NOT_PUBLIC = (
    IPv4Network("168.63.129.16/32"),  # Azure's own host answers it
    IPv4Network("192.0.0.0/24"),  # Oracle's metadata; Python before 3.11.10 takes most of it for public
    IPv4Network("192.88.99.0/24"),  # relays of 6to4 (RFC 7526)
)


def is_public(address: str) -> bool:
    """Tell whether anybody on the internet has this address; False for what is not an address at all.

    False for private, shared, loopback, link-local (where clouds have their metadata), multicast and reserved
    ones, and for IPv6 addresses in which such an IPv4 address is wrapped.
    """
    try:
        ip = ip_address(address)
    except ValueError:  # as 2130706433, which an operating system would take for 127.0.0.1
        return False
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in NOT_PUBLIC)
    wrapped = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped
    return is_public(str(wrapped)) if wrapped else _is_public_ipv6(ip)


def _is_public_ipv6(ip: IPv6Address) -> bool:
    # Nobody serves pictures from 6to4 or Teredo addresses any more, but they lead to IPv4 ones.
    special = ip.is_multicast or ip.is_reserved or ip.is_site_local or ip.sixtofour or ip.teredo
    return ip.is_global and not special
