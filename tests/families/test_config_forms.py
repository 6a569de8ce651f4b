"""Forms of config.json and of weight files that are not the publishers' own, but that transformers writes or reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from sensorium.families import find
from tests.checkpoints import make_checkpoint, model_config
from tests.families.reference import reference_logits
from tests.families.test_parity import build_prompt, items, load, our_logits

Tensors = dict[str, torch.Tensor]


def close(path: Path, name: str, num_images: int = 0) -> None:
    """Check that logits are transformers'."""
    family, decoder, encoders = load(path)
    images = items(path, family, num_images) if num_images else []
    prompt = build_prompt(path, family, images)
    wanted = reference_logits(path, name, prompt.token_ids, images)
    assert wanted.std() > 0.5
    assert (our_logits(decoder, encoders, prompt) - wanted).abs().max() < 1e-4


def changed(path: Path, name: str, config: dict[str, Any], change: Callable[[Tensors], None] | None = None) -> Path:
    """Write a tiny checkpoint with another config.json, and other tensors."""
    make_checkpoint(name, path)
    (path / "config.json").write_text(json.dumps(config))
    if change is not None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_an_output_layer_of_its_own_counts_whatever_config_json_says(tmp_path: Path) -> None:
    """What transformers 5 saves of InternVL: the class ties, the weights do not, and weights are right."""
    config = model_config("internvl") | {"tie_word_embeddings": True}
    close(changed(tmp_path, "internvl", config), "internvl")


def test_tied_embeddings_may_be_there_under_either_name(tmp_path: Path) -> None:
    def only_the_head(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    close(changed(tmp_path, "qwen2", model_config("qwen2"), only_the_head), "qwen2")


def test_internvl_is_tied_where_neither_part_says(tmp_path: Path) -> None:
    config = {key: value for key, value in model_config("internvl").items() if key != "tie_word_embeddings"}

    def without_head(tensors: Tensors) -> None:
        (name,) = (name for name in tensors if name.endswith("lm_head.weight"))
        del tensors[name]

    close(changed(tmp_path, "internvl", config, without_head), "internvl")


def test_sections_of_qwen3_vl_take_turns_even_if_config_json_does_not_say(tmp_path: Path) -> None:
    config = model_config("qwen3_vl")
    del config["text_config"]["rope_scaling"]["mrope_interleaved"]
    close(changed(tmp_path, "qwen3_vl", config), "qwen3_vl", num_images=1)


@pytest.mark.parametrize(("name", "section"), [("qwen2_vl", (16, 24, 24)), ("qwen3_vl", (24, 20, 20))])
def test_sections_are_the_class_defaults_where_config_json_has_none(name: str, section: tuple[int, ...]) -> None:
    config = model_config(name)
    text = config.get("text_config", config)
    del text["rope_scaling"]
    assert find(config).decoder(config | {"text_config": text | {"head_dim": 128}}).mrope_section == section


def test_a_text_model_has_one_axis_whatever_config_json_says() -> None:
    config = model_config("qwen2") | {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    assert find(config).decoder(config).mrope_section == ()


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("said", [{}, {"hidden_size": 1536, "in_chans": 3, "spatial_patch_size": 14}])
def test_what_a_tower_leaves_out_is_the_class_default(name: str, said: dict[str, int]) -> None:
    """transformers 4.45 and others wrote only what differs from their class."""
    config = model_config(name) | {"vision_config": said}
    theirs = AutoConfig.for_model(name, vision_config=dict(said)).vision_config
    ours = import_module(f"sensorium.families.{name}").vision(config)
    by_their_names = {
        "depth": ours.depth,
        "num_heads": ours.num_heads,
        "patch_size": ours.patch_size,
        "temporal_patch_size": ours.temporal_patch_size,
        "spatial_merge_size": ours.spatial_merge_size,
        "in_channels": ours.in_channels,
        "hidden_act": ours.hidden_act,
    }
    if name == "qwen2_vl":
        by_their_names |= {"embed_dim": ours.hidden_size, "hidden_size": ours.out_hidden_size}
        assert ours.intermediate_size == theirs.embed_dim * theirs.mlp_ratio
    else:
        by_their_names |= {
            "hidden_size": ours.hidden_size,
            "out_hidden_size": ours.out_hidden_size,
            "intermediate_size": ours.intermediate_size,
        }
    assert by_their_names == {key: getattr(theirs, key) for key in by_their_names}


YARN = {"factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize("more", [{}, {"attention_factor": 1.5, "beta_fast": 8, "beta_slow": 2, "truncate": False}])
def test_yarn_is_transformers(tmp_path: Path, more: dict[str, Any]) -> None:
    """The model cards of Qwen have it added to config.json for longer contexts."""
    config = model_config("qwen2") | {"rope_scaling": {"type": "yarn"} | YARN | more}
    close(changed(tmp_path, "qwen2", config), "qwen2")


def test_yarn_and_three_axes_go_together(tmp_path: Path) -> None:
    section = model_config("qwen2_5_vl")["rope_scaling"]["mrope_section"]
    config = model_config("qwen2_5_vl") | {"rope_scaling": {"type": "yarn", "mrope_section": section} | YARN}
    close(changed(tmp_path, "qwen2_5_vl", config), "qwen2_5_vl", num_images=1)


def test_yarn_makes_the_context_as_long_as_it_stretches_to() -> None:
    config = model_config("qwen2") | {"max_position_embeddings": 100, "rope_scaling": {"type": "yarn"} | YARN}
    assert find(config).decoder(config).max_position_embeddings == 256


def test_linear_scaling_makes_the_context_longer() -> None:
    """vicuna-16k has 4096 in its file and a factor of 4."""
    config = model_config("llama") | {"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 4.0}}
    assert find(config).decoder(config).max_position_embeddings == 400


@pytest.mark.parametrize(
    ("more", "length"),
    [
        ({"max_window_layers": 0}, 50),
        ({"max_window_layers": 2}, 100),  # of two layers: none slides
        ({"layer_types": ["full_attention", "full_attention"]}, 100),
        ({"layer_types": ["full_attention", "sliding_attention"], "max_window_layers": 2}, 50),
    ],
)
def test_a_window_of_no_layer_shortens_nothing(more: dict[str, Any], length: int) -> None:
    config = model_config("qwen2") | {"max_position_embeddings": 100, "use_sliding_window": True, "sliding_window": 50}
    config |= {"num_hidden_layers": 2}
    assert find(config).decoder(config | more).max_position_embeddings == length
