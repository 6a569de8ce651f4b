"""What is kept: in SQLite and in PostgreSQL alike."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sql

from sensorium.errors import AlreadyRegistered, ConfigurationError, InvalidRequest, ModelNotFound
from sensorium.registry.catalog import Catalog
from sensorium.registry.database import connect, database_url, meta, models, shown
from sensorium.registry.measures import Measured
from sensorium.registry.spec import ModelSpec
from sensorium.settings import EngineSettings, Needs


def spec(alias: str, **fields: object) -> ModelSpec:
    own = {name: fields.pop(name) for name in ("lora_of", "needs", "pinned", "created") if name in fields}
    return ModelSpec(alias, EngineSettings("/models/x", name=alias, **fields), **own)  # type: ignore[arg-type]


def test_what_is_put_is_there_for_the_next_one_who_opens_it(location: str) -> None:
    full = spec(
        "眼/睛",
        api_key="sk-1",
        engine_args={"a": [1, {"b": None}]},
        limit_mm_per_prompt={"image": 2},
        needs=Needs(memory_bytes=5),
        created=7.5,
    )
    catalog = Catalog(location)
    assert catalog.put(full).new
    catalog.close()
    kept = Catalog(location).snapshot()
    assert (kept.revision, kept.kept["眼/睛"].spec, kept.kept["眼/睛"].source) == (1, full, "")


def test_the_same_again_changes_nothing_and_something_else_needs_replace(location: str) -> None:
    catalog = Catalog(location)
    first = catalog.put(spec("a", created=1.0))
    again = catalog.put(spec("a", created=2.0))
    assert (again.new, again.revision, again.kept.spec.created) == (False, first.revision, 1.0)
    with pytest.raises(AlreadyRegistered, match=r"max_model_len is None there and 9 here"):
        catalog.put(spec("a", max_model_len=9))
    assert catalog.revision() == first.revision
    replaced = catalog.put(spec("a", max_model_len=9), replace=True)
    assert (replaced.new, replaced.revision) == (True, first.revision + 1)
    assert catalog.snapshot().kept["a"].spec.settings.max_model_len == 9


def test_remove(location: str) -> None:
    catalog = Catalog(location)
    catalog.put(spec("base"))
    catalog.put(spec("tuned", lora_of="base"))
    before = catalog.revision()
    with pytest.raises(InvalidRequest, match="base of 'tuned'"):
        catalog.remove("base")
    with pytest.raises(ModelNotFound):
        catalog.remove("other")
    assert catalog.revision() == before
    assert catalog.remove("tuned") == before + 1
    assert catalog.remove("base") == before + 2
    assert catalog.snapshot().kept == {}


def test_a_file_is_applied_as_a_whole(location: str) -> None:
    catalog = Catalog(location)
    catalog.put(spec("own"))
    catalog.put(spec("taken"))
    first = catalog.apply("/models.toml", [spec("one"), spec("two"), spec("taken", max_model_len=3)])
    assert {alias: kept.source for alias, kept in first.kept.items()} == {
        "own": "",
        "one": "/models.toml",
        "two": "/models.toml",
        "taken": "/models.toml",
    }
    assert first.kept["taken"].spec.settings.max_model_len == 3
    same = catalog.apply("/models.toml", [spec("one"), spec("two"), spec("taken", max_model_len=3)])
    assert same == first
    other = catalog.apply("/other.toml", [])
    assert other == first
    last = catalog.apply("/models.toml", [spec("two", seed=1)])
    assert sorted(last.kept) == ["own", "two"]
    assert (last.kept["two"].spec.settings.seed, last.revision) == (1, first.revision + 1)
    assert catalog.snapshot() == last


def test_measured_sizes(location: str) -> None:
    catalog = Catalog(location)
    catalog.remember("k", Measured(1, 2, 3.0))
    catalog.remember("k", Measured(4, 5, 6.5))
    catalog.remember("other", Measured(1, 0, 0.5))
    assert Catalog(location).measurements() == {"k": Measured(4, 5, 6.5), "other": Measured(1, 0, 0.5)}


def test_many_write_at_once_and_nothing_is_lost(location: str) -> None:
    catalogs = [Catalog(location) for _ in range(4)]  # as four servers have it open

    def write(number: int) -> None:
        for place in range(12):
            catalogs[number].put(spec(f"m{number}-{place}"))
            catalogs[number].put(spec("shared", seed=number), replace=True)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    seen = catalogs[0].snapshot()
    assert len(seen.kept) == 4 * 12 + 1
    assert seen.revision == catalogs[3].revision()
    assert 4 * 12 + 4 <= seen.revision <= 4 * 24
    for catalog in catalogs:
        catalog.close()


def test_one_of_many_who_register_the_same_alias_at_once_wins(location: str) -> None:
    def register(number: int) -> bool | str:
        catalog = Catalog(location)
        try:
            return catalog.put(spec("a", seed=number % 2)).new
        except AlreadyRegistered:
            return "taken"
        finally:
            catalog.close()

    with ThreadPoolExecutor(6) as threads:
        told = list(threads.map(register, range(6)))
    assert told.count(True) == 1
    assert told.count(False) == 2  # with the winner's spec
    assert told.count("taken") == 3


def test_a_row_of_another_version_is_left_out_and_not_overwritten(location: str) -> None:
    catalog = Catalog(location)
    catalog.put(spec("good"))
    catalog.put(spec("strange"))
    with connect(database_url(location)).begin() as connection:
        connection.execute(models.update().where(models.c.alias == "strange").values(spec='{"alias": 5}'))
    assert list(catalog.snapshot().kept) == ["good"]
    with pytest.raises(AlreadyRegistered, match="newer version"):
        catalog.put(spec("strange"), replace=True)
    catalog.remove("strange")


def test_tables_of_a_newer_version_are_refused(location: str) -> None:
    Catalog(location).close()
    engine = connect(database_url(location))
    with engine.begin() as connection:
        connection.execute(meta.update().values(schema_version=2))
    engine.dispose()
    with pytest.raises(ConfigurationError, match="version 2 of its tables, this program knows 1"):
        Catalog(location)


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "registry.db"
    catalog = Catalog(str(file))
    catalog.put(spec("a", api_key="sk-1"))
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    with catalog._engine.connect() as connection:
        assert connection.execute(sql.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sql.text("PRAGMA synchronous")).scalar() == 2  # FULL


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("mysql://root@host/x", "'mysql' is not served"),
        ("sqlite://", "give a file"),
        ("post gres://x", "no URL|not served"),
        ("postgresql://u:se cret@[::1/x", "no URL|not served"),
    ],
)
def test_places_that_are_none(location: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        database_url(location)


def test_passwords_are_not_shown() -> None:
    for url in (
        "postgresql://u:secret@host/name",
        "postgresql://host/name?user=u&password=secret",  # libpq takes it there as well
        "postgresql://host/name?sslkey=k&sslpassword=secret",
    ):
        assert shown(database_url(url)).endswith("@host/name" if "@" in url else "//host/name"), url
    assert shown(database_url("/a/b.db")) == "/a/b.db"
