"""Who may talk to a node agent, and which agent a gateway talks to."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvloop

from sensorium.cluster import handshake, tcp
from sensorium.cluster.handshake import Hello, Refused, greet, receive
from sensorium.cluster.node import Node
from sensorium.cluster.token import key_of
from sensorium.errors import ModelUnavailable
from tests.cluster.agents import KEY, AgentProcess, agent, connected, load
from tests.workers import answer, request, until

HELLO = Hello("me", "control")
OTHER = key_of("the token of somebody else")


async def both(gateway: bytes, node: bytes, hello: Hello = HELLO, worker_id: str = "me") -> list[object]:
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)
        return await asyncio.gather(
            greet(one, gateway, hello, 1.0), receive(two, node, worker_id, 1.0), return_exceptions=True
        )


def test_who_knows_the_token_is_let_in_and_nothing_behind_it_is_read() -> None:
    async def run() -> None:
        one, two = socket.socketpair()
        with one, two:
            one.setblocking(False)
            two.setblocking(False)
            hello = Hello("me", "worker", "ab" * 16, 7)

            async def gateway() -> None:
                await greet(one, KEY, hello)
                one.sendall(b"the first frame")

            assert (await asyncio.gather(gateway(), receive(two, KEY, "me")))[1] == hello
            assert two.recv(100) == b"the first frame"

    asyncio.run(run())


def test_who_does_not_is_not() -> None:
    gateway, node = asyncio.run(both(OTHER, KEY))
    assert isinstance(gateway, Refused)
    assert isinstance(node, Refused)
    assert "does not know this cluster's token" in gateway.message
    assert "does not know this cluster's token" in node.message


def test_another_machine_than_was_meant_is_refused() -> None:
    gateway, node = asyncio.run(both(KEY, KEY, worker_id="you"))
    assert isinstance(gateway, Refused)
    assert isinstance(node, Refused)
    assert "it means the worker 'me', not 'you'" in node.message


def test_a_gateway_tells_nothing_to_a_node_that_only_says_yes() -> None:
    async def run() -> None:
        one, two = socket.socketpair()
        with one, two:
            one.setblocking(False)
            two.sendall(b"SENSORIUM NODE 1\n" + os.urandom(32) + b"\1" + os.urandom(32))
            with pytest.raises(Refused, match="does not know this cluster's token"):
                await greet(one, KEY, HELLO, 1.0)

    asyncio.run(run())


def test_a_proof_cannot_be_sent_back_to_who_made_it() -> None:
    """A node that has no token answers with the gateway's own MAC."""

    async def run() -> None:
        one, two = socket.socketpair()
        with one, two:
            one.setblocking(False)
            two.sendall(b"SENSORIUM NODE 1\n" + os.urandom(32))
            greeting = asyncio.create_task(greet(one, KEY, HELLO, 1.0))
            await asyncio.sleep(0.05)
            two.sendall(b"\1" + two.recv(4096)[-32:])
            with pytest.raises(Refused):
                await greeting

    asyncio.run(run())


@pytest.mark.parametrize("first", [b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-OpenSSH_9.9\r\n", b"\0" * 60])
def test_what_is_no_node_is_recognised_at_once(first: bytes) -> None:
    async def run() -> None:
        one, two = socket.socketpair()
        with one, two:
            one.setblocking(False)
            two.sendall(first)
            with pytest.raises(Refused, match="what listens there is no sensorium worker"):
                await greet(one, KEY, HELLO, 5.0)

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 4.5


@pytest.fixture(scope="module")
def there() -> Iterator[AgentProcess]:
    with agent("127.0.0.4") as started:
        yield started


def still_works(there: AgentProcess) -> None:
    async def run() -> None:
        async with connected(there) as node:
            handle = await load(node)
            assert await answer(handle, request("a", "fine")) == "fine"
            await handle.close()

    uvloop.run(run())


def closed(sock: socket.socket, timeout_s: float) -> bool:
    """Whether the other side closes the connection in that time."""
    sock.settimeout(timeout_s)
    try:
        while sock.recv(4096):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_a_wrong_token_is_told_to_the_gateway(there: AgentProcess) -> None:
    async def run() -> None:
        with pytest.raises(ModelUnavailable, match="does not know this cluster's token") as caught:
            await Node.connect(there.worker_id, there.address, OTHER)
        assert caught.value.code == "worker_unreachable"

    uvloop.run(run())
    still_works(there)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
        os.urandom(4096),
        b"\0" * 32 + b"\xff\xff" + b"\0" * 70000,  # a greeting that is too long
        b"\0" * 32 + b"\0\0" + b"\0" * 32,  # an empty one
    ],
)
def test_garbage_is_closed(there: AgentProcess, sent: bytes) -> None:
    with socket.create_connection(there.address) as sock:
        sock.sendall(sent)
        assert closed(sock, 7.0)
    still_works(there)


def test_a_recorded_conversation_is_worth_nothing(there: AgentProcess) -> None:
    sent = bytearray()

    async def record() -> None:
        loop = asyncio.get_running_loop()
        sock = await tcp.dial(*there.address)
        original = loop.sock_sendall

        async def noted(to: socket.socket, data: bytes) -> None:
            sent.extend(data)
            await original(to, data)

        loop.sock_sendall = noted  # type: ignore[method-assign, assignment]
        with sock:
            await greet(sock, KEY, Hello(there.worker_id, "control"))

    asyncio.run(record())
    with socket.create_connection(there.address) as sock:
        sock.sendall(sent)
        sock.settimeout(20)
        received = b""
        while more := sock.recv(4096):
            received += more
        assert received[len(b"SENSORIUM NODE 1\n") + 32 :] == b"\0"


def test_who_says_nothing_or_speaks_slowly_is_closed_and_keeps_nobody_out(there: AgentProcess) -> None:
    silent = [socket.create_connection(there.address) for _ in range(20)]
    still_works(there)
    slow = silent.pop()
    start = time.monotonic()
    with suppress(OSError):
        while time.monotonic() - start < 2 * handshake.TIMEOUT_S:
            slow.sendall(b"x")
            time.sleep(0.3)
    assert handshake.TIMEOUT_S - 1 < time.monotonic() - start < handshake.TIMEOUT_S + 3
    assert all(closed(sock, 1.0) for sock in silent)
    for sock in (slow, *silent):
        sock.close()


def test_a_crowd_of_strangers_is_turned_away(there: AgentProcess) -> None:
    crowd = [socket.create_connection(there.address) for _ in range(80)]
    time.sleep(0.3)
    assert sum(closed(sock, 0.05) for sock in crowd) >= 80 - 64
    assert len(os.listdir(f"/proc/{there.process.pid}/fd")) < 100
    still_works(there)  # at once, while they wait on
    for sock in crowd:
        sock.close()
    time.sleep(0.3)
    still_works(there)


def test_a_worker_connection_needs_its_control_connection(there: AgentProcess) -> None:
    async def run() -> None:
        sock = await tcp.dial(*there.address)
        with sock:
            await greet(sock, KEY, Hello(there.worker_id, "worker", "00" * 16, 1))
            sock.setblocking(True)
            assert await asyncio.to_thread(closed, sock, 3.0)

    asyncio.run(run())


def test_nonsense_on_a_control_connection_ends_it_with_its_workers(there: AgentProcess) -> None:
    async def run(sent: bytes) -> None:
        async with connected(there) as node:
            handle = await load(node)
            node._link._transport.write(sent)  # type: ignore[union-attr]
            await asyncio.wait_for(asyncio.shield(node.lost), 20)
            await until(lambda: handle.died.done())

    for sent in (b"\xff\xff\xff\x7f", (5).to_bytes(4, "little") + b"\xc1\xc1\xc1\xc1\xc1"):
        uvloop.run(run(sent))
    still_works(there)
