"""What gateway and worker say to each other.

Each frame is a 4-byte little-endian length and a msgpack body. One `Events` frame carries what one engine
step gave to all requests, so the cost of a frame is shared by the batch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sensorium.errors import ErrorInfo
from sensorium.settings import EngineSettings
from sensorium.types import Adapter, Event, MediaUse, ModelInfo, Request


class Load(msgspec.Struct, frozen=True, tag="load"):
    """First frame to a worker: what it is to load."""

    settings: EngineSettings


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Start a request; answered by Events and, on failure, by Failed with the same id."""

    request: Request


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Forget a request: its blocks are free within one step. Nothing more is sent for it."""

    id: str


class Tokenize(msgspec.Struct, frozen=True, tag="tokenize"):
    """Build the prompt of `request` without running it; answered by Tokens."""

    request: Request


class Detokenize(msgspec.Struct, frozen=True, tag="detokenize"):
    """Turn ids into text; answered by Tokens."""

    id: str
    token_ids: list[int]


class LoadAdapter(msgspec.Struct, frozen=True, tag="load_adapter"):
    """Read an adapter's files, anew if they were read before; answered by Done."""

    id: str
    adapter: Adapter


class UnloadAdapter(msgspec.Struct, frozen=True, tag="unload_adapter"):
    """Put an adapter away; answered by Done."""

    id: str
    name: str


class Sleep(msgspec.Struct, frozen=True, tag="sleep"):
    """Give back what memory can be given back without ending the process; answered by Done. Nothing is running."""

    id: str


class Wake(msgspec.Struct, frozen=True, tag="wake"):
    """Take it again; answered by Done, and requests are answered as before."""

    id: str


ToWorker = Load | Generate | Abort | Tokenize | Detokenize | LoadAdapter | UnloadAdapter | Sleep | Wake


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """How far loading is; `fraction` in 0..1."""

    phase: str
    fraction: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The model is loaded."""

    info: ModelInfo


class Events(msgspec.Struct, frozen=True, tag="events"):
    """New events of any number of requests."""

    events: list[Event]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Request `id` ended with an error; with an empty id: loading failed and the worker is ending."""

    id: str
    error: ErrorInfo


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """Answer to Tokenize and Detokenize."""

    id: str
    token_ids: list[int]
    text: str
    token_strings: list[str] = []
    media: tuple[MediaUse, ...] = ()


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Answer to LoadAdapter, UnloadAdapter, Sleep and Wake."""

    id: str


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """Heartbeat of the engine loop, about once a second, and its counters (see engine/counters)."""

    steps: int
    counters: dict[str, float]


FromWorker = Loading | Ready | Events | Failed | Tokens | Done | Beat

_encoder = msgspec.msgpack.Encoder()


def encode(frame: ToWorker | FromWorker) -> bytes:
    """Return the frame's length prefix and body."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(4, "little") + body


to_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToWorker)
from_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromWorker)
