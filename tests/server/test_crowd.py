"""Many clients at once, some of them rude."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from tests.fakes import EchoModel
from tests.server.serving import Served, served, wait_until


async def polite(client: httpx.AsyncClient, number: int) -> bool:
    """Ask, wait, and say whether the answer is one's own and whole."""
    text = f"<{number}>" * 10
    body = {"messages": [{"role": "user", "content": text}], "stream": number % 2 == 0}
    response = await client.post("/v1/chat/completions", json=body, timeout=20)
    if not body["stream"]:
        return bool(response.json()["choices"][0]["message"]["content"] == text)
    return response.text.count('"content":"<"') == 10 and response.text.endswith("data: [DONE]\n\n")


async def rude(client: httpx.AsyncClient) -> bool:
    """Ask for a long answer, and leave."""
    body = {"messages": [{"role": "user", "content": "x" * 4000}]}
    try:
        await client.post("/v1/chat/completions", json=body, timeout=httpx.Timeout(20, read=0.3))
    except httpx.ReadTimeout:
        return True
    return False


def test_those_who_leave_do_not_disturb_those_who_stay() -> None:
    async def crowd(url: str) -> list[bool]:
        async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=None)) as client:
            return await asyncio.gather(
                *(polite(client, number) for number in range(50)), *(rude(client) for _ in range(30))
            )

    with served(model=EchoModel(delay_s=0.005)) as server:
        assert all(asyncio.run(crowd(server.url)))
        wait_until(lambda: len(server.gateway.gate) == 0)
        assert (server.model.running, server.pool.leases, server.model.closed_early) == (0, 0, 30)


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 2\r\ncontent-length: 3\r\n",
        b"content-length: +2\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"x y: z\r\n",
        b"x: a\x00b\r\n",
    ],
)
def test_heads_with_two_meanings(server: Served, head: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw, raw.makefile("rb") as replies:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n{}GET /health HTTP/1.1\r\n\r\n")
        reply = replies.read()  # to the end: the connection is closed
        assert reply.startswith(b"HTTP/1.1 400")
        assert reply.count(b"HTTP/1.1") == 1
