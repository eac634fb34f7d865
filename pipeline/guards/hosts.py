"""Web hosts: which addresses are public, which URLs a job may name, and when to ask a busy host again."""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import AddrInfoType

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: IPv6-only networks reach the IPv4 internet through it
NOT_PUBLIC = (
    IPv4Network("168.63.129.16/32"),  # Azure's own host answers it
    IPv4Network("192.0.0.0/24"),  # Oracle's metadata; Python before 3.11.10 takes most of it for public
    IPv4Network("192.88.99.0/24"),  # relays of 6to4 (RFC 7526)
)


def is_public(address: str) -> bool:
    """Return whether this is a public address of the internet; False if it is not an address at all.

    False for private, shared, loopback, link-local (clouds have their metadata there), multicast and reserved
    addresses, and for IPv6 addresses that wrap one of these.
    """
    try:
        ip = ip_address(address)
    except ValueError:  # e.g. 2130706433, which an operating system takes for 127.0.0.1
        return False
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in NOT_PUBLIC)
    if wrapped := IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped:
        return is_public(str(wrapped))
    # Nobody serves images from 6to4 or Teredo addresses any more, but they lead to IPv4 addresses.
    special = ip.is_multicast or ip.is_reserved or ip.is_site_local or ip.sixtofour or ip.teredo
    return ip.is_global and not special


def public_sockets(refused: list[str]) -> Callable[[AddrInfoType], socket.socket]:
    """Return a `socket_factory` for aiohttp that allows public addresses only, and adds others to `refused`.

    It checks the address that is connected to, i.e. after names are resolved.
    """

    def public_socket(address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, end = address
        if not is_public(str(end[0])):
            refused.append(str(end[0]))
            raise PermissionError(errno.EACCES, "not a public address")  # so aiohttp tries the next one
        return socket.socket(family, kind, protocol)

    return public_socket


def is_plain_address(url: str) -> bool:
    """Return whether a URL is a web address without user, password and query, which may be secrets."""
    try:
        address = urlsplit(url)
        has_host = address.port != 0 and bool((address.hostname or "").encode("idna"))
    except ValueError:
        return False
    return has_host and re.fullmatch(r"https?://[^/?#@\s]+(/[^?#@\s]*)?", url) is not None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return in how many seconds a host wants to be asked again; None if it does not say.

    headers: names in upper or lower case.
    """
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds)
