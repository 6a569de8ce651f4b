"""Passive OpenMP and one thread per test process: suites share two cores with whatever else runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

with contextlib.suppress(ImportError):  # which the environment of `make test-swift` lacks
    from hypothesis import HealthCheck, settings

    # How long one example takes says nothing where two cores are shared.
    settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("shared")

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True, scope="session")
def importable_fakes() -> Iterator[None]:
    """Let the zygote, a process of its own, import the fakes."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [before])])
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
