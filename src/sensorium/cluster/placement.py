"""Which machine a worker goes to. Pure: the caller knows the machines and what was promised of them already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from sensorium.cluster.machine import Machine
from sensorium.errors import NoRoom
from sensorium.settings import GIB, EngineSettings, Needs

TOO_LARGE = "too_large"
_MOSTLY_FREE = 0.5  # of a GPU that is asked for as a whole: drivers and displays take some of it


class Ask(msgspec.Struct, frozen=True):
    """What one worker takes of a machine."""

    name: str  # of the model
    num_cpus: float = 0.0
    memory_bytes: int = 0  # of the GPUs together where there are any, else of the host
    num_gpus: float = 0.0  # below 1: that share of the memory of one
    worker_id: str | None = None

    @property
    def host_bytes(self) -> int:
        """What of the memory is the host's."""
        return 0 if self.num_gpus else self.memory_bytes


class Place(msgspec.Struct, frozen=True):
    """A machine, and what workers that run there were promised. `replicas` hold the model in question."""

    id: str
    machine: Machine
    num_cpus: float = 0.0
    memory_bytes: int = 0
    gpus: tuple[float, ...] = ()  # shares of each GPU
    replicas: int = 0


class Choice(msgspec.Struct, frozen=True):
    """The machine, and which of its GPUs."""

    id: str
    gpus: list[int] = []


def ask_of(settings: EngineSettings, needs: Needs, have_gpus: bool) -> Ask:
    """Return what a worker takes, with what was not said made up from the settings.

    Without a word about GPUs a model takes as much of one as it may use of its memory, where there are any.
    """
    num_gpus = needs.num_gpus
    if num_gpus is None:
        if not have_gpus or settings.device == "cpu" or settings.engine == "remote":
            num_gpus = 0.0
        elif settings.tensor_parallel_size > 1:
            num_gpus = float(settings.tensor_parallel_size)
        else:
            num_gpus = settings.gpu_memory_utilization
    if num_gpus > 1:
        num_gpus = float(math.ceil(num_gpus))
    name = settings.name or settings.model
    return Ask(name, needs.num_cpus or 0.0, needs.memory_bytes or 0, num_gpus, needs.worker_id)


def choose(ask: Ask, places: Sequence[Place]) -> list[Choice]:
    """Return the machines that have room, the best first.

    Those with fewest workers of this model come first, so that replicas are spread; then those with most free memory,
    of the GPU where one is asked for; the order of `places` decides the rest.

    Raises:
        NoRoom: none has room; the message has the numbers. Code TOO_LARGE: none would have if it were empty.
    """
    wanted = [place for place in places if ask.worker_id in (None, place.id)]
    if not wanted:
        known = ", ".join(repr(place.id) for place in places) or "none"
        raise NoRoom(
            f"The model {ask.name!r} is to run on the worker {ask.worker_id!r}, which is not here now. "
            f"Here are: {known}.",
            code="worker_not_here",
        )
    found: list[tuple[tuple[float, ...], Choice]] = []
    for place in wanted:
        gpus = _gpus(ask, place)
        if gpus is None or _lacks(ask, place):
            continue
        free = min((place.machine.gpus[index].free_bytes for index in gpus), default=_free_bytes(place))
        found.append(((place.replicas, -free), Choice(place.id, gpus)))
    if not found:
        lines = "; ".join(f"{place.id}: {_describe(place)}" for place in wanted)
        raise NoRoom(
            f"No machine has room for the model {ask.name!r}, which takes {_describe_ask(ask)}. {lines}. "
            "Unload models, lower max_model_len or gpu_memory_utilization, or add a worker.",
            code=None if any(_could(ask, place.machine) for place in wanted) else TOO_LARGE,
        )
    return [choice for _, choice in sorted(found, key=lambda pair: pair[0])]


def _could(ask: Ask, machine: Machine) -> bool:
    """Whether a machine would have room if nothing else ran there."""
    count = math.ceil(ask.num_gpus)
    gpus = [gpu for gpu in machine.gpus if gpu.total_bytes >= ask.memory_bytes / max(1, count)]
    return ask.num_cpus <= machine.num_cpus and ask.host_bytes <= machine.memory_bytes and len(gpus) >= count


def _lacks(ask: Ask, place: Place) -> bool:
    return ask.num_cpus > _free_cpus(place) + 1e-6 or ask.host_bytes > _free_bytes(place)


def _free_cpus(place: Place) -> float:
    return place.machine.num_cpus - place.num_cpus


def _free_bytes(place: Place) -> int:
    # What a worker was promised it may not have taken yet; what is taken may not have been promised.
    return max(0, min(place.machine.free_bytes, place.machine.memory_bytes - place.memory_bytes))


def _gpus(ask: Ask, place: Place) -> list[int] | None:
    """The GPUs to use, those with most free memory first; None: there are not enough."""
    if not ask.num_gpus:
        return []
    shares = (*place.gpus, *[0.0] * len(place.machine.gpus))
    share = min(1.0, ask.num_gpus)
    count = max(1, math.ceil(ask.num_gpus))
    fit = [
        index
        for index, gpu in enumerate(place.machine.gpus)
        if shares[index] + share <= 1.0 + 1e-6
        and gpu.free_bytes >= (share if ask.num_gpus < 1 else _MOSTLY_FREE) * gpu.total_bytes
        and gpu.free_bytes >= ask.memory_bytes / count
    ]
    fit.sort(key=lambda index: -place.machine.gpus[index].free_bytes)
    return fit[:count] if len(fit) >= count else None


def _describe_ask(ask: Ask) -> str:
    parts = []
    if ask.num_gpus:
        parts.append(f"{ask.num_gpus:g} GPU")
    if ask.memory_bytes:
        parts.append(f"{ask.memory_bytes / GIB:.1f} GiB of memory")
    if ask.num_cpus:
        parts.append(f"{ask.num_cpus:g} CPUs")
    return ", ".join(parts) or "nothing in particular"


def _describe(place: Place) -> str:
    machine = place.machine
    text = f"{_free_cpus(place):g} CPUs and {_free_bytes(place) / GIB:.1f} of {machine.memory_bytes / GIB:.1f} GiB free"
    for index, gpu in enumerate(machine.gpus):
        promised = f" ({place.gpus[index]:.0%} promised)" if index < len(place.gpus) and place.gpus[index] else ""
        text += f", GPU {index}: {gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free{promised}"
    return text
