"""Which addresses may be dialled: only those of the public internet, however they are written."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Permit = Callable[[str], bool]

# IANA special-purpose registries, spelled out: `ipaddress.is_global` changed its answers between Python releases.
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's internal service behind a public-looking number
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")  # everything else is loopback, local, multicast, reserved or a translation
_REFUSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other protocol assignments: each may hide an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_MAX_LOOKUPS = 16  # threads of their own: a slow name server must not take asyncio's default threads


def is_public(address: str) -> bool:
    """Whether `address` (a numeric IPv4 or IPv6 address) belongs to the public internet."""
    if "%" in address:  # a zone id: link-local by definition
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        inner = _embedded_v4(parsed)
        if inner is None:
            return parsed in _UNICAST_V6 and not any(parsed in network for network in _REFUSED_V6)
        parsed = inner
    return not any(parsed in network for network in _REFUSED_V4)


def _embedded_v4(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


async def resolve(host: str, port: int) -> list[str]:
    """Return the numeric addresses of `host`, best first; empty where it has none."""
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(_lookup_threads(), look_up)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@functools.cache
def _lookup_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MAX_LOOKUPS, thread_name_prefix="resolve")
