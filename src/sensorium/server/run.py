"""Runs the gateway until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from sensorium import way
from sensorium.cluster.spawner import ClusterSpawner
from sensorium.errors import ConfigurationError, ModelUnavailable, SensoriumError
from sensorium.registry.interface import Pool
from sensorium.registry.models_file import read_models
from sensorium.registry.registrar import Registrar
from sensorium.registry.spec import ModelSpec
from sensorium.registry.store import Store
from sensorium.server.app import create_app
from sensorium.server.connection import Connection
from sensorium.server.routes import Gateway
from sensorium.settings import ServerSettings, registry_file

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 30
GOODBYE_S = 2.0  # for requests that were stopped to say so to their clients
POOL_CLOSE_S = 5.0


class DrainingServer(uvicorn.Server):
    """uvicorn without its signal handlers: ours drain first, and do not raise the signal again at the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(
    settings: ServerSettings,
    pool_factory: Callable[[], Pool],
    on_ready: Callable[[str], None] | None = None,
    fetch: way.Fetch | None = None,
    store: Store | None = None,
    cluster: ClusterSpawner | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    `pool_factory` is called in the running event loop. `on_ready` gets the server's URL, once the only model is
    loaded (`settings.preload`) and requests are answered. A signal turns readiness off, refuses new requests, lets
    running ones finish for up to `settings.grace_s`, and closes the pool; a second one does not wait. `store` is where
    registered models are kept, `cluster` where the pool's workers come from, if not only from this machine.

    Raises:
        ConfigurationError: the address cannot be listened on, models.toml is wrong, or the registry that was asked for
            cannot be read.
    """
    models = read_models(settings.models_file, trusted=settings.trust_engine_args) if settings.models_file else []
    listener = listen(settings.host, settings.port)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, pool_factory, listener, on_ready, fetch, store, models, cluster))


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises:
        ConfigurationError: the address is taken, or not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=2048)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).partition(" (while")[0]
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {reason}. Choose another --host or --port."
        ) from None


async def _serve(
    settings: ServerSettings,
    pool_factory: Callable[[], Pool],
    listener: socket.socket,
    on_ready: Callable[[str], None] | None,
    fetch: way.Fetch | None,
    store: Store | None,
    models: list[ModelSpec],
    cluster: ClusterSpawner | None,
) -> int:
    pool = pool_factory()
    registrar = Registrar(pool, store, settings.media)
    try:
        source = str(Path(settings.models_file).expanduser().absolute()) if settings.models_file else ""
        required = store is not None and store.location != registry_file()
        await registrar.start(models, source, required=required)
    except SensoriumError:
        await registrar.close()
        await pool.close(POOL_CLOSE_S)
        raise
    app = create_app(pool, settings, fetch, registrar, cluster)
    gateway: Gateway = app.state.gateway
    gateway.loading = settings.preload
    server = DrainingServer(uvicorn_config(app))
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            gateway.gate.stop_all(_going_down())
        gateway.gate.draining = True
        stop.set()

    _on_signals(on_signal)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    begin = asyncio.create_task(_begin(gateway, server, _url(settings.host, listener), on_ready))
    stopped = asyncio.create_task(stop.wait())
    code = 0
    try:
        await asyncio.wait([begin, serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        if begin.done() and begin.result():
            code = begin.result()
        else:
            await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        gateway.gate.draining = True
        if not await gateway.gate.empty(settings.grace_s):
            gateway.gate.stop_all(_going_down())
            await gateway.gate.empty(GOODBYE_S)
    finally:
        begin.cancel()
        stopped.cancel()
        await asyncio.gather(begin, stopped, return_exceptions=True)
        server.should_exit = True
        await serving
        await registrar.close()
        await pool.close(POOL_CLOSE_S)
    return code


async def _begin(gateway: Gateway, server: uvicorn.Server, url: str, on_ready: Callable[[str], None] | None) -> int:
    """Load the only model, if wanted, and say that the server is ready; return the exit code if loading failed."""
    while not server.started:
        await asyncio.sleep(0.005)
    name = gateway.pool.default()
    if gateway.settings.preload and name is not None and gateway.registrar.spec(name) is None:
        try:
            async with gateway.pool.lease(name):
                pass
        except SensoriumError as error:
            logger.error("%s", error.message)
            # As `sensorium run` ends on the same checkpoint or setting.
            return 2 if isinstance(error.__cause__, ConfigurationError) else 1
    gateway.loading = False
    if on_ready is not None:
        on_ready(url)
    return 0


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn is to serve `app`."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )


def _on_signals(act: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Only a main thread can take signals, and not on every platform; elsewhere the caller ends us.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, act)


def _going_down() -> ModelUnavailable:
    return ModelUnavailable(
        "The server is shutting down and could not finish this request in time; send it again.",
        code="shutting_down",
        retry_after_s=5,
    )


def _url(host: str, listener: socket.socket) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{listener.getsockname()[1]}"


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, or None for asyncio's own."""
    try:
        import uvloop
    except ImportError:  # Windows has none
        return None
    return uvloop.new_event_loop
