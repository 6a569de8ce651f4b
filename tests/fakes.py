"""A model that repeats what it is told, and a pool of one. A token is a character."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from sensorium.errors import (
    AlreadyRegistered,
    ContextLengthExceeded,
    MediaError,
    ModelLoading,
    ModelNotFound,
    ModelUnavailable,
    WorkerDied,
)
from sensorium.registry.spec import ModelSpec
from sensorium.registry.status import Change, Fit, ModelStatus
from sensorium.settings import MediaLimits
from sensorium.types import (
    Adapter,
    Delta,
    Event,
    MediaItem,
    MediaSource,
    ModelInfo,
    Outlook,
    PositionLogprobs,
    Request,
    Started,
    Text,
    TokenLogprob,
)
from sensorium.worker.frames import Tokens

INFO = ModelInfo(
    name="echo",
    family="echo",
    path="/models/echo",
    max_model_len=4096,
    modalities=("text", "image"),
    default_sampling={"top_k": 20, "temperature": 0.5},
    dtype="float32",
    device="cpu",
    weights_bytes=0,
    kv_cache_tokens=4096,
    load_s=0.0,
)


class EchoModel:
    """Answers with the last message's text; a media item reads as `<image 3>`, 3 being its bytes."""

    def __init__(self, delay_s: float = 0.0, die_after: int | None = None, **info: Any) -> None:
        self.info = msgspec.structs.replace(INFO, **info)
        self.delay_s = delay_s
        self.die_after = die_after  # tokens
        self.seen: list[Request] = []
        self.running = 0
        self.closed_early = 0

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Say the prompt's text again, one character a step, for every choice."""
        self.seen.append(request)
        text = self.text(request)
        room = self.info.max_model_len - len(text)
        if room < 1:
            raise ContextLengthExceeded(f"The prompt has {len(text)} tokens; the limit is {self.info.max_model_len}.")
        self.running += 1
        finished = False
        try:
            yield Started(request.id, len(text), prompt=text)
            answer, finish, stop = self.answer(text, request, room)
            for place, character in enumerate(answer):
                await asyncio.sleep(self.delay_s)
                if self.die_after is not None and place >= self.die_after:
                    raise WorkerDied("The worker ended.")
                last = place == len(answer) - 1
                for index in range(request.sampling.n):
                    yield Delta(
                        request.id,
                        index,
                        character,
                        [ord(character)] if character else [],
                        self.logprobs(character, request),
                        finish if last else None,
                        stop if last else None,
                        num_cached_tokens=2,
                    )
            finished = True
        finally:
            self.running -= 1
            self.closed_early += not finished

    async def tokenize(self, request: Request) -> Tokens:
        """Return the characters."""
        self.seen.append(request)
        text = self.text(request)
        return Tokens(request.id, [ord(character) for character in text], text, list(text))

    async def detokenize(self, token_ids: list[int]) -> Tokens:
        """Return the text."""
        return Tokens("", token_ids, "".join(map(chr, token_ids)))

    @staticmethod
    def text(request: Request) -> str:
        """Return what is said again."""
        if isinstance(request.prompt, str):
            return request.prompt
        if request.messages is None and request.prompt is None:
            return "".join(map(chr, request.prompt_token_ids or []))
        parts = request.messages[-1].content if request.messages else request.prompt or ()
        return "".join(
            part.text
            if isinstance(part, Text)
            else f"<{request.media[part.index].kind} {len(request.media[part.index].data)}>"
            for part in parts
        )

    @staticmethod
    def answer(text: str, request: Request, room: int) -> tuple[list[str], str, str | None]:
        """Return the tokens, and why they end."""
        sampling = request.sampling
        limit = room if sampling.max_tokens is None else min(sampling.max_tokens, room)
        for stop in sampling.stop or ():
            if stop in text:
                return [*text[: text.index(stop)][:limit]] or [""], "stop", stop
        return [*text[:limit]] or [""], "stop" if len(text) <= limit else "length", None

    @staticmethod
    def logprobs(character: str, request: Request) -> list[PositionLogprobs]:
        """Return certain-looking numbers for the character and its neighbours."""
        wanted = request.sampling.logprobs
        if wanted is None or not character:
            return []
        near = [TokenLogprob(ord(character) + k, chr(ord(character) + k), -0.5 - k, k + 1) for k in range(wanted)]
        return [PositionLogprobs(TokenLogprob(ord(character), character, -0.5, 1, character.encode()), near)]


class FakePool:
    """Serves given models; `unavailable` names one that does not load. Models that are added load in `load_s`."""

    def __init__(self, models: dict[str, EchoModel], unavailable: str | None = None, load_s: float = 0.0) -> None:
        self.models = models
        self.unavailable = unavailable
        self.load_s = load_s
        self.specs: dict[str, ModelSpec] = {}
        self.loading: dict[str, asyncio.Task[None]] = {}
        self.waiting = 0
        self.statuses = {name: ModelStatus(name, "ready", model=name) for name in models}
        self.fits: dict[str, Fit] = {}
        self.told: list[asyncio.Queue[Change]] = []
        self.adapters: dict[str, Adapter] = {}
        self.leases = 0
        self.fine = (True, "")
        self.outlooks: dict[str, Outlook] = {}  # of models that are not loaded
        self.closed = False

    def names(self) -> list[str]:
        """Return the names."""
        return list(self.models)

    def default(self) -> str | None:
        """Return the only name."""
        own = [name for name in self.models if name not in self.specs]
        return own[0] if len(own) == 1 else None

    @asynccontextmanager
    async def lease(self, name: str, *, wait: bool = True, near: str = "") -> AsyncIterator[EchoModel]:
        """Count leases."""
        if name not in self.models:
            raise ModelNotFound(f"No {name}.")
        if name == self.unavailable:
            raise ModelUnavailable("It does not fit.", retry_after_s=7)
        if self.statuses[name].state != "ready":
            self.begin(name)
            if not wait:
                raise ModelLoading(f"The model {name!r} is being loaded.", retry_after_s=3)
            await self.load(name)
        self.leases += 1
        try:
            yield self.models[name]
        finally:
            self.leases -= 1

    def info(self, name: str) -> ModelInfo | None:
        """Return the model's info."""
        return None if name in self.outlooks else self.models[name].info

    def outlook(self, name: str) -> Outlook:
        """Return what the test wants."""
        return self.outlooks[name]

    def adapter(self, name: str) -> Adapter | None:
        """Return an adapter that was loaded."""
        return self.adapters.get(name)

    def base(self, name: str) -> str | None:
        """Return the first model's name."""
        return next(iter(self.models)) if name in self.adapters else None

    async def load_adapter(self, adapter: Adapter, base: str | None, again: bool) -> None:
        """Answer to its name."""
        self.adapters[adapter.name] = adapter
        self.models[adapter.name] = next(iter(self.models.values()))

    async def unload_adapter(self, name: str) -> None:
        """Forget it."""
        if self.adapters.pop(name, None) is None:
            raise ModelNotFound(f"The lora adapter {name!r} cannot be found.")
        del self.models[name]

    def add(self, spec: ModelSpec) -> None:
        """Take a model in."""
        if spec.alias in self.models:
            raise AlreadyRegistered(f"{spec.alias} is taken.")
        self.models[spec.alias] = EchoModel(name=spec.alias)
        self.specs[spec.alias] = spec
        self.outlooks[spec.alias] = Outlook(path=spec.settings.model)
        self.change(ModelStatus(spec.alias, "registered", model=spec.settings.model, lora_of=spec.lora_of))
        if spec.preload:
            self.begin(spec.alias)

    async def remove(self, name: str) -> None:
        """Forget a model."""
        if name not in self.specs:
            raise ModelNotFound(f"No {name}.")
        for known in (self.models, self.specs, self.statuses, self.outlooks):
            known.pop(name, None)
        if name in self.loading:
            self.loading.pop(name).cancel()
        for queue in self.told:
            queue.put_nowait(Change(name))

    def begin(self, name: str) -> None:
        """Load a model in the background."""
        if name not in self.loading:
            self.change(
                msgspec.structs.replace(self.statuses[name], state="loading", phase="reading weights", fraction=0.5)
            )
            self.loading[name] = asyncio.create_task(self._load(name))

    async def load(self, name: str) -> None:
        """Load a model, and wait for it."""
        if name == self.unavailable:
            self.change(msgspec.structs.replace(self.status(name), state="failed", last_error="It does not fit."))
            raise ModelUnavailable("It does not fit.", retry_after_s=7)
        if self.status(name).state != "ready":
            self.begin(name)
            self.waiting += 1
            try:
                await asyncio.shield(self.loading[name])
            finally:
                self.waiting -= 1

    async def _load(self, name: str) -> None:
        await asyncio.sleep(self.load_s)
        del self.loading[name]
        self.outlooks.pop(name, None)
        self.change(ModelStatus(name, "ready", model=self.statuses[name].model, num_loads=1, load_s=self.load_s))

    async def unload(self, name: str) -> None:
        """Note it."""
        self.change(msgspec.structs.replace(self.status(name), state="unloaded"))

    def status(self, name: str) -> ModelStatus:
        """Return the state, of an adapter that of its model."""
        found = self.statuses.get(self.base(name) or name)
        if found is None:
            raise ModelNotFound(f"No {name}.")
        return msgspec.structs.replace(found, alias=name)

    async def fit(self, name: str) -> Fit:
        """Return what the test wants."""
        return self.fits.get(name, Fit("fits", 1))

    def change(self, status: ModelStatus) -> None:
        """Tell everybody who listens."""
        self.statuses[status.alias] = status
        for queue in self.told:
            queue.put_nowait(Change(status.alias, status))

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yield changes."""
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self.told.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.told.remove(queue)

    def ready(self) -> tuple[bool, str]:
        """Return what the test wants."""
        return self.fine

    def counters(self) -> dict[str, dict[str, float]]:
        """Return one counter a model."""
        return {name: {"num_running": float(model.running)} for name, model in self.models.items()}

    async def close(self, grace_s: float) -> None:
        """Note it."""
        self.closed = True


async def fetch_data(sources: Sequence[MediaSource], limits: MediaLimits) -> list[MediaItem]:
    """Read base64 data: URLs; everything else is unreachable."""
    items = []
    for source in sources:
        if not source.url.startswith("data:"):
            raise MediaError(f"{source.where}: cannot be reached.", param=source.where, code="media_unreachable")
        items.append(MediaItem(source.kind, base64.b64decode(source.url.partition(",")[2]), source.where))
    return items
