"""models.toml: what it may say, and what is wrong with it by file, table and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium.registry.models_file import read_models


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(
        """
        [models.eyes]
        model_name = "tiny-vl"
        max_model_len = 2048
        idle_ttl = "10m"
        limit_mm_per_prompt = { image = 2 }

        [models."org/ears"]
        model_name = "tiny-audio"
        pinned = true
        """
    )
    eyes, ears = read_models(file, trusted=False)
    assert (eyes.alias, eyes.settings.name, eyes.settings.model) == ("eyes", "eyes", "tiny-vl")
    assert (eyes.settings.max_model_len, eyes.idle_ttl_s, eyes.settings.limit_mm_per_prompt) == (
        2048,
        600,
        {"image": 2},
    )
    assert (ears.alias, ears.pinned) == ("org/ears", True)
    file.write_text("")
    assert read_models(file, trusted=False) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.eyes", "is not valid TOML"),
        ("[model.eyes]\nmodel_name = 'tiny-vl'", "[model] is not known; a model is a table [models.NAME]"),
        ("models = 5", "`models` must be tables"),
        ("[models]\neyes = 'tiny-vl'", "`models.eyes` must be a table"),
        (
            "[models.eyes]\nmax_model_len = 5",
            "[models.eyes]: alias and model_name are required; `model_name` is missing",
        ),
        (
            "[models.eyes]\nTINY\nmax_model_len = 'x'",
            "[models.eyes]: `max_model_len` must be an integer",
        ),
        (
            "[models.eyes]\nTINY\nidel_ttl = 5",
            "[models.eyes]: `idel_ttl` is no field of a registration.",
        ),
        ("[models.eyes]\nmodel_name = '/nowhere'", "[models.eyes]: `model_path`: There is no folder '/nowhere'"),
        ("[models.eyes]\nTINY\nalias = 'a'", "[models.eyes]: `alias` is not for files"),
        (
            "[models.eyes]\nTINY\ntrust_remote_code = true",
            "[models.eyes]: `trust_remote_code` is refused",
        ),
        ("[models.eyes]\nmodel_name = 2026-01-01", "[models.eyes]: "),
        ("[models.events]\nmodel_name = 'tiny-vl'", "[models.events]: `alias` cannot be 'events'"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(text.replace("TINY", "model_name = 'tiny-vl'"))
    with pytest.raises(ConfigurationError) as caught:
        read_models(file, trusted=False)
    assert caught.value.message.startswith(str(file))
    assert said in caught.value.message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_models(tmp_path / "none.toml", trusted=False)
