"""Request ids, one log line per request, Prometheus metrics, and the last net for errors nobody expected."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sensorium.errors import SensoriumError
from sensorium.registry.interface import Pool
from sensorium.server.record import RECORD, Record
from sensorium.server.reply import error_response

logger = logging.getLogger("sensorium.access")

CLIENT_GONE = 499  # nginx's status for a client that left before its answer
TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The gateway's metrics. Labels come from closed sets: routes of this app, HTTP statuses, served models."""

    def __init__(self, pool: Pool) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCounters(pool))
        self.requests = Counter(
            "sensorium_requests", "HTTP requests answered.", ["route", "status"], registry=self.registry
        )
        self.in_flight = Gauge("sensorium_requests_in_flight", "HTTP requests being answered.", registry=self.registry)
        self.prompt_tokens = Counter("sensorium_prompt_tokens", "Prompt tokens.", ["model"], registry=self.registry)
        self.completion_tokens = Counter(
            "sensorium_completion_tokens", "Generated tokens.", ["model"], registry=self.registry
        )
        self.ttft = Histogram(
            "sensorium_time_to_first_token_seconds",
            "From the request's first byte to its first token.",
            ["model"],
            buckets=TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self.inter_token = Histogram(
            "sensorium_inter_token_seconds",
            "Between two deltas of a request's first choice.",
            ["model"],
            buckets=TOKEN_BUCKETS_S,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def count(self, record: Record, route: str) -> None:
        """Count a request that has ended."""
        self.requests.labels(route, str(record.status)).inc()
        if record.prompt_tokens:
            self.prompt_tokens.labels(record.model).inc(record.prompt_tokens)
            self.completion_tokens.labels(record.model).inc(record.completion_tokens)
        if record.ttft_s is not None:
            self.ttft.labels(record.model).observe(record.ttft_s)


class _EngineCounters:
    """The counters of the engines' heartbeats as gauges, read when /metrics is."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def describe(self) -> list[Metric]:
        return []  # names are the engines' own, known only once they beat

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for model, counters in self._pool.counters().items():
            for counter, value in counters.items():
                name = "sensorium_engine_" + re.sub(r"[^a-zA-Z0-9_]", "_", counter)
                if name not in families:
                    families[name] = GaugeMetricFamily(name, f"Engine counter {counter}.", labels=["model"])
                families[name].add_metric([model], value)
        yield from families.values()


class Telemetry:
    """ASGI middleware, the outermost: keeps the request's record."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = scope[RECORD] = Record()

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", record.id.encode())]
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, send_marked, record)
        finally:
            self.metrics.in_flight.dec()
            self._note(scope, record)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        try:
            await self.app(scope, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError):
                if task is None or record.stopped is None:
                    raise
                task.uncancel()
            if record.status:
                raise  # too late for a response; the server closes the connection
            stopped = record.stopped
            if not isinstance(stopped, SensoriumError):
                logger.exception("request %s failed", record.id)
                stopped = internal_error(record)
            await error_response(stopped, close=True)(scope, receive, send)

    def _note(self, scope: Scope, record: Record) -> None:
        record.status = record.status or CLIENT_GONE
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.count(record, route)
        logger.log(
            logging.DEBUG if route in _PROBES and record.status < 400 else logging.INFO,
            "%s %r %d model=%r prompt_tokens=%d completion_tokens=%d ttft_s=%s seconds=%.3f id=%s",
            scope["method"],
            scope["path"][:200],
            record.status,
            record.model,
            record.prompt_tokens,
            record.completion_tokens,
            "-" if record.ttft_s is None else f"{record.ttft_s:.3f}",
            time.perf_counter() - record.start_s,
            record.id,
        )


_PROBES = ("/health", "/ping", "/ready", "/metrics")  # asked every few seconds by machines


def internal_error(record: Record) -> SensoriumError:
    """Return the error a client sees when something failed that should not: no details, but the id to look up."""
    return SensoriumError(f"Something failed inside the server. The log says more under request id {record.id}.")
