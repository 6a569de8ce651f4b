"""`sensorium serve`: start what is slow first, then the server, and say when it is ready."""

from __future__ import annotations

import logging
from collections.abc import Collection

import click
from rich.console import Console

from sensorium.settings import EngineSettings, ServerSettings
from sensorium.worker.launcher import Launcher

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    models: dict[str, EngineSettings], settings: ServerSettings, log_level: str, on_demand: Collection[str] = ()
) -> int:
    """Serve until a signal ends it; return the exit status. Models named in `on_demand` wait for a request.

    Raises:
        SensoriumError: it cannot start.
    """
    launcher = Launcher()
    launcher.start()  # its imports take longer than everything below
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.host not in _LOOPBACK and not settings.api_keys:
        click.echo(
            f"Warning: everybody who reaches {settings.host}:{settings.port} can use this server. "
            "Give --api-key, or leave --host out.",
            err=True,
        )

    from sensorium.registry.memory import budgets
    from sensorium.registry.pool import Pool
    from sensorium.registry.store import Store
    from sensorium.server.run import run
    from sensorium.terminal.banner import show_banner
    from sensorium.terminal.progress import LoadProgress

    store = None if settings.registry is None else Store(settings.registry)
    pool: Pool
    progress = LoadProgress(Console(stderr=True))

    def make_pool() -> Pool:
        nonlocal pool
        pool = Pool(
            models,
            launcher=launcher,
            stalled_after_s=settings.stalled_after_s,
            keep_loaded=settings.preload,
            on_demand=on_demand,
            on_progress=progress.show,
            idle_ttl_s=settings.idle_ttl_s,
            budgets=budgets(settings.memory_budget, settings.device_memory_budget),
            measures=store,
        )
        return pool

    def on_ready(url: str) -> None:
        progress.stop()
        names = pool.names()
        info = pool.info(names[0]) if names else None
        key = settings.api_keys[0] if settings.api_keys else None
        show_banner(Console(), url, names, sees=info is not None and "image" in info.modalities, api_key=key)

    try:
        with progress:
            return run(settings, make_pool, on_ready, store=store)
    finally:
        launcher.close()
