from collections.abc import Iterator

import pytest

from tests.server.serving import Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """One server with one echo model for all tests of a file."""
    with served() as running:
        yield running
