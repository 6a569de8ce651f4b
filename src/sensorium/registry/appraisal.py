"""What a model needs here and now: how much, of which memory, and who would have to leave for it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import msgspec

from sensorium.registry.fit import CUDA_BYTES, Estimate, advice, estimate
from sensorium.registry.hub import on_this_machine
from sensorium.registry.measures import Measures
from sensorium.registry.memory import HOST
from sensorium.registry.room import Room
from sensorium.registry.status import Fit
from sensorium.settings import EngineSettings


@dataclass(frozen=True)
class Appraisal:
    """Bytes by memory: `least` at any rate, `most` if there is plenty. `device`: the accelerator; None: the CPU."""

    estimate: Estimate
    device: str | None
    least: dict[str, int]
    most: dict[str, int]

    @property
    def pool(self) -> str:
        """Where the weights and the KV cache go."""
        return self.device or HOST

    @property
    def extra(self) -> int:
        """Bytes of the device that its libraries take."""
        return CUDA_BYTES if self.device else 0


async def appraise(settings: EngineSettings, room: Room, measures: Measures) -> Appraisal:
    """Return what loading needs: what it took before, else what the files say. Reads the heads of some files."""
    folder = None
    if settings.engine != "remote":
        folder = await asyncio.to_thread(on_this_machine, settings.model, settings.revision, settings.hub)
    found = await asyncio.to_thread(estimate, settings, folder)
    known = measures.measured(measure_key(settings))
    device = _device(settings, room)
    if known is not None and found.known:
        fixed = (known.device_bytes if device else known.host_bytes) or found.fixed
        found = msgspec.structs.replace(found, weights=max(0, fixed - found.encoder - found.process))
    pool, extra = device or HOST, CUDA_BYTES if device else 0
    least, most = {pool: found.least + extra}, {pool: found.most + extra}
    if settings.kv_cache_bytes is not None:
        least = most = {pool: found.fixed + extra + settings.kv_cache_bytes}
    if device:
        least, most = ({**needs, HOST: found.process} for needs in (least, most))
    return Appraisal(found, device, least, most)


def fit(owner: str, appraisal: Appraisal, room: Room) -> Fit:
    """Say whether a model fits now, who would leave for it, and what to lower if it never will."""
    found, pool = appraisal.estimate, appraisal.pool
    plan = room.plan(owner, appraisal.least)
    return Fit(
        answer="unknown" if not found.known else plan.answer,
        needed_bytes=appraisal.least[pool],
        weights_bytes=found.weights,
        kv_cache_bytes=found.token * found.context,
        encoder_bytes=found.encoder,
        other_bytes=found.process + appraisal.extra,
        max_model_len=found.context,
        memory=pool,
        budget_bytes=room.budgets.get(pool, 0),
        evicts=room.owners(plan.victims),
        lower=advice(found, room.budgets.get(pool, 0) - appraisal.extra) if plan.answer == "cannot" else "",
    )


def measure_key(settings: EngineSettings) -> str:
    """Return what says of two settings whether loading them takes as much, the KV cache left out."""
    same = (settings.model, settings.revision, settings.engine, settings.dtype, settings.device, settings.engine_args)
    return hashlib.blake2b(repr(same).encode(), digest_size=16).hexdigest()


def _device(settings: EngineSettings, room: Room) -> str | None:
    if settings.engine == "remote" or settings.device == "cpu":
        return None
    return room.device() if settings.device in ("auto", "cuda") else settings.device
