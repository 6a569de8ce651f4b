"""Adapters by name: which model answers to them, and what loading one can go wrong with."""

from __future__ import annotations

import pytest
import uvloop

from sensorium.errors import ConfigurationError, InvalidRequest, ModelNotFound
from sensorium.registry.pool import Pool
from sensorium.settings import EngineSettings
from sensorium.types import Adapter
from sensorium.worker.launcher import Launcher
from tests.workers import FAKE, pool

SQL = Adapter("sql", "/adapters/sql")


def test_adapters_of_the_settings_answer_like_models() -> None:
    async def run() -> None:
        settings = EngineSettings("fake", name="one", lora_modules={"sql": "/adapters/sql"})
        models = Pool({"one": settings, "two": settings}, launcher=Launcher(FAKE, preload=()))
        assert models.names() == ["one", "two", "sql"]
        assert models.default() == "one"
        assert (models.adapter("sql"), models.base("sql")) == (SQL, "one")
        assert (models.adapter("one"), models.base("one")) == (None, None)
        async with models.lease("one") as base, models.lease("sql") as same:
            assert base is same
        with pytest.raises(ModelNotFound, match="Nearest: 'sql'"):
            async with models.lease("sqll"):
                pass
        await models.close(0.0)

    uvloop.run(run())


def test_two_things_of_one_name_are_refused() -> None:
    async def run() -> None:
        with pytest.raises(ConfigurationError, match="called 'one'"):
            Pool({"one": EngineSettings("fake", lora_modules={"one": "/x"})})
        with pytest.raises(ConfigurationError, match="called 'x'"):
            Pool({name: EngineSettings(name, lora_modules={"x": "/x"}) for name in ("fake", "count")})

    uvloop.run(run())


def test_loading_and_unloading() -> None:
    async def run() -> None:
        async with pool({"one": "fake"}) as models:
            await models.load_adapter(SQL, None, False)  # loads the model first
            assert models.names() == ["one", "sql"]
            with pytest.raises(InvalidRequest, match="has already been loaded"):
                await models.load_adapter(SQL, None, False)
            await models.load_adapter(Adapter("sql", "/other"), None, True)
            with pytest.raises(InvalidRequest, match="do not fit this model") as refused:
                await models.load_adapter(Adapter("sql", "/broken"), None, True)
            assert refused.value.param == "lora_path"
            assert models.adapter("sql") == Adapter("sql", "/other")
            await models.unload_adapter("sql")
            with pytest.raises(ModelNotFound, match="cannot be found"):
                await models.unload_adapter("sql")
            assert models.names() == ["one"]

    uvloop.run(run())


def test_with_several_models_the_base_is_named() -> None:
    async def run() -> None:
        async with pool({"one": "fake", "two": "count:/dev/null"}) as models:
            with pytest.raises(InvalidRequest, match=r"base_model_name must name .*: one of 'one', 'two'"):
                await models.load_adapter(SQL, None, False)
            await models.load_adapter(SQL, "two", False)
            assert models.base("sql") == "two"

    uvloop.run(run())
