"""What can be seen of a registered model from outside: its state, its workers, its memory, its last error."""

from __future__ import annotations

from typing import Literal

import msgspec

# `asleep`: its process lives, and has given back what memory it can take again sooner than loading would.
State = Literal["registered", "downloading", "loading", "ready", "draining", "asleep", "unloaded", "failed"]


class ReplicaStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One worker that holds the model, or is loading it. `node` is "" for this machine."""

    id: int
    state: State
    pid: int | None = None
    node: str = ""
    phase: str = ""
    fraction: float = 0.0  # of the phase, 0..1
    in_flight: int = 0
    host_bytes: int = 0  # measured: private memory of the process and its share of what it shares
    device_bytes: int = 0  # measured, of the accelerator


class ModelStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One alias. Times are seconds, `*_at` seconds since the epoch, memory bytes."""

    alias: str
    state: State
    model: str = ""
    engine: str = ""
    phase: str = ""  # of loading: downloading, reading weights, ...
    fraction: float = 0.0
    replicas: tuple[ReplicaStatus, ...] = ()
    in_flight: int = 0
    waiting: int = 0  # requests that wait until it is loaded
    num_loads: int = 0
    num_deaths: int = 0
    load_s: float | None = None  # of the last load, first to last phase
    phases: dict[str, float] = {}  # of the last load: phase -> seconds
    loaded_at: float | None = None
    used_at: float | None = None
    idle_ttl_s: float | None = None
    pinned: bool = False
    needed_bytes: int | None = None  # what loading is expected to take; measured where it has been loaded before
    host_bytes: int = 0
    device_bytes: int = 0
    last_error: str = ""
    retry_in_s: float = 0.0  # how long no load is tried, after repeated failures
    lora_of: str | None = None


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to a model; `status` is None when it was removed."""

    alias: str
    status: ModelStatus | None = None


class Fit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether a model fits the memory that models may take. Bytes.

    Attributes:
        answer: `fits`; `evict`: when the idle models `evicts` are gone; `wait`: when busy ones end; `cannot`: never;
            `unknown`: its files are not here yet.
        lower: of `cannot`: the setting to lower, and to what; "" if none helps.
        memory: "host", or the accelerator.
    """

    answer: Literal["fits", "evict", "wait", "cannot", "unknown"]
    needed_bytes: int
    weights_bytes: int = 0
    kv_cache_bytes: int = 0  # of one sequence of max_model_len tokens
    encoder_bytes: int = 0
    other_bytes: int = 0
    max_model_len: int = 0
    memory: str = "host"
    budget_bytes: int = 0
    evicts: tuple[str, ...] = ()
    lower: str = ""
