"""A real `sensorium serve` as a child process, as a user would start it."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI
from PIL import Image

START_S = 120.0


class Running:
    """A server that is ready, its base URL and its processes; `output` is what it printed, once it has ended."""

    def __init__(self, process: subprocess.Popen[str], port: int, home: Path) -> None:
        self.process = process
        self.home = home
        self.output = ""
        self.url = f"http://127.0.0.1:{port}"

    def client(self, **options: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=options.pop("api_key", "EMPTY"), max_retries=0, **options)

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        found = re.search(rf"^sensorium_engine_{name}\{{[^}}]*\}} (\S+)$", text, re.M)
        assert found, f"no metric {name}"
        return float(found[1])

    def worker(self) -> psutil.Process:
        """The process that holds the model."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if child.name().startswith("sensorium-worke"))  # 15 characters

    def metrics_now(self) -> None:
        """Return once the engine's metrics, which come with the worker's beat, show all that has ended before."""
        beats = self.metric("beats")
        self.until("two beats", lambda: self.metric("beats") >= beats + 2)

    def until(self, what: str, condition: Any, seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
            time.sleep(0.05)


@contextmanager
def serve(
    arguments: Sequence[str],
    home: Path,
    command: Sequence[str] = ("sensorium", "serve"),
    variables: Mapping[str, str] | None = None,
    port_option: str = "--port",
    api_key: str = "EMPTY",
) -> Iterator[Running]:
    """Start the server, wait until it is ready, and end it by SIGTERM.

    Args:
        command: a module or a program's file, and its first arguments.
        variables: of the environment, beside those of this process.
        port_option: how the port is told: an option, or a variable (a name without dashes).
        api_key: what the server asks for, if it was told one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "SENSORIUM_HOME": str(home), "OMP_WAIT_POLICY": "passive", **(variables or {})}
    told = [f"{port_option}={port}"] if port_option.startswith("-") else []
    if not told:
        environment[port_option] = str(port)
    with tempfile.TemporaryFile("a+") as output:  # a pipe that nobody reads would stop the server when it is full
        module = [] if command[0].endswith(".py") else ["-m"]
        process = subprocess.Popen(
            [sys.executable, *module, *command, *arguments, *told],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        running = Running(process, port, home)

        def printed() -> str:
            output.seek(0)
            return output.read()

        try:
            _wait(running, api_key, printed)
            yield running
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                running.output = printed()


def _wait(running: Running, api_key: str, printed: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_S
    key = {"Authorization": f"Bearer {api_key}"}
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise AssertionError(f"the server ended: {printed()}")
        try:
            if httpx.get(f"{running.url}/ready", headers=key).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    running.process.kill()
    raise AssertionError(f"the server was not ready in {START_S} s: {printed()}")


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    """The picture as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def ask(text: str, *urls: str) -> list[dict[str, Any]]:
    """One user message: pictures, then the question."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
