"""What is said of models that nobody has loaded yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import InvalidRequest
from sensorium.lora.folder import is_adapter
from sensorium.registry.fit import estimate
from sensorium.registry.outlook import outlook
from sensorium.registry.registration import checked
from sensorium.registry.spec import ModelSpec
from sensorium.settings import EngineSettings, Hub
from sensorium.types import Outlook
from tests.checkpoints import model_config


def write(folder: Path, config: dict[str, Any] | str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("family", "media"), [("qwen3_vl", ("image", "video")), ("qwen2_audio", ("audio",)), ("llama", ())]
)
def test_config_json_is_enough(family: str, media: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path, model_config(family))
    assert outlook(EngineSettings(path)) == Outlook(path, 4096, media)  # type: ignore[arg-type]
    settings = EngineSettings(path, max_model_len=512, limit_mm_per_prompt={"image": 2})
    assert outlook(settings).max_model_len == 512
    assert outlook(settings).limit_mm_per_prompt == {"image": 2}


def test_the_bundled_model_is_known() -> None:
    known = outlook(EngineSettings("tiny-vl"))
    assert known.media == ("image", "video")
    assert known.max_model_len == 4096


def test_scaled_positions_are_a_longer_context(tmp_path: Path) -> None:
    config = model_config("llama") | {"rope_scaling": {"type": "linear", "factor": 4.0}}
    path = write(tmp_path, config)
    assert outlook(EngineSettings(path)).max_model_len == 4 * config["max_position_embeddings"]
    assert estimate(EngineSettings(path), Path(path)).context == 4 * config["max_position_embeddings"]
    path = write(tmp_path / "wrong", config | {"rope_scaling": "linear"})
    assert outlook(EngineSettings(path)).max_model_len is None


def test_another_engine_may_take_something_else(tmp_path: Path) -> None:
    path = write(tmp_path, model_config("qwen3_vl"))
    assert outlook(EngineSettings(path, engine="transformers")) == Outlook(path, 4096, None)
    strange = write(tmp_path / "strange", {"architectures": ["NobodyKnows"], "max_position_embeddings": 77})
    assert outlook(EngineSettings(strange)) == Outlook(strange, 77, None)


def test_a_hub_model_is_known_once_its_config_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path))
    settings = EngineSettings("some/model", max_model_len=99)
    assert outlook(settings) == Outlook(max_model_len=99)
    repo = tmp_path / "hub" / "models--some--model"
    path = write(repo / "snapshots" / "abc", model_config("llava"))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    assert outlook(settings) == Outlook(path, 99, ("image",))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"text_config": 3, "architectures": 7}'])
def test_what_cannot_be_read_is_not_known(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    assert outlook(EngineSettings(path)) == Outlook(path)
    assert outlook(EngineSettings(str(tmp_path / "nowhere"))) == Outlook()


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
@pytest.mark.parametrize(
    ("model", "revision"),
    [
        ("~nobody-has-this-name/x", None),
        ("x" * 3000, None),
        ("x" * 300 + "/y", None),
        ("a\0b", None),
        ("o/m", "r" * 300),
    ],
)
def test_names_that_can_be_no_folder_have_none(model: str, revision: str | None, hub: Hub) -> None:
    # A registration for another machine is not looked at here; one such name must not make the list of models fail.
    assert outlook(EngineSettings(model, revision=revision, hub=hub)) == Outlook()
    assert not is_adapter(model)


def test_weights_that_are_gone_are_not_counted(tmp_path: Path) -> None:
    path = write(tmp_path, model_config("llama"))
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")  # as in a hub's cache whose blobs were deleted
        assert estimate(EngineSettings(path), tmp_path).weights == 0
        (tmp_path / name).unlink()


def test_nested_deeper_than_json_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "[" * 100_000)
    assert outlook(EngineSettings(path)) == Outlook(path)
    assert not estimate(EngineSettings(path), tmp_path).known
    with pytest.raises(InvalidRequest, match=r"config\.json of .* cannot be read"):
        checked(ModelSpec("a", EngineSettings(path)))
