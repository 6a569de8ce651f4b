"""Adapters that PEFT made, against PEFT: logits unmerged, and merged checkpoints against `merge_and_unload`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.families.family import EncoderInput
from sensorium.lora.merge import merge
from tests.checkpoints import FAMILIES, MEDIA_FAMILIES
from tests.families import reference
from tests.families.conftest import Checkpoint
from tests.families.conftest import checkpoint as checkpoint
from tests.families.reference import loader, reference_logits
from tests.families.test_parity import build_prompt, items, load, our_logits
from tests.lora.running import load_lora

peft = pytest.importorskip("peft", reason="peft comes with the dev extra")

_TEXT = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS: dict[str, dict[str, Any]] = {
    "list": {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 9},
    "regex": {"target_modules": r".*layers\.[02]\..*(q|k|up)_proj", "r": 3, "lora_alpha": 6, "use_rslora": True},
    "all-linear": {"target_modules": "all-linear", "r": 2, "lora_alpha": 4},
    "patterns": {
        "target_modules": _TEXT,
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"q_proj": 6, r"layers\.1\..*down_proj": 2},
        "alpha_pattern": {"v_proj": 24},
    },
    "head": {"target_modules": ["q_proj", "lm_head"], "r": 4, "lora_alpha": 8},
}


def write(family: str, base: Path, output: Path, targets: str, seed: int = 0) -> Any:
    """Save a random adapter with PEFT; return PEFT's model of it."""
    torch.manual_seed(seed)
    with torch.inference_mode(False):
        config = peft.LoraConfig(init_lora_weights=False, **TARGETS[targets])
        model = peft.get_peft_model(loader(family).from_pretrained(base, dtype=torch.float32), config)
        model.save_pretrained(output)
    return model.eval()


@contextmanager
def instead(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `reference_logits` ask this model."""
    with monkeypatch.context() as patch:
        patch.setattr(reference, "reference_model", lambda path: model)
        yield


def logits_of(model: Any, base: Path, name: str, ids: list[int], media: list[EncoderInput], patch: Any) -> torch.Tensor:
    with instead(model.base_model.model if isinstance(model, peft.PeftModel) else model, patch):
        return reference_logits(base, name, ids, media)


def any_tower(adapter: Path) -> bool:
    """Whether a layer outside the decoder is among the adapter's."""
    names = load_file(adapter / "adapter_model.safetensors")
    return any(part in name for name in names for part in ("visual.", "vision_", "audio_tower.", "projector."))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_peft(
    name: str, targets: str, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkpoint(name)
    model = write(name, base, tmp_path / "adapter", targets)
    family, decoder, encoders = load(base)
    media = items(base, family, 2) if name in MEDIA_FAMILIES else []
    prompt = build_prompt(base, family, media)
    wanted = logits_of(model, base, name, prompt.token_ids, media, monkeypatch)
    lora = load_lora(base, tmp_path / "adapter")
    assert lora.parts == {"decoder", *(encoders if any_tower(tmp_path / "adapter") else ())}
    assert targets != "all-linear" or len(lora.parts) == 1 + len(encoders)
    for encoder in encoders.values():
        encoder.sites.lanes.groups = ((lora, None),)
    try:
        found = our_logits(decoder, encoders, prompt, lora)
    finally:
        for encoder in encoders.values():
            encoder.sites.lanes.groups = ()
    plain = our_logits(decoder, encoders, prompt)
    assert (wanted - plain).abs().max() > 0.05, "the adapter changes nothing: the comparison would be void"
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("targets", ["all-linear", "patterns"])
@pytest.mark.parametrize("name", FAMILIES)
def test_merged_equals_merge_and_unload(
    name: str, targets: str, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkpoint(name)
    model = write(name, base, tmp_path / "adapter", targets)
    with torch.inference_mode(False):
        unloaded = model.merge_and_unload().eval()
    merged = merge(str(tmp_path / "adapter"), str(base), tmp_path / "adapter-merged")
    again = loader(name).from_pretrained(merged, dtype=torch.float32).eval()  # the official layout, read by others
    theirs, ours = unloaded.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    for key, tensor in theirs.items():
        assert torch.equal(tensor, ours[key]), key
    family, decoder, encoders = load(merged)
    media = items(base, family, 1) if name in MEDIA_FAMILIES else []
    prompt = build_prompt(base, family, media)
    wanted = logits_of(unloaded, base, name, prompt.token_ids, media, monkeypatch)
    torch.testing.assert_close(our_logits(decoder, encoders, prompt), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "internvl", "qwen2_audio"])
def test_names_of_older_transformers_are_the_same_layers(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint(name)
    write(name, base, tmp_path / "new", "all-linear")
    new = load_file(tmp_path / "new" / "adapter_model.safetensors")
    older = {key: _older(name, key) for key in new}
    assert all(old != key for key, old in older.items())
    (tmp_path / "old").mkdir()
    save_file({older[key]: tensor for key, tensor in new.items()}, tmp_path / "old" / "adapter_model.safetensors")
    config = (tmp_path / "new" / "adapter_config.json").read_text()
    (tmp_path / "old" / "adapter_config.json").write_text(config)
    now, then = load_lora(base, tmp_path / "new"), load_lora(base, tmp_path / "old")
    assert now.pairs.keys() == then.pairs.keys()
    assert now.parts == then.parts
    for layer, pair in now.pairs.items():
        order, other = pair.down.sum(1).argsort(), then.pairs[layer].down.sum(1).argsort()
        assert torch.equal(pair.down[order], then.pairs[layer].down[other])
        assert torch.equal(pair.up[order], then.pairs[layer].up[other])


def _older(name: str, key: str) -> str:
    """The name PEFT gave the tensor when the classes were those of transformers 4 before 4.52."""
    inner = key.removeprefix("base_model.model.model.")
    if name.startswith("qwen") and name != "qwen2_audio":
        inner = inner.replace("language_model.", "model.", 1)
    else:
        inner = inner.replace("language_model.", "language_model.model.", 1)
    return f"base_model.model.{inner}"


def test_bin_files_of_old_pefts_are_read(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("qwen2")
    write("qwen2", base, tmp_path, "list")
    wanted = load_lora(base, tmp_path)
    torch.save(load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    found = load_lora(base, tmp_path)
    assert all(torch.equal(found.pairs[layer].up, pair.up) for layer, pair in wanted.pairs.items())


def test_modules_to_save_are_merged_and_not_run_unmerged(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkpoint("llama")
    torch.manual_seed(3)
    with torch.inference_mode(False):
        config = peft.LoraConfig(
            init_lora_weights=False, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]
        )
        model = peft.get_peft_model(loader("llama").from_pretrained(base, dtype=torch.float32), config)
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / "adapter")
        unloaded = model.merge_and_unload().eval()
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["modules_to_save"] == ["lm_head", "embed_tokens"]
    with pytest.raises(Exception, match=r"modules_to_save.*embed_tokens.weight.*sensorium merge-lora"):
        load_lora(base, tmp_path / "adapter")
    merged = merge(str(tmp_path / "adapter"), str(base), tmp_path / "merged")
    ours = loader("llama").from_pretrained(merged, dtype=torch.float32).state_dict()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in unloaded.state_dict().items())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"lora_bias": True}, "lora_bias True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"target_modules": ["embed_tokens"]}, "LoRA on embeddings"),
        ({"layer_replication": [(0, 2), (1, 3)]}, "layer_replication"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    options: dict[str, Any], named: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = checkpoint("qwen2")
    with torch.inference_mode(False):
        config = peft.LoraConfig(**{"target_modules": ["q_proj", "v_proj"], "r": 4, **options})
        model = loader("qwen2").from_pretrained(base, dtype=torch.float32)
        peft.get_peft_model(model, config).save_pretrained(tmp_path)
    with pytest.raises(Exception, match=named):
        load_lora(base, tmp_path)
    with pytest.raises(Exception, match=named):
        merge(str(tmp_path), str(base), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
