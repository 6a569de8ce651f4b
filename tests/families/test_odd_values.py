"""Values that a checkpoint's files should not have: refused when it is loaded, in words."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.errors import ConfigurationError
from sensorium.families import find
from sensorium.model.rope import inverse_frequencies
from sensorium.model.weights import load_weights
from tests.checkpoint_chat import write_internvl_chat
from tests.checkpoints import make_checkpoint
from tests.families.conftest import read_checkpoint, read_config
from tests.minicpm_checkpoints import make_minicpm
from tests.qwen_checkpoints import make_qwen

CONFIG, IMAGE = "config.json", "preprocessor_config.json"
CASES = [
    ("llama", CONFIG, "num_attention_heads", 0, "lacks num_attention_heads"),
    ("llama", CONFIG, "num_key_value_heads", 3, "num_key_value_heads 3"),
    ("llama", CONFIG, "rms_norm_eps", "tiny", "rms_norm_eps 'tiny'; it must be a number above 0"),
    ("llama", CONFIG, "rope_theta", -1, "rope_theta -1"),
    ("llama", CONFIG, "rope_scaling", "dynamic", "rope_scaling or rope_parameters 'dynamic'; it must be an object"),
    ("llama", CONFIG, "rope_scaling", {"type": "linear"}, "type 'linear' has factor None"),
    ("llama", CONFIG, "rope_scaling.low_freq_factor", None, "low_freq_factor None"),
    ("llama", CONFIG, "rope_scaling.partial_rotary_factor", 0.5, "partial_rotary_factor 'other than 1'"),
    ("2.6", CONFIG, "rope_scaling", {"type": "longrope", "short_factor": 1}, "short_factor 1; it must be 16 numbers"),
    ("2.6", CONFIG, "query_num", 0, "0"),
    ("2.6", IMAGE, "patch_size", 0, "patch_size 0; it must be a whole number, at least 1"),
    ("qwen2_vl", CONFIG, "vision_config.num_heads", 0, "num_heads 0"),
    ("qwen2_vl", CONFIG, "vision_config.mlp_ratio", "wide", "cannot be read"),
    ("qwen2_5_vl", CONFIG, "vision_config.window_size", 8, "window_size 8, less than a token"),
    ("qwen2_5_vl", IMAGE, "image_std", [1, 0, 1], "image_std"),
    ("qwen2_5_vl", IMAGE, "image_mean", [0.5], r"image_mean \[0.5\]; it must be three numbers"),
    ("qwen2_5_vl", IMAGE, "max_pixels", -1, "max_pixels -1"),
    ("qwen3_vl", IMAGE, "patch_size", 14, "patch_size 14, vision_config in config.json patch_size 16"),
    ("qwen3_vl", IMAGE, "size", 448, "cannot be read"),
    ("qwen2_audio", IMAGE, "hop_length", 0, "hop 0"),
    ("internvl", CONFIG, "downsample_ratio", 0.3, "3 x 3 become a token"),
    ("internvl", CONFIG, "downsample_ratio", 0, "cannot be read"),
    ("llava", CONFIG, "vision_feature_layer", -9, "num_layers -"),
    ("llava", CONFIG, "vision_config.patch_size", 0, "patch_size 0"),
    ("llava", IMAGE, "resample", [3], r"resample \[3\]"),
]


@pytest.mark.parametrize(("name", "file", "key", "value", "message"), CASES)
def test_it_is_refused_in_words(name: str, file: str, key: str, value: Any, message: str, tmp_path: Path) -> None:
    (make_minicpm if name[0].isdigit() else make_checkpoint)(name, tmp_path)
    read(tmp_path)
    content = json.loads((tmp_path / file).read_text())
    *inner, last = key.split(".")
    reduce(dict.__getitem__, inner, content)[last] = value
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path)


def read(path: Path) -> None:
    """Do what loading does before it looks at weights, and what it does with processors."""
    config = read_config(path)
    family = find(config)
    inverse_frequencies(family.decoder(config))
    for make in family.encoders.values():
        make(config, torch.float32, torch.device("cpu"))
    for media in family.media.values():
        media.processor(read_checkpoint(path)).within(512).limits({})


def test_fused_tensors_that_do_not_fit_config_json_are_named(tmp_path: Path) -> None:
    write_internvl_chat(tmp_path / "hf", tmp_path / "chat", "internlm2")
    config = read_config(tmp_path / "chat")
    config["llm_config"]["num_key_value_heads"] = 1
    family = find(config)
    assert family.convert is not None
    fused = torch.zeros(2 * (2 + 2) * 16, 64)
    with pytest.raises(ConfigurationError, match=r"'layers.0.self_attn.wqkv.weight' .* has 128 rows; .* asks for 96"):
        family.convert(config, {"layers.0.self_attn.wqkv.weight": fused})


def test_a_tower_whose_fused_tensors_do_not_fit_config_json_is_refused(tmp_path: Path) -> None:
    make_qwen("qwen_vl", tmp_path)
    config = read_config(tmp_path)
    config["visual"] |= {"heads": 7, "width": 35}
    family = find(config)
    weights = load_weights(tmp_path, family.rename, torch.float32, torch.device("cpu"), lambda phase, fraction: None)
    with pytest.raises(ConfigurationError, match=r"config\.json asks for"):
        family.encoders["vision"](config, torch.float32, torch.device("cpu")).load(
            {
                name: tensor
                for name, tensor in weights["vision"].items()
                if ".attn.qkv." in name or name == "patch.weight"
            }
        )


def test_one_number_of_each_statistic_is_that_of_all_channels(tmp_path: Path) -> None:
    """transformers takes a single number too."""
    make_checkpoint("qwen2_vl", tmp_path)
    settings = json.loads((tmp_path / IMAGE).read_text()) | {"image_mean": 0.5, "image_std": 0.25}
    (tmp_path / IMAGE).write_text(json.dumps(settings))
    processor: Any = find(read_config(tmp_path)).media["image"].processor(read_checkpoint(tmp_path))
    assert (processor.mean, processor.std) == ((0.5,) * 3, (0.25,) * 3)
