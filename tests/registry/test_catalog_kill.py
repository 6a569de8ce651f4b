"""kill -9 at random moments: every change that was acknowledged is there, and none is there in part."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from sensorium.registry.catalog import Catalog
from tests.registry.postgres import Postgres
from tests.registry.registering import expect, spec, steps

ROUNDS = 8


def there(location: str) -> dict[str, int]:
    """Return alias -> number; every spec is whole."""
    catalog = Catalog(location)
    try:
        kept = catalog.snapshot().kept
    finally:
        catalog.close()
    found = {}
    for alias, row in kept.items():
        found[alias] = row.spec.settings.seed
        assert row.spec == spec(alias, row.spec.settings.seed or 0)
    return found  # type: ignore[return-value]


def killed_while_it_registers(location: str, first: int, after_s: float) -> int:
    """Let a process register, end it, and return how many changes it had been told of."""
    line = [sys.executable, "-m", "tests.registry.registering", location, str(first)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    told = [process.stdout.readline()]
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    assert process.wait(10) == -signal.SIGKILL
    assert told[0], "it ended by itself"
    return len([line for line in told if line.endswith("\n")])


def no_one_else_in(location: str) -> None:
    """Wait until PostgreSQL has noticed who is gone: a commit that it had already been sent is still carried out."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + 30
    with psycopg.connect(location, autocommit=True) as connection:
        while (found := connection.execute(others).fetchone()) != (0,):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)


def check(before: dict[str, int], first: int, acknowledged: int, after: dict[str, int]) -> None:
    """What is there is what was acknowledged, and perhaps the one change that was under way."""
    upcoming = steps(first)
    for _ in range(acknowledged):
        before = expect(next(upcoming), before)
    assert after in (before, expect(next(upcoming), before))


def test_kill_9_while_registering(location: str) -> None:
    chance = random.Random(5)
    known, total = {}, 0
    for turn in range(ROUNDS):
        first = 1000 * turn
        acknowledged = killed_while_it_registers(location, first, chance.uniform(0.0, 0.25))
        if location.startswith("postgresql:"):
            no_one_else_in(location)
        after = there(location)
        check(known, first, acknowledged, after)
        known, total = after, total + acknowledged
    assert total > 2 * ROUNDS


@pytest.mark.parametrize("after_s", [0.05, 0.15])
def test_a_database_that_loses_power(postgres_server: Postgres, after_s: float) -> None:
    location = postgres_server.new()
    line = [sys.executable, "-m", "tests.registry.registering", location, "0"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    told = [process.stdout.readline()]
    time.sleep(after_s)
    postgres_server.stop("immediate")
    try:
        told += process.stdout.readlines()
        process.communicate()
    finally:
        postgres_server.start()
    check({}, 0, len(told), there(location))
