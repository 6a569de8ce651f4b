"""What an upstream says is never more than text: odd forms of it are typed errors, too."""

from __future__ import annotations

import pytest

from sensorium.errors import ModelUnavailable, UpstreamFailed
from sensorium.upstream.failures import failure


@pytest.mark.parametrize(("said", "seconds"), [("12", 12), ("²", 5), ("9" * 5000, 5), ("soon", 5), (None, 5)])
def test_when_to_ask_again(said: str | None, seconds: int) -> None:
    found = failure(503, "", who="it", model="m", retry_after=said)
    assert isinstance(found, ModelUnavailable)
    assert found.retry_after_s == seconds


def test_a_body_without_bottom_says_nothing() -> None:
    assert isinstance(failure(500, "[" * 200_000, who="it", model="m"), UpstreamFailed)
