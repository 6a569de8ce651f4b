"""A gateway over fake models, on a loopback port, in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import openai

from sensorium.registry.registrar import Registrar
from sensorium.server.app import create_app
from sensorium.server.routes import Gateway
from sensorium.server.run import DrainingServer, listen, loop_factory, uvicorn_config
from sensorium.settings import ServerSettings
from tests.fakes import EchoModel, FakePool, fetch_data

PIXEL = "data:image/png;base64,iVBORw=="  # four bytes; fakes do not look inside


@dataclass
class Served:
    """A running server and what stands behind it."""

    url: str
    pool: FakePool
    gateway: Gateway
    key: str = "EMPTY"

    @property
    def model(self) -> EchoModel:
        """The first model."""
        return next(iter(self.pool.models.values()))

    @property
    def openai(self) -> openai.OpenAI:
        """OpenAI's client for this server; it does not try again."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=20)

    def post(self, path: str, json: object, **more: object) -> httpx.Response:
        """Send one POST."""
        return httpx.post(self.url + path, json=json, timeout=20, **more)  # type: ignore[arg-type]

    def chat(self, content: object = "hello", **fields: object) -> httpx.Response:
        """Send one user message."""
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **fields})


@contextmanager
def served(settings: ServerSettings | None = None, model: EchoModel | None = None, **pool: object) -> Iterator[Served]:
    """Serve `model`, or the given `models`."""
    models = pool.pop("models", None) or {"echo": model or EchoModel()}
    store = pool.pop("store", None)
    fake = FakePool(models, **pool)  # type: ignore[arg-type]
    settings = settings or ServerSettings()
    registrar = Registrar(fake, store, settings.media, follow_s=0.05)  # type: ignore[arg-type]
    app = create_app(fake, settings, fetch_data, registrar)
    server = DrainingServer(uvicorn_config(app))
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def serve() -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(registrar.start())
            runner.run(server.serve(sockets=[listener]))
            runner.run(registrar.close())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        wait_until(lambda: server.started)
        key = settings.api_keys[0] if settings.api_keys else "EMPTY"
        yield Served(url, fake, app.state.gateway, key)
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something another thread does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
