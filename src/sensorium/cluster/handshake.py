"""How gateway and node agent find out that they share the token, before either tells the other anything.

The agent sends its name for the protocol and a fresh number (nonce); the gateway sends one too, what it wants, and a
MAC (HMAC-SHA256) over all of it; the agent checks, and answers with a MAC of its own. Numbers are new for each
connection, so nothing recorded is worth anything later, and the two MACs begin with who speaks, so neither can be sent
back. What follows is neither encrypted nor signed: the network between the machines must be one that others cannot
write to.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import socket

import msgspec

from sensorium.errors import ModelUnavailable

TIMEOUT_S = 5.0
MAX_HELLO_BYTES = 1024
_GREETING = b"SENSORIUM NODE 1\n"
_NONCE = _MAC = 32
_NO, _YES = b"\0", b"\1"


class Refused(ModelUnavailable):
    """The other side is not of this cluster, or speaks another language (503)."""


class Hello(msgspec.Struct, frozen=True):
    """What the gateway wants of a connection: to control the node, or to be a worker's socket."""

    worker_id: str  # whom the gateway means to talk to
    kind: str  # control | worker
    session: str = ""  # of a worker: to which control connection it belongs
    number: int = 0  # of a worker: which one of them


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Hello)


async def greet(sock: socket.socket, key: bytes, hello: Hello, timeout_s: float = TIMEOUT_S) -> None:
    """Gateway's side: prove the token, and see it proved.

    Raises:
        Refused: this is no node of the cluster.
        OSError, TimeoutError: the connection failed.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        greeting = await _read(sock, len(_GREETING) + _NONCE, _GREETING)
        theirs, ours = greeting[len(_GREETING) :], secrets.token_bytes(_NONCE)
        body = _encode(hello)
        proof = _mac(key, b"gateway", theirs, ours, body)
        await loop.sock_sendall(sock, ours + len(body).to_bytes(2, "little") + body + proof)
        if await _read(sock, 1) != _YES:
            raise Refused("the node does not know this cluster's token, or goes by another name")
        answer = await _read(sock, _MAC)
        if not hmac.compare_digest(answer, _mac(key, b"node", theirs, ours, body)):
            raise Refused("the node does not know this cluster's token")


async def receive(sock: socket.socket, key: bytes, worker_id: str, timeout_s: float = TIMEOUT_S) -> Hello:
    """Agent's side. Nothing behind the handshake is read: the socket can be handed on.

    Raises:
        Refused: the other side does not know the token, or means somebody else.
        OSError, TimeoutError: the connection failed.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        ours = secrets.token_bytes(_NONCE)
        await loop.sock_sendall(sock, _GREETING + ours)
        head = await _read(sock, _NONCE + 2)
        theirs, length = head[:_NONCE], int.from_bytes(head[_NONCE:], "little")
        if length > MAX_HELLO_BYTES:
            raise Refused(f"a greeting of {length} bytes is announced; the limit is {MAX_HELLO_BYTES}")
        body = await _read(sock, length)
        proof = await _read(sock, _MAC)
        if not hmac.compare_digest(proof, _mac(key, b"gateway", ours, theirs, body)):
            await loop.sock_sendall(sock, _NO)
            raise Refused("it does not know this cluster's token")
        try:
            hello = _decoder.decode(body)
        except msgspec.MsgspecError:
            raise Refused("its greeting cannot be read; is it of another version?") from None
        if hello.worker_id != worker_id:
            await loop.sock_sendall(sock, _NO)
            raise Refused(f"it means the worker {hello.worker_id!r}, not {worker_id!r}")
        await loop.sock_sendall(sock, _YES + _mac(key, b"node", ours, theirs, body))
        return hello


def _mac(key: bytes, who: bytes, of_node: bytes, of_gateway: bytes, body: bytes) -> bytes:
    return hmac.new(key, who + b"\n" + of_node + of_gateway + body, hashlib.sha256).digest()


async def _read(sock: socket.socket, size: int, prefix: bytes = b"") -> bytes:
    """Read exactly `size` bytes; what does not begin with `prefix` is not waited for."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            raise ConnectionResetError("the connection was closed in the middle of the handshake")
        data += more
        if not data.startswith(prefix[: len(data)]):
            raise Refused("what listens there is no sensorium worker")
    return data
