"""TCP sockets between the machines of a cluster: dialled within seconds, ended when the other machine vanishes."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

from sensorium.errors import ConfigurationError, InvalidRequest

CONNECT_S = 5.0
# A machine that vanishes sends nothing: the control connection notices that within seconds (link.SILENT_AFTER_S). A
# worker's own socket may be full for a while without anything being wrong, so it is given longer.
_OPTIONS = (
    ("TCP_KEEPIDLE", 5),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 5),
    ("TCP_USER_TIMEOUT", 30_000),  # milliseconds
)


def prepare(sock: socket.socket) -> None:
    """Set a socket's options: not blocking, small frames at once, and an end when the other machine is gone."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def dial(host: str, port: int, timeout_s: float = CONNECT_S) -> socket.socket:
    """Return a socket connected to an address: of those that `host` has, the first that answers.

    Raises:
        OSError, TimeoutError: nothing listens there, or it cannot be reached.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for left, (family, kind, protocol, _, address) in zip(range(len(found) - 1, -1, -1), found, strict=True):
            sock = socket.socket(family, kind, protocol)
            try:
                prepare(sock)
                await loop.sock_connect(sock, address)
                return sock
            except OSError:  # the other side may listen at the next one only
                sock.close()
                if not left:
                    raise
            except BaseException:
                sock.close()
                raise
        raise OSError(f"{host} has no address")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises:
        ConfigurationError: the address is taken, or not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, address = found[0][0], found[0][4][:2]
        everywhere = address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, dualstack_ipv6=everywhere)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {why}. Choose another --host or --port."
        ) from None


def address_of(url: str, what: str = "worker_url") -> tuple[str, int]:
    """Return host and port of tcp://host:port, http://host:port or host:port.

    Raises:
        InvalidRequest: it is none of these.
    """
    try:
        parts = urlsplit(url if "://" in url else f"tcp://{url}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as looking it up does
    except ValueError:
        host, port = None, None
    if not host or not port or len(url) > 300:
        raise InvalidRequest(f"{what} is {url[:300]!r}; it must be tcp://HOST:PORT.", param=what)
    return host, port


def url_of(host: str, port: int) -> str:
    """Return the inverse of `address_of`."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
