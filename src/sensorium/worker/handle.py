"""A loaded model as the gateway sees it: what it can be asked, and whether it still lives."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from sensorium.errors import ErrorInfo, ModelUnavailable, WorkerDied, from_info
from sensorium.settings import EngineSettings, Needs
from sensorium.types import Adapter, Event, ModelInfo, Request
from sensorium.worker import frames
from sensorium.worker.channel import Channel
from sensorium.worker.inflight import InFlight
from sensorium.worker.spawner import Process, Spawner

_EXIT_S = 2.0  # how long after the end of its socket a worker may take to end
_LAST_WORDS_S = 0.5
_DUMP_S = 0.3  # how long a stuck worker may take to print where its threads are

_NO_NEEDS = Needs()

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


class WorkerHandle:
    """One worker process. Made by `load`.

    Attributes:
        info: what the model tells about itself.
        died: done when the worker has ended, for whatever reason; the result is a sentence.
        counters: the engine's, from the last heartbeat, and how many there were (`beats`).
    """

    info: ModelInfo

    def __init__(self, name: str, child: Process, on_progress: Progress | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.child = child
        self.counters: dict[str, float] = {}
        self.died: asyncio.Future[str] = loop.create_future()
        self._ready: asyncio.Future[ModelInfo] = loop.create_future()
        self._on_progress = on_progress
        self._in_flight = InFlight()
        self._ids = itertools.count()
        self._channel: Channel
        self._turns = -1
        self._heard = self._turned = time.monotonic()
        self._why: str | None = None  # known before the process ends: we ended it, and for this reason
        self._failure: ErrorInfo | None = None
        self._closing = False
        self._lost = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def load(
        cls,
        spawner: Spawner,
        settings: EngineSettings,
        on_progress: Progress | None = None,
        needs: Needs = _NO_NEEDS,
    ) -> WorkerHandle:
        """Start a worker and wait until its model is loaded.

        Raises:
            SensoriumError: what the worker says is wrong (ConfigurationError, ...).
            NoRoom: no machine has what it needs.
            WorkerDied: it ended without saying why.
        """
        sock, child = await spawner.spawn(settings, needs)
        handle = cls(settings.name or settings.model, child, on_progress)
        try:
            handle._channel = await Channel.open(sock, handle._on_frame, handle._on_lost)
            child.exited.add_done_callback(lambda _: handle._end())
            handle._channel.post(frames.Load(settings))
            handle.info = await handle._ready
        except BaseException:
            child.kill()
            raise
        return handle

    def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run a request: `Started`, then `Delta`s. Closing the generator aborts it.

        Raises:
            SensoriumError: the request failed; WorkerDied: the process ended while it ran.
        """
        return self._in_flight.generate(
            request,
            lambda: self._channel.send(frames.Generate(request)),
            lambda: self._channel.post(frames.Abort(request.id)),
        )

    async def tokenize(self, request: Request) -> frames.Tokens:
        """Return the prompt of a request as the model would see it.

        Raises:
            SensoriumError: the request is wrong, or the worker is gone.
        """
        answer = await self._in_flight.question(request.id, lambda: self._channel.send(frames.Tokenize(request)))
        return cast(frames.Tokens, answer)

    async def detokenize(self, token_ids: list[int]) -> frames.Tokens:
        """Return the text of token ids.

        Raises:
            SensoriumError: an id is out of range, or the worker is gone.
        """
        request_id = f"detokenize-{next(self._ids)}"
        frame = frames.Detokenize(request_id, token_ids)
        return cast(frames.Tokens, await self._in_flight.question(request_id, lambda: self._channel.send(frame)))

    async def load_adapter(self, adapter: Adapter) -> None:
        """Let the worker read an adapter's files.

        Raises:
            SensoriumError: they do not fit the model, or the worker is gone.
        """
        request_id = f"load-adapter-{next(self._ids)}"
        frame = frames.LoadAdapter(request_id, adapter)
        await self._in_flight.question(request_id, lambda: self._channel.send(frame))

    async def unload_adapter(self, name: str) -> None:
        """Let the worker put an adapter away.

        Raises:
            SensoriumError: the worker is gone.
        """
        request_id = f"unload-adapter-{next(self._ids)}"
        frame = frames.UnloadAdapter(request_id, name)
        await self._in_flight.question(request_id, lambda: self._channel.send(frame))

    async def sleep(self) -> None:
        """Let the worker give back what memory it can take again sooner than loading would.

        Raises:
            SensoriumError: its engine has no such state, or the worker is gone.
        """
        request_id = f"sleep-{next(self._ids)}"
        await self._in_flight.question(request_id, lambda: self._channel.send(frames.Sleep(request_id)))

    async def wake(self) -> None:
        """Undo `sleep`.

        Raises:
            SensoriumError: it cannot take the memory again, or the worker is gone.
        """
        request_id = f"wake-{next(self._ids)}"
        await self._in_flight.question(request_id, lambda: self._channel.send(frames.Wake(request_id)))

    @property
    def alive(self) -> bool:
        """Whether requests may be sent to it."""
        return self._ready.done() and self._why is None and self._ending is None and not self._closing

    @property
    def num_in_flight(self) -> int:
        """Requests and questions without their last answer."""
        return len(self._in_flight)

    @property
    def num_finished(self) -> int:
        """Requests that ran to their end."""
        return self._in_flight.num_finished

    @property
    def ttft_s(self) -> float:
        """How long requests waited for their first token lately, in seconds."""
        return self._in_flight.ttft_s

    def silent_s(self) -> float:
        """Seconds since the process was last heard of."""
        return time.monotonic() - self._heard

    def stalled_s(self) -> float:
        """Seconds since the engine's loop last turned."""
        return time.monotonic() - self._turned

    def kill(self, why: str) -> None:
        """End a worker that no longer answers; `why` completes the sentence "The worker ..."."""
        if self._why is None:
            self._why = why
            log.error("model %r: the worker (pid %d) %s; it is killed", self.name, self.child.pid, why)
            self.child.signal(signal.SIGUSR1)
            asyncio.get_running_loop().call_later(_DUMP_S, self.child.kill)

    async def close(self) -> None:
        """End the worker in order; whatever it is still doing ends with ModelUnavailable."""
        self._closing = True
        self._in_flight.fail_all(ModelUnavailable(f"The model {self.name!r} is being put away.").info())
        self._channel.close()
        if await self.child.wait(_EXIT_S) is None:
            self.child.kill()
        await self.died

    def _on_frame(self, frame: Any) -> None:
        self._heard = time.monotonic()
        match frame:
            case frames.Events(events):
                self._in_flight.deliver(events)
            case frames.Failed("", error):
                self._failure = error
            case frames.Failed(request_id, error):
                self._in_flight.fail(request_id, error)
            case frames.Tokens() | frames.Done():
                self._in_flight.answer(frame)
            case frames.Beat(turns, counters):
                if turns != self._turns:
                    self._turns, self._turned = turns, self._heard
                self.counters = {**counters, "beats": self.counters.get("beats", 0.0) + 1.0}
            case frames.Loading(phase, fraction):
                if self._on_progress is not None:
                    self._on_progress(phase, fraction)
            case frames.Ready(info):
                self._turned = self._heard
                if not self._ready.done():
                    self._ready.set_result(info)

    def _on_lost(self, broken: str | None) -> None:
        if broken is not None and self._why is None:
            self._why = f"sent something that is not a frame ({broken})"
        self._lost.set()
        self._end()

    def _end(self) -> None:
        """The socket or the process ended: the other one follows, and everything it worked on fails."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._bury())

    async def _bury(self) -> None:
        if self._why is not None:
            self.child.kill()
        how = await self.child.wait(_EXIT_S)
        if how is None:
            self.child.kill()
            how = await self.child.exited
        # The process may be gone before its last words are read; the socket's end comes after them, unless a process
        # the worker forked still holds it.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._lost.wait(), _LAST_WORDS_S)
        self._channel.close()
        what = self._why or how
        error = WorkerDied(
            f"The worker of the model {self.name!r} (process {self.child.pid}) {what} while it worked on this request. "
            "Send the request again; another worker is started for it."
        )
        self._in_flight.fail_all(error.info())
        if not self._ready.done():
            self._ready.set_exception(
                from_info(self._failure)
                if self._failure is not None
                else WorkerDied(f"The worker of the model {self.name!r} {what} while it loaded.")
            )
            self._ready.exception()  # the one who loads may have gone
        self.died.set_result(what)
