"""Databases that are full, locked, read-only, damaged or away: a clear refusal, and nothing half done."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sensorium.errors import RegistryUnavailable
from sensorium.registry import database
from sensorium.registry.catalog import Catalog
from tests.registry.postgres import Postgres
from tests.registry.registering import spec

FULL = """
    import resource, signal, sys
    from sensorium.errors import RegistryUnavailable
    from sensorium.registry.catalog import Catalog
    from tests.registry.registering import spec
    catalog = Catalog(sys.argv[1])
    catalog.put(spec("before", 1))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    done = ["before"]
    for number in range(200):
        try:
            catalog.put(spec(f"m{number}", number))
            done.append(f"m{number}")
        except RegistryUnavailable as error:
            print(error.code, error.message, file=sys.stderr)
            break
    assert sorted(catalog.snapshot().kept) == sorted(done), "half done"
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    catalog.put(spec("after", 1))
    print(" ".join([*done, "after"]))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    place = str(tmp_path / "registry.db")
    line = [sys.executable, "-c", textwrap.dedent(FULL), place]
    run = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("registry_full The registry"), run.stderr
    assert len(run.stdout.split()) > 3
    assert sorted(Catalog(place).snapshot().kept) == sorted(run.stdout.split())


def test_no_space_for_the_file_at_all(tmp_path: Path) -> None:
    full = Path("/dev/full")
    assert full.exists()
    link = tmp_path / "registry.db"
    link.symlink_to(full)
    with pytest.raises(RegistryUnavailable):
        Catalog(str(link))


def test_locked_by_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.2)
    place = tmp_path / "registry.db"
    catalog = Catalog(str(place))
    catalog.put(spec("a", 1))
    other = sqlite3.connect(place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryUnavailable, match="keeps it locked") as caught:
        catalog.put(spec("b", 2))
    assert caught.value.code == "registry_locked"
    assert list(catalog.snapshot().kept) == ["a"]  # reading goes on
    other.execute("ROLLBACK")
    catalog.put(spec("b", 2))
    assert sorted(catalog.snapshot().kept) == ["a", "b"]


def test_read_only(tmp_path: Path) -> None:
    place = tmp_path / "registry.db"
    Catalog(str(place)).put(spec("a", 1))
    catalog = Catalog(str(place))
    with catalog._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(RegistryUnavailable, match="may not be written") as caught:
        catalog.put(spec("b", 2))
    assert caught.value.code == "registry_readonly"
    assert list(catalog.snapshot().kept) == ["a"]


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to be looked at" * 40, b"\0" * 5000])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "registry.db"
    place.write_bytes(content)
    with pytest.raises(RegistryUnavailable) as caught:
        Catalog(str(place)).put(spec("a", 1))
    assert caught.value.code == "registry_corrupt"
    assert place.read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryUnavailable, match="cannot be used"):
        Catalog(str(tmp_path / "file" / "registry.db"))


def test_a_postgresql_that_goes_away_and_comes_back(postgres_server: Postgres) -> None:
    location = postgres_server.new()
    catalog = Catalog(location)
    catalog.put(spec("a", 1))
    postgres_server.stop()
    try:
        with pytest.raises(RegistryUnavailable) as caught:
            catalog.put(spec("b", 2))
        assert caught.value.code == "registry_unreachable"
        assert "127.0.0.1" in caught.value.message
        with pytest.raises(RegistryUnavailable):
            Catalog(location)
    finally:
        postgres_server.start()
    catalog.put(spec("b", 2))
    assert sorted(catalog.snapshot().kept) == ["a", "b"]


def test_a_postgresql_that_may_not_be_written(postgres_server: Postgres) -> None:
    location = postgres_server.new()
    Catalog(location).put(spec("a", 1))
    name = location.rpartition("/")[2]
    server = ("-h", "127.0.0.1", "-p", str(postgres_server.port), "-U", "sensorium")
    postgres_server.run("psql", *server, "-c", f"ALTER DATABASE {name} SET default_transaction_read_only = on", name)
    catalog = Catalog(location)
    with pytest.raises(RegistryUnavailable) as caught:
        catalog.put(spec("b", 2))
    assert caught.value.code == "registry_readonly"
    assert list(catalog.snapshot().kept) == ["a"]


@pytest.mark.parametrize("wrong", ["nothing_there", "user"])
def test_a_postgresql_that_does_not_let_us_in(postgres_server: Postgres, wrong: str) -> None:
    location = postgres_server.url("nothing_there")
    if wrong == "user":
        location = location.replace("sensorium@", "somebody:secret@")
    with pytest.raises(RegistryUnavailable) as caught:
        Catalog(location)
    assert caught.value.code == "registry_unreachable"
    assert "secret" not in caught.value.message


def test_a_postgresql_that_is_stopped_breaks_off(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: nothing is answered. What connects gives up after `connect_timeout`."""
    location = postgres_server.new()
    os.kill(postgres_server.pid(), signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(RegistryUnavailable):
            Catalog(location)
        assert time.monotonic() - began < 15
    finally:
        os.kill(postgres_server.pid(), signal.SIGCONT)
    Catalog(location).put(spec("a", 1))


def test_a_place_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RegistryUnavailable, match="name another place with --registry or SENSORIUM_HOME"):
        Catalog(str(file / "registry.db"))
