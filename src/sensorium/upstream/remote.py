"""Engine kind `remote`: a model that any OpenAI-compatible server runs, behind this server's names, keys and limits."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, cast
from urllib.parse import urlsplit

from sensorium.errors import ConfigurationError, InvalidRequest, ModelUnavailable, SensoriumError, UpstreamFailed
from sensorium.settings import EngineSettings
from sensorium.types import Event, ModelInfo, SamplingParams
from sensorium.upstream.check import MediaCheck
from sensorium.upstream.client import Client
from sensorium.upstream.dialect import BY_NAME, Dialect, dialect_of
from sensorium.upstream.failures import NO_MODEL, TIMED_OUT, UNREACHABLE
from sensorium.upstream.model import UpstreamModel
from sensorium.worker.checkpoint import sampling_defaults

_TIMEOUT_S = 600.0
_ASK_S = 10.0  # for the list of models
_LOOK_S = 10.0  # between two looks whether it is there
_TURN_S = 1.0
# What cannot be done for a model that is elsewhere. Refused, not ignored: who sets it expects an effect.
_ELSEWHERE = (
    *("revision", "tokenizer", "chat_template", "mm_processor_kwargs", "lora", "lora_modules"),
    *("kv_cache_bytes", "block_size", "max_num_batched_tokens"),
)


class RemoteModel(UpstreamModel):
    """A model behind a URL. That the server there is away now fails requests, but not the worker."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns, self._up = 0, True
        self._client.start(self._turn())
        self._client.start(self._look())

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None] | None = None,
    ) -> RemoteModel:
        """Look whether the server is there and has the model.

        Raises:
            ConfigurationError: it is not there, refuses the key, has no such model, or a setting has no meaning here.
        """
        started = time.monotonic()
        if set_here := [name for name in _ELSEWHERE if getattr(settings, name)]:
            raise ConfigurationError(f"{set_here[0]} cannot be set with the engine remote; set it on that server.")
        wanted = set(settings.engine_args) - {"dialect"}
        if wanted:
            raise ConfigurationError(
                f"The engine remote has no option {sorted(wanted)[0]!r}; it has one, dialect: {', '.join(BY_NAME)}."
            )
        url = api_url(settings.base_url)
        on_progress("asking the server", 0.0)
        client = Client(url, host_of(url), headers(settings.api_key), timeout_s=settings.timeout_s or _TIMEOUT_S)
        with ExitStack() as undo:  # whatever fails from here on: its thread does not stay
            undo.callback(client.stop)
            try:
                card = client.wait(_card(client, settings.model))
            except SensoriumError as error:
                raise ConfigurationError(f"{error.message} (base_url is {url}, model {settings.model!r})") from None
            dialect = _dialect(settings, card)
            modalities = ("text", *(_modalities(card) or dialect.media))
            info = ModelInfo(
                name=settings.name or settings.model,
                family=f"behind {dialect.name}",
                path=url,
                max_model_len=settings.max_model_len or _length(card),
                modalities=modalities,
                default_sampling=_defaults(card) | sampling_defaults({}, settings),
                dtype="",
                device="elsewhere",
                weights_bytes=0,
                kv_cache_tokens=0,
                load_s=time.monotonic() - started,
                engine="remote",
                limit_mm_per_prompt=settings.limit_mm_per_prompt,
            )
            check = MediaCheck(settings.media, modalities)
            model = cls(
                info,
                client,
                dialect,
                check,
                settings.model,
                on_events,
                on_failed,
                system=settings.system,
                seed=settings.seed,
            )
            undo.pop_all()
            return model

    def beat(self) -> tuple[int, dict[str, float]]:
        """Turns of the client's loop, and whether the server answered when it was last looked at."""
        return self._turns, self.counters() | {"upstream_up": float(self._up)}

    async def _turn(self) -> None:
        while True:
            self._turns += 1
            await asyncio.sleep(_TURN_S)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._client.json("GET", "models", timeout_s=_ASK_S)
            except UpstreamFailed as error:
                self._up = error.code not in (UNREACHABLE, TIMED_OUT)
            except SensoriumError:
                self._up = True  # it answered
            else:
                self._up = True


def api_url(base_url: str | None) -> str:
    """Return the URL before /chat/completions; one without a path gets /v1.

    Raises:
        ConfigurationError: it is missing, or no plain http(s) URL.
    """
    if not base_url:
        raise ConfigurationError("The engine remote needs a base_url, such as https://example.com/v1 (--base-url).")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"base_url is {base_url!r}; it must be http(s)://host[:port][/path].")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("base_url holds a user name or password; give the key as api_key instead.")
    return base_url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def host_of(url: str) -> str:
    """Return what a URL's server is called in messages to clients: its host, and no more of the address."""
    return f"The server {urlsplit(url).hostname}"


def headers(api_key: str | None) -> dict[str, str]:
    """Return the headers that bring the key: as it is given, or from the variable that `env:NAME` names.

    Raises:
        ConfigurationError: the variable is not set.
    """
    key = api_key
    if api_key is not None and api_key.startswith("env:"):
        name = api_key.removeprefix("env:")
        key = os.environ.get(name)
        if not key:
            raise ConfigurationError(f"The key for the engine remote is to come from {name}, which is not set.")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigurationError("The key for the engine remote holds characters that no header may have.")
    return {"Authorization": f"Bearer {key}"} if key else {}


async def _card(client: Client, model: str) -> Mapping[str, Any]:
    """Return the model's card, or nothing where the server has no list of models.

    Raises:
        SensoriumError: it cannot be reached, refuses the key, or lists other models only.
    """
    try:
        answer = await client.json("GET", "models", model=model, timeout_s=_ASK_S)
    except InvalidRequest:
        return {}  # 404, 405, ...: no such list
    except ModelUnavailable as error:
        if error.code != NO_MODEL:
            raise
        return {}
    except UpstreamFailed as error:
        if error.code in (UNREACHABLE, TIMED_OUT):
            raise
        return {}
    cards = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(cards, list):
        return {}
    by_id = {card.get("id"): card for card in cards if isinstance(card, dict)}
    if model not in by_id and by_id:
        near = ", ".join(sorted(str(name) for name in by_id)[:5])
        raise ConfigurationError(f"{client.who} has no model {model!r}; it has {near}.")
    return cast(Mapping[str, Any], by_id.get(model, {}))


def _dialect(settings: EngineSettings, card: Mapping[str, Any]) -> Dialect:
    chosen = settings.engine_args.get("dialect")
    if chosen is None:
        return dialect_of(card.get("owned_by"))
    if chosen not in BY_NAME:
        raise ConfigurationError(f"dialect is {chosen!r}; it must be one of {', '.join(BY_NAME)}.")
    return BY_NAME[chosen]


def _modalities(card: Mapping[str, Any]) -> tuple[str, ...]:
    """What the card says the model takes: ours, or OpenRouter's."""
    architecture = card.get("architecture")
    inner = architecture.get("input_modalities") if isinstance(architecture, Mapping) else None
    given = card.get("input_modalities") or inner
    if not isinstance(given, list):
        return ()
    return tuple(kind for kind in ("image", "video", "audio") if kind in given)


def _length(card: Mapping[str, Any]) -> int:
    """The context's length; 0 where it is not known."""
    lengths = (card.get("max_model_len"), card.get("context_length"))
    return next((length for length in lengths if isinstance(length, int)), 0)


def _defaults(card: Mapping[str, Any]) -> dict[str, Any]:
    given = card.get("default_sampling")
    if not isinstance(given, Mapping):
        return {}
    try:
        SamplingParams(**given)
    except (SensoriumError, TypeError):
        return {}
    return dict(given)
