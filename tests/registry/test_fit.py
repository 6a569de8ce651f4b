from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import uvloop

from sensorium.errors import NoRoom
from sensorium.registry.fit import PROCESS_BYTES, advice, estimate, weights_bytes
from sensorium.registry.hub import on_this_machine
from sensorium.registry.pool import Pool
from sensorium.registry.spec import ModelSpec
from sensorium.settings import MIB, EngineSettings
from sensorium.worker.launcher import Launcher
from tests.workers import FAKE

TINY = on_this_machine("tiny-vl")
assert TINY is not None


def test_the_parts_of_tiny_vl() -> None:
    found = estimate(EngineSettings("tiny-vl"), TINY)
    assert found.known
    assert found.weights == pytest.approx(13.9e6, rel=0.5)
    assert found.token == 2 * 5 * 2 * 64 * 2  # keys and values, 5 layers of 2 heads of 64, bfloat16
    assert found.context == 4096
    assert found.least == found.weights + found.encoder + found.process + found.token * 4096
    assert estimate(EngineSettings("tiny-vl", dtype="float32"), TINY).weights == 2 * found.weights
    assert estimate(EngineSettings("tiny-vl", max_model_len=512), TINY).context == 512


def test_heads_of_safetensors_say_how_much_there_is(tmp_path: Path) -> None:
    head = json.dumps({"__metadata__": {}, "a": {"shape": [3, 5]}, "b": {"shape": []}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    assert weights_bytes(tmp_path, 4) == 16 * 4


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"[]"])
def test_a_damaged_head_is_left_to_loading(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    assert weights_bytes(tmp_path, 2) == len(data) // 2 * 2


def test_without_files_nothing_is_claimed_to_be_known() -> None:
    assert not estimate(EngineSettings("org/model"), None).known
    assert estimate(EngineSettings("x", engine="remote"), None).known


def test_advice_is_a_context_that_fits() -> None:
    found = estimate(EngineSettings("tiny-vl"), TINY)
    budget = found.fixed + found.token * 1000
    assert advice(found, budget) == "Lower max_model_len to 768."
    assert advice(found, found.fixed) == ""


def test_the_pool_says_beforehand_what_loading_would_do() -> None:
    async def run() -> None:
        found = estimate(EngineSettings("tiny-vl"), TINY)
        small = found.fixed + found.token * 1000
        models = Pool({}, launcher=Launcher(FAKE, preload=()), budgets={"host": small})
        models.add(ModelSpec("vl", EngineSettings("tiny-vl", name="vl", device="cpu")))
        models.add(ModelSpec("short", EngineSettings("tiny-vl", name="short", device="cpu", max_model_len=512)))
        models.add(ModelSpec("other", EngineSettings("fake", name="other", device="cpu")))
        answer = await models.fit("vl")
        assert (answer.answer, answer.lower) == ("cannot", "Lower max_model_len to 768.")
        assert answer.needed_bytes == found.least > answer.budget_bytes == small
        with pytest.raises(NoRoom, match="Lower max_model_len to 768"):
            await models.load("vl")
        assert (await models.fit("short")).answer == "fits"
        await models.load("other")
        answer = await models.fit("short")
        assert (answer.answer, answer.evicts) == ("evict", ("other",))
        await models.close(0)

    assert PROCESS_BYTES > 100 * MIB
    uvloop.run(run())


def test_what_is_granted_is_the_cache_that_the_worker_gets() -> None:
    async def run() -> None:
        models = Pool({}, budgets={"host": 700 * MIB})
        models.add(ModelSpec("vl", EngineSettings("tiny-vl", name="vl", device="cpu")))
        async with models.lease("vl") as handle:
            tokens = handle.info.kv_cache_tokens
            found = estimate(EngineSettings("tiny-vl"), TINY)
            free = (700 * MIB - found.least) // 2
            assert tokens == pytest.approx(4096 + free / found.token, rel=0.05)
            await asyncio.sleep(0)
        await models.close(0)

    uvloop.run(run())


class _Elsewhere(Launcher):
    elsewhere = True


def test_other_machines_count_their_own_memory() -> None:
    async def run() -> None:
        models = Pool({}, launcher=_Elsewhere(FAKE, preload=()), budgets={"host": MIB})
        models.add(ModelSpec("vl", EngineSettings("tiny-vl", name="vl", device="cpu")))
        await models.load("vl")
        assert models.room.used() == {"host": 0}
        await models.close(0)

    uvloop.run(run())
