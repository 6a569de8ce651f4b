"""A model without weights, with the face of `NativeModel`. Its answer repeats the prompt, a character a step.

The settings' `model` says how loading goes; the prompt says how the answer goes: `slow` never ends,
`late` fails midway, `poison` ends the engine's loop, `stuck` keeps it from turning, `size` counts the media's bytes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from sensorium.errors import ConfigurationError, InvalidRequest, SensoriumError
from sensorium.settings import EngineSettings
from sensorium.types import Adapter, Delta, Event, ModelInfo, Request, Started, Text
from sensorium.worker.frames import Tokens

STEP_S = 0.01
BATCH = 8  # requests beyond these are said to wait


class FakeModel:
    def __init__(
        self,
        settings: EngineSettings,
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None] | None,
    ) -> None:
        self.info = ModelInfo(
            name=settings.name or settings.model,
            family="fake",
            path=settings.model,
            max_model_len=100,
            modalities=("text", "image"),
            default_sampling={},
            dtype="float32",
            device="cpu",
            weights_bytes=0,
            kv_cache_tokens=100,
            load_s=0.0,
            limit_mm_per_prompt=settings.limit_mm_per_prompt,
        )
        self._on_events = on_events
        self._on_failed = on_failed
        self._on_dead = on_dead
        self._turns = 0
        self._running: dict[str, tuple[Request, str, int]] = {}
        self._lock = threading.Lock()
        self._aborted = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None] | None = None,
    ) -> FakeModel:
        on_progress("weights", 0.5)
        match settings.model.partition(":")[::2]:
            case "missing", _:
                raise ConfigurationError(f"There is no folder {settings.model!r}. Name one with a config.json.")
            case "broken", _:
                raise RuntimeError("a secret of the library")
            case "crash", _:
                os._exit(9)
            case "slow", seconds:
                time.sleep(float(seconds))
            case "count", path:
                with open(path, "a") as file:
                    file.write(f"{os.getpid()}\n")
        return cls(settings, on_events, on_failed, on_dead)

    def generate(self, request: Request) -> None:
        if request.prompt == "refused":
            raise InvalidRequest("This prompt is refused.", param="prompt")
        text = request.prompt or _last_text(request)
        if text == "size":
            text = str(sum(len(item.data) for item in request.media))
        with self._lock:
            self._running[request.id] = (request, text, 0)

    def abort(self, request_id: str) -> None:
        with self._lock:
            if self._running.pop(request_id, None) is not None:
                self._aborted += 1

    def tokenize(self, request: Request) -> Tokens:
        if request.prompt is None:
            raise InvalidRequest("There is no prompt.", param="prompt")
        return Tokens("", [ord(char) for char in request.prompt], request.prompt, list(request.prompt))

    def detokenize(self, token_ids: list[int]) -> Tokens:
        return Tokens("", token_ids, "".join(map(chr, token_ids)))

    def load_adapter(self, adapter: Adapter) -> None:
        if adapter.path == "/broken":
            raise ConfigurationError("1 of the 1 layers of the adapter /broken do not fit this model.")

    def unload_adapter(self, name: str) -> None:
        pass

    def sleep(self) -> None:
        if self.info.path == "sleepless":
            raise InvalidRequest("The engine fake cannot sleep.")

    def wake(self) -> None:
        pass

    def beat(self) -> tuple[int, dict[str, float]]:
        with self._lock:
            mib = 20.0 if self.info.path == "small" else 200.0
            counters = {"running": float(len(self._running)), "aborted": float(self._aborted)}
            counters["requests_waiting"] = max(0.0, len(self._running) - BATCH)
            return self._turns, {"host_bytes": mib * (1 << 20), **counters}

    def close(self) -> None:
        self._stopping = True
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping:
            self._turns += 1
            time.sleep(STEP_S)
            events: list[Event] = []
            with self._lock:
                for request_id, (request, text, done) in list(self._running.items()):
                    self._step(request_id, request, text, done, events)
            if events:
                self._on_events(events)

    def _step(self, request_id: str, request: Request, text: str, done: int, events: list[Event]) -> None:
        if "poison" in text and self._on_dead is not None:
            del self._running[request_id]
            self._on_dead()
            return
        if "poison" in text:
            raise RuntimeError("the engine's loop ends")
        if "stuck" in text:
            time.sleep(3600)
        if "late" in text and done == 2:
            del self._running[request_id]
            self._on_failed(request_id, InvalidRequest("Too late.", param="prompt"))
            return
        if done == 0:
            events.append(Started(request_id, len(text), [ord(char) for char in text], text))
        limit = request.sampling.max_tokens or 1 << 30
        last = done + 1 >= limit or ("slow" not in text and done + 1 >= len(text))
        piece = text[done % len(text)]
        for index in range(request.sampling.n):
            reason = ("length" if done + 1 >= limit else "stop") if last else None
            events.append(Delta(request_id, index, piece, [ord(piece)], finish_reason=reason))
        if last:
            del self._running[request_id]
        else:
            self._running[request_id] = (request, text, done + 1)


def _last_text(request: Request) -> str:
    content = request.messages[-1].content if request.messages else ()
    return "".join(part.text for part in content if isinstance(part, Text))
