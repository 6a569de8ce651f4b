"""A web server that misbehaves on request, and pictures."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


class Origin:
    """An HTTP server on one loopback address that records what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.paths: list[str] = []
        self.heads: list[str] = []
        self.dialled: list[str] = []
        self.server_names: list[str] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled.append(writer.get_extra_info("sockname")[0])
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            self.paths.append(head.split(" ")[1])
            await self.answer(self.paths[-1], writer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        finally:
            writer.close()


def http(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Return an HTTP/1.1 answer; a header called content_length replaces the true one."""
    fields = {"content-length": str(len(body)), "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body


@asynccontextmanager
async def serve(
    answer: Answer | bytes, host: str = "127.0.0.2", port: int = 0, tls: bool = False
) -> AsyncIterator[Origin]:
    """Run an Origin; `answer` is its fixed answer or a function (path, writer)."""

    async def fixed(path: str, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)

    origin = Origin(fixed if isinstance(answer, bytes) else answer)
    context = None
    if tls:
        folder = Path(__file__).parent / "tls"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        context.sni_callback = lambda _socket, name, _context: origin.server_names.append(name)
    server = await asyncio.start_server(origin.handle, host, port, ssl=context)
    origin.port = server.sockets[0].getsockname()[1]
    try:
        yield origin
    finally:
        server.close()


@pytest.fixture(name="serve")
def _serve() -> Any:
    return serve


@pytest.fixture(name="http")
def _http() -> Any:
    return http


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return `image` as an encoded file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(name="encode")
def _encode() -> Any:
    return encode
