"""Our server and vLLM's as programs that are started, asked over HTTP, and ended."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from engines import OURS, WORK, Program
from process import Running

START_S = 300.0


class Server:
    """One OpenAI-compatible server that runs, and how to ask it."""

    def __init__(self, running: Running, url: str) -> None:
        self.running = running
        self.http = httpx.AsyncClient(base_url=url, timeout=START_S)

    @property
    def process(self) -> psutil.Process:
        """The process that listens."""
        return psutil.Process(self.running.pid)

    async def up(self, path: str = "/health") -> None:
        """Wait until it answers."""
        while True:
            if not self.running.alive():
                raise self.running.failure("ended while starting")
            try:
                if (await self.http.get(path)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)

    async def first_token(self, model: str, prompt: str = "The river") -> float:
        """Ask for one token; return the seconds until it came."""
        began = time.perf_counter()
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
        answer = await self.http.post("/v1/completions", json=body)
        answer.raise_for_status()
        return time.perf_counter() - began

    async def stream(self, model: str, num_tokens: int) -> int:
        """Stream an answer; return how many pieces it had."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Tell me something."}],
            "max_tokens": num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        pieces = 0
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                pieces += line.startswith("data: {")
        return pieces

    async def register(self, alias: str, model: Path, **fields: Any) -> None:
        """Register a model with our server."""
        answer = await self.http.post("/v1/models/register", json={"alias": alias, "model_name": str(model), **fields})
        answer.raise_for_status()

    async def unload(self, alias: str) -> None:
        """Take a model out of memory."""
        (await self.http.post(f"/v1/models/{alias}/unload", json={})).raise_for_status()


@asynccontextmanager
async def serving(name: str, command: list[str], env: dict[str, str]) -> AsyncGenerator[tuple[Server, float]]:
    """Run a server on a free port; yields it, and when its process was started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Program(name, name, [*command, "--port", str(port)], env)
    began = time.perf_counter()
    with Running(program, [], WORK / "logs" / f"serverless-{name}.log") as running:
        server = Server(running, f"http://127.0.0.1:{port}")
        try:
            yield server, began
        finally:
            await server.http.aclose()


@asynccontextmanager
async def ours(*arguments: str, model: Path | None = None) -> AsyncGenerator[tuple[Server, float]]:
    """Run our server with an empty registry."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-c", "from sensorium.cli import main; main()", "serve"]
        command += [str(model)] if model else ["--no-preload"]
        async with serving("ours", [*command, *arguments], OURS | {"SENSORIUM_HOME": home}) as started:
            yield started


def cpu_s(process: psutil.Process) -> float:
    """Return the processor time a process has taken, in seconds; that of others it started does not count."""
    times = process.cpu_times()
    return times.user + times.system
