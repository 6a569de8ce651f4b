from __future__ import annotations

import pytest

from sensorium.terminal.arguments import normalise


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("serve --max_model_len 8", "serve --max-model-len 8"),
        ("serve --mm_processor_kwargs={a_b}", "serve --mm-processor-kwargs={a_b}"),
        ("serve m --served-model-name a b --port 1", "serve m --served-model-name a --served-model-name b --port 1"),
        ("serve --served_model_name=a m", "serve --served-model-name=a m"),
        ("serve --api-key a -h", "serve --api-key a -h"),
        ("run -- --a_b", "run -- --a_b"),
    ],
)
def test_spellings(written: str, read: str) -> None:
    assert normalise(written.split()) == read.split()
