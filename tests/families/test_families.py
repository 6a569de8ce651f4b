"""Finding a family, reading its decoder's shape, naming its tensors."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from sensorium.errors import ConfigurationError
from sensorium.families import MEDIA, MODULES, find
from sensorium.model.config import DecoderConfig
from tests.checkpoints import (
    AUDIO_FAMILIES,
    FAMILIES,
    GRID_FAMILIES,
    TILE_FAMILIES,
    VISION_FAMILIES,
    Layout,
    model_config,
    tensor_shapes,
)

WANTED = {
    "qwen2_vl": {"head_dim": 16, "mrope_section": (2, 3, 3), "attention_bias": True, "tie_word_embeddings": True},
    "qwen2_5_vl": {"head_dim": 16, "mrope_section": (2, 3, 3), "attention_bias": True, "tie_word_embeddings": False},
    "qwen3_vl": {
        "head_dim": 32, "mrope_section": (6, 5, 5), "mrope_interleaved": True, "qk_norm": True,
        "tie_word_embeddings": True, "num_deepstack_layers": 2,
    },
    "llava": {"head_dim": 16, "tie_word_embeddings": False},
    "internvl": {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": False},
    "qwen2_audio": {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": False},
    "qwen2": {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True},
    "qwen3": {"head_dim": 32, "qk_norm": True},
    "llama": {"head_dim": 16, "rope_theta": 500000.0},
}  # fmt: skip


def decoder(config: dict[str, object]) -> DecoderConfig:
    return find(config).decoder(config)


def test_the_table_is_the_families_own_claims() -> None:
    claims = {
        architecture: module
        for module in set(MODULES.values())
        for architecture in import_module(f"sensorium.families.{module}").FAMILY.architectures
    }
    assert claims == MODULES


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_the_table_says_what_each_takes(module: str) -> None:
    family = import_module(f"sensorium.families.{module}").FAMILY
    assert ("text", *MEDIA.get(module, ())) == family.modalities


def test_what_a_checkpoint_takes_is_known_without_its_family() -> None:
    code = (
        "import sys; from sensorium.families import media; "
        "assert media({'architectures': ['MiniCPMV'], 'version': 2.6}) == ('image', 'video'); "
        "assert media({'architectures': ['LlamaForCausalLM']}) == (); assert media({}) is None; "
        "sys.exit(int(bool({'torch', 'numpy', 'sensorium.families.family'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("layout", ["hub", "saved"])
@pytest.mark.parametrize("name", FAMILIES)
def test_both_layouts_give_one_decoder(name: str, layout: Layout) -> None:
    config = model_config(name, layout)
    family = find(config)
    assert family.name == name
    takes = {"image": VISION_FAMILIES, "video": (*GRID_FAMILIES, "internvl"), "audio": AUDIO_FAMILIES}
    assert family.modalities == ("text", *(kind for kind, names in takes.items() if name in names))
    shared = {
        "vocab_size": 608, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "max_position_embeddings": 4096,
    }  # fmt: skip
    wanted = DecoderConfig(**(shared | WANTED[name]))  # type: ignore[arg-type]
    found = family.decoder(config)
    if name == "llama":
        assert found.rope_scaling["rope_type"] == "llama3"
        assert found.rope_scaling["original_max_position_embeddings"] == 64
    else:
        assert found.rope_scaling == {}
        assert found == wanted
    for field, value in (shared | WANTED[name]).items():
        assert getattr(found, field) == value, field


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_of_the_hub_has_a_name_here(name: str) -> None:
    rename = find(model_config(name)).rename
    targets = [rename(tensor) for tensor in tensor_shapes(name)]
    assert len(set(targets)) == len(targets)
    decoders = [target[1] for target in targets if target is not None and target[0] == "decoder"]
    assert {"embed_tokens.weight", "norm.weight", "layers.2.mlp.down_proj.weight"} <= set(decoders)
    prefixes = ("model.", "language_model.", "visual.", "vision_tower.", "audio_tower.")
    assert not any(part.startswith(prefixes) for part in decoders)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("visual.merger.ln_q.weight", ("vision", "merger.ln_q.weight")),
        ("model.visual.merger.norm.bias", ("vision", "merger.norm.bias")),
        ("model.language_model.layers.0.self_attn.q_norm.weight", ("decoder", "layers.0.self_attn.q_norm.weight")),
        ("language_model.model.norm.weight", ("decoder", "norm.weight")),
        ("language_model.lm_head.weight", ("decoder", "lm_head.weight")),
        ("lm_head.weight", ("decoder", "lm_head.weight")),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", None),
    ],
)
def test_names_of_all_writers_meet(name: str, target: tuple[str, str] | None) -> None:
    assert find(model_config("qwen2_5_vl")).rename(name) == target


@pytest.mark.parametrize("name", TILE_FAMILIES)
def test_old_and_new_names_of_tile_families_meet(name: str) -> None:
    rename = find(model_config(name)).rename
    old, new = ({rename(tensor) for tensor in tensor_shapes(name, layout)} for layout in ("hub", "saved"))
    assert old == new
    assert ("vision", "projector.linear_1.weight") in old


def test_ties_may_stand_in_text_config_only() -> None:
    config = model_config("qwen2_vl", "saved")
    config["text_config"]["tie_word_embeddings"] = True
    assert decoder(config | {"tie_word_embeddings": False}).tie_word_embeddings  # as transformers 4 saved it
    config = model_config("qwen3_vl")
    config["text_config"]["tie_word_embeddings"] = True
    assert not decoder(config | {"tie_word_embeddings": False}).tie_word_embeddings  # the top key counts
    del config["tie_word_embeddings"]
    assert decoder(config).tie_word_embeddings


def test_a_sliding_window_bounds_the_context() -> None:
    mistral = model_config("llama") | {"architectures": ["MistralForCausalLM"], "sliding_window": 1000}
    assert decoder(mistral).max_position_embeddings == 1000
    assert decoder(mistral | {"sliding_window": None}).max_position_embeddings == 4096
    qwen = model_config("qwen2") | {"sliding_window": 1000, "use_sliding_window": False}
    assert decoder(qwen).max_position_embeddings == 4096


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"architectures": ["GPT2LMHeadModel"]}, "'GPT2LMHeadModel' is not supported; supported: Qwen2VL"),
        ("llama", {"architectures": []}, "names no architecture"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config 'gptq'"),
        ("llama", {"mlp_bias": True}, "mlp_bias True"),
        ("qwen2", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("qwen3", {"hidden_size": None}, "lacks hidden_size"),
        ("qwen2_vl", {"rope_scaling": {"type": "mrope", "mrope_section": [1, 2, 3]}}, r"mrope_section is \[1, 2, 3\]"),
        ("qwen3_vl", {"vision_config": None}, "no 'vision_config'"),
    ],
)
def test_what_cannot_be_served_is_named(name: str, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        decoder(model_config(name) | change)


def test_finding_a_text_family_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from sensorium.families import find; find({'architectures': ['LlamaForCausalLM']}); "
        "sys.exit(int(bool({'torch', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_vision_families_do_without_transformers_and_torchvision() -> None:
    code = (
        "import sys; from sensorium.families import find; "
        "find({'architectures': ['Qwen3VLForConditionalGeneration']}); "
        "sys.exit(int(bool({'torchvision', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
