"""What is kept and what the pool serves change together, whatever happens between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import (
    AlreadyRegistered,
    ConfigurationError,
    InvalidRequest,
    ModelNotFound,
    RegistryUnavailable,
)
from sensorium.registry.catalog import Catalog
from sensorium.registry.measures import Measured
from sensorium.registry.registrar import Registrar
from sensorium.registry.spec import ModelSpec
from sensorium.registry.store import Store
from sensorium.settings import EngineSettings, MediaLimits
from tests.fakes import EchoModel, FakePool

MEDIA = MediaLimits(max_bytes=7)


def spec(alias: str, *, lora_of: str | None = None, **fields: Any) -> ModelSpec:
    model = fields.pop("model", "tiny-vl")
    return ModelSpec(alias, EngineSettings(model, name=alias, **fields), model_name=model, lora_of=lora_of)


@asynccontextmanager
async def gateway(location: str | None, **start: Any) -> AsyncIterator[tuple[Registrar, FakePool]]:
    pool = FakePool({"named": EchoModel()})
    store = None if location is None else Store(location)
    registrar = Registrar(pool, store, MEDIA, follow_s=0.05)  # type: ignore[arg-type]
    await registrar.start(**start)
    try:
        yield registrar, pool
    finally:
        await registrar.close()


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_model_is_there_after_a_restart(location: str) -> None:
    async with gateway(location) as (registrar, pool):
        assert await registrar.register(spec("eyes", seed=3)) == (True, registrar.spec("eyes"))
        assert pool.names() == ["named", "eyes"]
        assert pool.specs["eyes"].settings.media == MEDIA  # the server's, not kept
        created = registrar.spec("eyes").created  # type: ignore[union-attr]
        assert created > 1.7e9
    async with gateway(location) as (registrar, pool):
        assert pool.specs["eyes"].settings.seed == 3
        assert (await registrar.register(spec("eyes", seed=3)))[0] is False
        assert registrar.spec("eyes").created == created  # type: ignore[union-attr]
        await registrar.remove("eyes")
        assert pool.names() == ["named"]
    async with gateway(location) as (registrar, pool):
        assert pool.names() == ["named"]


async def test_without_a_place_to_keep_them() -> None:
    async with gateway(None) as (registrar, pool):
        await registrar.register(spec("eyes"))
        assert (await registrar.register(spec("eyes")))[0] is False
        with pytest.raises(AlreadyRegistered, match="seed is None there and 1 here"):
            await registrar.register(spec("eyes", seed=1))
        await registrar.register(spec("eyes", seed=1), replace=True)
        assert pool.specs["eyes"].settings.seed == 1
        await registrar.remove("eyes")
        with pytest.raises(ModelNotFound):
            await registrar.remove("eyes")


async def test_names_of_the_command_line_are_taken_and_stay(tmp_path: Path) -> None:
    place = str(tmp_path / "registry.db")
    Catalog(place).put(spec("named"))
    async with gateway(place) as (registrar, pool):
        assert "named" not in pool.specs
        with pytest.raises(AlreadyRegistered, match="named when the server was started"):
            await registrar.register(spec("named"), replace=True)
        with pytest.raises(InvalidRequest, match="stays as long as it runs"):
            await registrar.remove("named")
    assert list(Catalog(place).snapshot().kept) == ["named"]
    with pytest.raises(ConfigurationError, match=r"/m\.toml: 'named'"):
        async with gateway(place, models=[spec("named")], source="/m.toml"):
            pass


async def test_adapters_and_their_bases(tmp_path: Path) -> None:
    place, folder = str(tmp_path / "registry.db"), tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    tuned = spec("a tuned one", lora_of="base", model=str(folder))
    async with gateway(place) as (registrar, _):
        with pytest.raises(ModelNotFound, match="no model 'base'"):
            await registrar.register(tuned)
        await registrar.register(spec("base"))
        await registrar.register(tuned)
        with pytest.raises(InvalidRequest, match="is an adapter itself"):
            await registrar.register(spec("third", lora_of="a tuned one", model=str(folder)))
        with pytest.raises(InvalidRequest, match="is the base of 'a tuned one'"):
            await registrar.remove("base")
    async with gateway(place) as (registrar, pool):  # sorted by name the adapter would come first
        assert pool.names() == ["named", "base", "a tuned one"]
        await registrar.remove("a tuned one")
        await registrar.remove("base")


async def test_a_base_that_another_gateway_has_just_removed(location: str, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    async with gateway(location) as (registrar, pool):
        await registrar.register(spec("base"))
        Catalog(location).remove("base")
        with pytest.raises(ModelNotFound, match="'base' has just been removed"):
            await registrar.register(spec("tuned", lora_of="base", model=str(tmp_path / "adapter")))
        assert "tuned" not in pool.specs
    assert not Catalog(location).snapshot().kept


async def test_what_could_never_be_loaded_is_not_kept(location: str) -> None:
    async with gateway(location) as (registrar, pool):
        with pytest.raises(InvalidRequest, match="`model_path`: There is no folder '/nowhere'"):
            await registrar.register(spec("eyes", model="/nowhere"))
        assert registrar.spec("eyes") is None
        assert pool.names() == ["named"]


async def test_what_the_pool_refuses_is_not_kept(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(location) as (registrar, pool):
        await registrar.register(spec("eyes"))
        add = pool.add
        monkeypatch.setattr(pool, "add", lambda spec: refuse() if spec.settings.seed == 1 else add(spec))
        for alias in ("eyes", "other"):
            with pytest.raises(ModelNotFound):
                await registrar.register(spec(alias, seed=1), replace=True)
        assert pool.names() == ["named", "eyes"]
        assert pool.specs["eyes"].settings.seed is None
    kept = Catalog(location).snapshot().kept
    assert {alias: row.spec.settings.seed for alias, row in kept.items()} == {"eyes": None}


def refuse() -> None:
    raise ModelNotFound("No.")


async def test_what_cannot_be_kept_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(str(tmp_path / "registry.db")) as (registrar, pool):
        await registrar.register(spec("eyes"))

        def full(*_: object, **__: object) -> None:
            raise RegistryUnavailable("Full.")

        with monkeypatch.context() as broken:
            broken.setattr(Catalog, "put", full)
            broken.setattr(Catalog, "remove", full)
            for change in (registrar.register(spec("other")), registrar.remove("eyes")):
                with pytest.raises(RegistryUnavailable):
                    await change
            assert pool.names() == ["named", "eyes"]
        await registrar.register(spec("other"))
        await registrar.remove("eyes")
        assert pool.names() == ["named", "other"]


async def test_two_gateways_on_one_database(location: str) -> None:
    async with gateway(location) as (one, first), gateway(location) as (two, second):
        await one.register(spec("eyes", seed=1))
        await until(lambda: "eyes" in second.specs)
        assert second.specs["eyes"].settings.seed == 1
        await two.register(spec("eyes", seed=2), replace=True)
        await until(lambda: first.specs["eyes"].settings.seed == 2)
        await two.remove("eyes")
        await until(lambda: "eyes" not in first.names())
        await one.register(spec("ears"))
        await two.remove("ears")  # at once: it looks before it says that there is none
        await until(lambda: "ears" not in first.names())
        assert (await one.register(spec("ears")))[0]
        assert (await two.register(spec("ears")))[0] is False
        assert "ears" in second.names()


async def test_a_cancelled_caller_leaves_nothing_half_done(location: str) -> None:
    async with gateway(location) as (registrar, pool):
        for number in range(20):
            task = asyncio.create_task(registrar.register(spec(f"m{number}")))
            await asyncio.sleep(number * 0.0005)
            task.cancel()
        await until(lambda: not registrar._tasks)
        assert sorted(pool.specs) == sorted(Catalog(location).snapshot().kept)
        assert len(pool.specs) >= 15


async def test_random_changes_of_two_gateways_end_alike(location: str) -> None:
    chance = random.Random(3)
    async with gateway(location) as (one, first), gateway(location) as (two, second):

        async def change() -> None:
            registrar, alias = chance.choice((one, two)), chance.choice("abc")
            try:
                if chance.random() < 0.6:
                    await registrar.register(spec(alias, seed=chance.randrange(3)), replace=chance.random() < 0.5)
                else:
                    await registrar.remove(alias)
            except (AlreadyRegistered, ModelNotFound):
                pass

        for _ in range(15):
            await asyncio.gather(*(change() for _ in range(6)))
        kept = {alias: row.spec for alias, row in Catalog(location).snapshot().kept.items()}

        def served(pool: FakePool) -> dict[str, int | None]:
            return {alias: spec.settings.seed for alias, spec in pool.specs.items()}

        seeds = {alias: spec.settings.seed for alias, spec in kept.items()}
        await until(lambda: served(first) == served(second) == seeds)
        await until(lambda: all(one.spec(alias) == two.spec(alias) == kept[alias] for alias in kept))


async def test_a_file_is_applied_and_what_it_no_longer_says_goes(location: str) -> None:
    async with gateway(location, models=[spec("one"), spec("two")], source="/m.toml") as (registrar, pool):
        assert sorted(pool.specs) == ["one", "two"]
        assert (registrar.source("one"), registrar.source("named")) == ("/m.toml", "command line")
        await registrar.register(spec("own"))
    async with gateway(location, models=[spec("two", seed=1)], source="/m.toml") as (registrar, pool):
        assert sorted(pool.specs) == ["own", "two"]
        assert pool.specs["two"].settings.seed == 1
    async with gateway(None, models=[spec("two", seed=1)], source="/m.toml") as (registrar, pool):
        assert list(pool.specs) == ["two"]


async def test_a_registry_that_cannot_be_read(tmp_path: Path) -> None:
    place = tmp_path / "registry.db"
    place.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ConfigurationError, match="no database of SQLite"):
        async with gateway(str(place), required=True):
            pass
    async with gateway(str(place)) as (registrar, pool):
        with pytest.raises(RegistryUnavailable):
            await registrar.register(spec("eyes"))
        assert pool.names() == ["named"]
        place.unlink()
        await registrar.register(spec("eyes"))
        assert pool.names() == ["named", "eyes"]


async def test_a_file_is_served_while_the_registry_cannot_be_read(tmp_path: Path) -> None:
    place = tmp_path / "registry.db"
    place.write_bytes(b"nothing of the kind" * 100)
    async with gateway(str(place), models=[spec("one")], source="/m.toml") as (_, pool):
        assert list(pool.specs) == ["one"]
        place.unlink()
        Catalog(str(place)).put(spec("other"))
        await until(lambda: "other" in pool.specs)
        assert sorted(pool.specs) == ["one", "other"]
    assert sorted(Catalog(str(place)).snapshot().kept) == ["one", "other"]


async def test_nothing_is_opened_before_there_is_something(tmp_path: Path) -> None:
    place = tmp_path / "registry.db"
    async with gateway(str(place)) as (registrar, _):
        await asyncio.sleep(0.2)
        assert not place.exists()
        assert registrar.spec("eyes") is None
        Catalog(str(place)).put(spec("eyes"))
        await until(lambda: registrar.spec("eyes") is not None)


async def test_measured_sizes_outlive_the_process(location: str) -> None:
    store = Store(location)
    store.remember("key", Measured(5, 6, 7.0))
    assert store.measured("key") == Measured(5, 6, 7.0)
    await store.close()
    other = Store(location)
    assert other.measured("key") is None
    await other.read_measurements()
    assert other.measured("key") == Measured(5, 6, 7.0)
    await other.close()
