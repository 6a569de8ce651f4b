"""What runs in a worker process: one model, asked and answered through one socket.

The main thread reads frames. Loading, tokenizing and the heartbeat have threads of their own; events are sent by
whichever thread of the engine has them. The end of the socket ends the process, whatever it is doing.
"""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, cast

import msgspec

from sensorium.errors import SensoriumError
from sensorium.registry.memory import process_bytes
from sensorium.settings import EngineSettings
from sensorium.types import Adapter, Event, ModelInfo, Request
from sensorium.worker import frames
from sensorium.worker.channel import BrokenFrame, FrameBuffer
from sensorium.worker.malloc import keep_freed_memory
from sensorium.worker.outbox import Outbox

BEAT_S = 1.0
_CLOSE_S = 1.0
_MEASURE_BEATS = 5  # memory is measured with every fifth: the kernel walks through all pages for it
_READ_BYTES = 1 << 20

EXIT_LOAD_FAILED = 3
EXIT_CRASHED = 70

log = logging.getLogger(__name__)


class Model(Protocol):
    """What a worker runs; `sensorium.worker.model.LoadedModel` is the one of this package."""

    info: ModelInfo

    def generate(self, request: Request) -> None:
        """Start a request and return at once; what comes of it goes to `on_events` and `on_failed`."""

    def abort(self, request_id: str) -> None:
        """Forget a request; nothing more is reported for it."""

    def tokenize(self, request: Request) -> frames.Tokens:
        """Build the prompt of a request without running it."""

    def detokenize(self, token_ids: list[int]) -> frames.Tokens:
        """Turn ids into text."""

    def load_adapter(self, adapter: Adapter) -> None:
        """Read an adapter's files, anew if they were read before."""

    def unload_adapter(self, name: str) -> None:
        """Put an adapter away."""

    def sleep(self) -> None:
        """Give back memory that `wake` can take again sooner than loading would. Nothing is running.

        Raises:
            InvalidRequest: this engine kind has no such state.
        """

    def wake(self) -> None:
        """Undo `sleep`."""

    def beat(self) -> tuple[int, dict[str, float]]:
        """Return how often the engine's loop has turned, and its counters."""

    def close(self) -> None:
        """Stop the engine and free its memory."""


class Loader(Protocol):
    """Loads a model: `ChosenModel.load`."""

    def __call__(
        self,
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
    ) -> Model: ...


def find_loader(entry: str) -> Loader:
    """Return the `load` of the class that `entry`, "module:class", names."""
    module, _, name = entry.partition(":")
    return cast(Loader, getattr(importlib.import_module(module), name).load)


def main(sock: socket.socket, load: Loader) -> int:
    """Serve one model until the gateway closes the socket. Return the exit status."""
    keep_freed_memory()
    sock.setblocking(True)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # `kill -USR1` shows where every thread is
    threading.excepthook = _die_with_thread
    worker = _Worker(Outbox(sock), load)
    buffer = FrameBuffer(frames.to_worker)
    try:
        while data := sock.recv(_READ_BYTES):
            for frame in buffer.feed(data):
                worker.handle(frame)
    except BrokenFrame:
        log.exception("the gateway sent something that is not a frame")
        return EXIT_CRASHED
    except OSError:  # the gateway is gone, or, over TCP, its machine
        pass
    worker.close()
    return 0


class _Worker:
    def __init__(self, outbox: Outbox, load: Loader) -> None:
        self._outbox = outbox
        self._load = load
        self._model: Model | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="tokens")

    def handle(self, frame: Any) -> None:
        match frame:
            case frames.Load(settings):
                threading.Thread(target=self._start, args=(settings,), name="load", daemon=True).start()
                threading.Thread(target=self._beat, name="beat", daemon=True).start()
            case frames.Generate(request):
                self._try(request.id, lambda: self._loaded().generate(request))
            case frames.Abort(request_id):
                self._loaded().abort(request_id)
            case frames.Tokenize(request):
                self._threads.submit(self._answer, request.id, lambda: self._loaded().tokenize(request))
            case frames.Detokenize(request_id, token_ids):
                self._threads.submit(self._answer, request_id, lambda: self._loaded().detokenize(token_ids))
            case frames.LoadAdapter(request_id, adapter):
                self._threads.submit(self._do, request_id, lambda: self._loaded().load_adapter(adapter))
            case frames.UnloadAdapter(request_id, name):
                self._threads.submit(self._do, request_id, lambda: self._loaded().unload_adapter(name))
            case frames.Sleep(request_id):
                self._threads.submit(self._do, request_id, lambda: self._loaded().sleep())
            case frames.Wake(request_id):
                self._threads.submit(self._do, request_id, lambda: self._loaded().wake())

    def close(self) -> None:
        """Close the model; end the process if that takes too long."""
        guard = threading.Timer(_CLOSE_S, os._exit, (0,))
        guard.daemon = True
        guard.start()
        if self._model is not None:
            self._model.close()

    def _loaded(self) -> Model:
        assert self._model is not None, "the gateway asks only after Ready"
        return self._model

    def _start(self, settings: EngineSettings) -> None:
        try:
            self._model = self._load(
                settings,
                on_progress=lambda phase, fraction: self._outbox.put(frames.Loading(phase, fraction)),
                on_events=lambda events: self._outbox.put(frames.Events(events)),
                on_failed=self._failed,
            )
        except SensoriumError as error:
            self._failed("", error)
        except Exception as error:
            traceback.print_exc()
            self._failed("", _unexpected(f"Loading {settings.model!r}", error))
        else:
            self._outbox.put(frames.Ready(self._model.info))
            return
        self._outbox.close(_CLOSE_S)
        _exit(EXIT_LOAD_FAILED)

    def _beat(self) -> None:
        never = threading.Event()
        taken = 0.0
        for count in itertools.count():
            turns, counters = self._model.beat() if self._model is not None else (0, {})
            if self._model is not None and (not taken or count % _MEASURE_BEATS == 0):
                taken = float(process_bytes(os.getpid()))
            self._outbox.put(frames.Beat(turns, {"host_bytes": taken, **counters} if taken else counters))
            never.wait(BEAT_S)

    def _failed(self, request_id: str, error: SensoriumError) -> None:
        self._outbox.put(frames.Failed(request_id, error.info()))

    def _try(self, request_id: str, call: Callable[[], None]) -> None:
        try:
            call()
        except SensoriumError as error:
            self._failed(request_id, error)
        except Exception as error:
            traceback.print_exc()
            self._failed(request_id, _unexpected("Starting the request", error))

    def _answer(self, request_id: str, call: Callable[[], frames.Tokens]) -> None:
        self._try(request_id, lambda: self._outbox.put(msgspec.structs.replace(call(), id=request_id)))

    def _do(self, request_id: str, call: Callable[[], None]) -> None:
        def do() -> None:
            call()
            self._outbox.put(frames.Done(request_id))

        self._try(request_id, do)


def _unexpected(what: str, error: Exception) -> SensoriumError:
    return SensoriumError(
        f"{what} failed inside the server ({type(error).__name__}). The server's standard error has the details.",
    )


def _die_with_thread(arguments: threading.ExceptHookArgs) -> None:
    # An engine without its loop would answer nobody: a death is noticed at once, a hang only by the watchdog.
    name = arguments.thread.name if arguments.thread else "?"
    print(f"worker {os.getpid()}: the thread {name!r} ended with an error; the process ends too", file=sys.stderr)
    traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    _exit(EXIT_CRASHED)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
