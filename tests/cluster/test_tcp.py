"""Addresses between the machines of a cluster: names with several of them, names that are none, and both families."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from sensorium.cluster import tcp
from sensorium.cluster.join import own_address
from sensorium.errors import ConfigurationError, InvalidRequest


def test_a_name_with_several_addresses_is_dialled_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `localhost` is where it stands for ::1 first, and the other side listens on 127.0.0.1 only."""

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

            async def both(*_: object, **__: object) -> list[Any]:
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*kind, ("127.0.0.77", port)), (*kind, ("127.0.0.1", port))]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
            with await tcp.dial("some-name", port) as sock:
                assert sock.getpeername() == ("127.0.0.1", port)

    asyncio.run(test())


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_name_that_cannot_be_one_is_refused_with_a_sentence(host: str) -> None:
    with pytest.raises(InvalidRequest, match="it must be tcp://HOST:PORT"):
        tcp.address_of(f"tcp://{host}:7000")
    with pytest.raises(ConfigurationError, match="Cannot listen on"):
        tcp.listen(host, 0)
    with pytest.raises(ConfigurationError, match="it must be like http://gateway:8000"):
        own_address(f"http://{host}:8000")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_listening_everywhere_in_ipv6_is_listening_everywhere() -> None:
    """The worker says that it is at the address from which it reaches the gateway, which may be of IPv4."""
    with tcp.listen("::", 0) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("::1", port), 5).close()
        socket.create_connection(("127.0.0.1", port), 5).close()
