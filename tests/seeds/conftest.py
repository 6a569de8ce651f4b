from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.seeds.serving import FILES, media_server


@pytest.fixture(scope="session")
def media() -> Iterator[str]:
    """The base URL of a loopback server with the seeds' media."""
    with media_server() as url:
        yield url


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the server that requests may name files of."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("demo.jpeg", "rose.jpg"):
        (folder / name).write_bytes(FILES[name])
    return folder
