from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Running
from tests.seeds.serving import FILES, media_server, served


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


@pytest.fixture(scope="session")
def qwen_vl(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[Running]:
    """What seeds 001 and 004 call qwen_vl and qwen-vl-chat."""
    arguments = ("--max-model-len", "1024", "--allowed-local-media-path", str(pictures))
    with served("qwen-vl-chat", tmp_path_factory.mktemp("qwen-vl"), *arguments) as started:
        yield started
