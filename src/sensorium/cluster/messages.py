"""What gateway and node agent say on the control connection of a node. Frames are those of worker/frames.py."""

from __future__ import annotations

from typing import Any

import msgspec

from sensorium.cluster.machine import Machine
from sensorium.errors import ErrorInfo

MAX_MESSAGE_BYTES = 1 << 20
NO_FOLDER = "no_such_folder"  # error code: the model is not on that machine


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """First message of an agent: how connections of workers name this one, and what the machine has."""

    session: str
    machine: Machine


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """Once a second from either side; the agent's says what is free now, and whether its machine is about to leave."""

    machine: Machine | None = None
    leaving: bool = False


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Fork a worker onto connection `number`, which is there already; answered by Spawned or NotSpawned."""

    number: int
    model: str = ""  # a path must be there; anything else is a hub id
    num_gpus: float = 0.0
    gpus: list[int] = []  # which ones it sees; empty: all


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """Send a signal to a worker, unless it has ended."""

    number: int
    signal: int


ToNode = Alive | Spawn | Signal


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    """The worker runs."""

    number: int
    pid: int


class NotSpawned(msgspec.Struct, frozen=True, tag="not_spawned"):
    """The worker does not run, and why."""

    number: int
    error: ErrorInfo


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """A worker has ended; `how` completes the sentence "The worker ..."."""

    number: int
    how: str


FromNode = Welcome | Alive | Spawned | NotSpawned | Exited

_encoder = msgspec.msgpack.Encoder()
to_node: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToNode)
from_node: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromNode)


def pack(message: ToNode | FromNode) -> bytes:
    """Return the message's length prefix and body."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "little") + body
