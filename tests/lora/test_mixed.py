"""Base and adapters in one batch: everybody gets what he gets alone, however the work is cut and cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.errors import ConfigurationError
from sensorium.lora.merge import merge
from tests.checkpoint_chat import write_internvl_chat
from tests.checkpoints import FAMILIES, MEDIA_FAMILIES, make_checkpoint
from tests.families.conftest import Checkpoint
from tests.families.conftest import _no_grad as _no_grad
from tests.families.conftest import checkpoint as checkpoint
from tests.families.test_minicpm_parity import minicpm as minicpm
from tests.families.test_minicpm_parity import pictures, prompt_with
from tests.families.test_parity import build_prompt, items, load, our_logits
from tests.families.test_qwen_parity import SEEN, TEXT_ONLY, prompt_of
from tests.families.test_qwen_parity import qwen as qwen
from tests.lora.running import adapted, answers, load_lora
from tests.lora.writing import decoder_layers, merge_by_hand, write_adapter

ATTENTION, MLP = ("q_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
TOWER = {
    "qwen2_vl": "visual.blocks.1.attn.qkv",
    "qwen2_5_vl": "visual.merger.mlp.0",
    "qwen3_vl": "model.visual.deepstack_merger_list.1.linear_fc1",
    "llava": "multi_modal_projector.linear_1",
    "internvl": "vision_tower.encoder.layer.1.mlp.fc2",
    "qwen2_audio": "audio_tower.layers.0.self_attn.v_proj",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixed_batch_gives_what_each_gets_alone(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint(name)
    family, decoder, encoders = load(base)
    media = items(base, family, 2) if name in MEDIA_FAMILIES else []
    prompt = build_prompt(base, family, media)
    towers = [TOWER[name]] if name in TOWER else []
    first = load_lora(base, write_adapter(tmp_path / "a", base, decoder_layers(base, *ATTENTION), seed=1))
    layers = [*decoder_layers(base, *MLP), *towers]
    second = load_lora(base, write_adapter(tmp_path / "b", base, layers, seed=2))
    prompts = [adapted(prompt, lora) for lora in (None, first, second)]
    alone = [answers(decoder, encoders, [each])[0] for each in prompts]
    assert len({tuple(tokens) for tokens in alone}) == 3, "the adapters must make a difference"
    assert answers(decoder, encoders, prompts) == alone
    for limits in ({"max_num_batched_tokens": 7}, {"max_num_batched_tokens": 33, "num_blocks": 48}):
        # In another order, with repetitions: prefixes are found in the cache, and only one's own.
        order = [2, 0, 1, 1, 2, 0]
        assert answers(decoder, encoders, [prompts[i] for i in order], **limits) == [alone[i] for i in order]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava"])
def test_a_tower_is_changed_for_its_adapter_only(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint(name)
    family, decoder, encoders = load(base)
    prompt = build_prompt(base, family, items(base, family, 1))
    lora = load_lora(base, write_adapter(tmp_path, base, [TOWER[name]], strength=2.0))
    assert lora.parts == {"vision"}
    plain, changed = (answers(decoder, encoders, [each])[0] for each in (prompt, adapted(prompt, lora)))
    assert plain != changed
    assert answers(decoder, encoders, [adapted(prompt, lora), prompt, prompt]) == [changed, plain, plain]


@pytest.mark.parametrize("decoder_kind", ["qwen2", "internlm2"])
def test_internvl_of_its_authors(decoder_kind: str, tmp_path: Path) -> None:
    base = tmp_path / "chat"
    write_internvl_chat(tmp_path / "hf", base, decoder_kind)
    ends = ("wqkv", "wo", "w1", "w2", "w3") if decoder_kind == "internlm2" else ("q_proj", "k_proj", "up_proj")
    layers = [*decoder_layers(base, *ends), "vision_model.encoder.layers.0.attn.qkv", "mlp1.1", "mlp1.3"]
    layers.append("vision_model.encoder.layers.1.attn.proj")
    adapter = write_adapter(tmp_path / "adapter", base, layers)
    check_unmerged_is_merged(base, adapter, tmp_path)


@pytest.mark.parametrize("version", ["2.5", "2.6", "4.0"])
def test_minicpm(version: str, minicpm: Callable[[str], Path], tmp_path: Path) -> None:
    base = minicpm(version)
    layers = decoder_layers(base, "q_proj", "k_proj", "down_proj", "kv_proj")
    assert "resampler.kv_proj" in [name.removesuffix(".weight") for name in layers]
    layers += ["vpm.encoder.layers.0.self_attn.k_proj", "vpm.encoder.layers.1.mlp.fc1"]
    adapter = write_adapter(tmp_path / "adapter", base, layers)
    check_unmerged_is_merged(base, adapter, tmp_path, prompt_with(base, pictures(base, [(300, 500)], most=2)))


@pytest.mark.parametrize("name", ["qwen", "qwen_vl"])
def test_the_first_qwen(name: str, qwen: Callable[[str], Path], tmp_path: Path) -> None:
    base = qwen(name)
    layers = decoder_layers(base, "c_attn", "attn.c_proj", "w1", "w2", "mlp.c_proj")
    assert any("c_attn" in layer for layer in layers)
    adapter = write_adapter(tmp_path / "adapter", base, layers)
    chat = next(iter(SEEN if name == "qwen_vl" else TEXT_ONLY))
    check_unmerged_is_merged(base, adapter, tmp_path, prompt_of(chat, base))


def check_unmerged_is_merged(base: Path, adapter: Path, output: Path, prompt: object = None) -> None:
    """Beside the weights = weights merged by hand = merged by us."""
    family, decoder, encoders = load(base)
    lora = load_lora(base, adapter)
    wanted = prompt or build_prompt(base, family, items(base, family, 2))
    for encoder in encoders.values():
        encoder.sites.lanes.groups = ((lora, None),)
    try:
        found = our_logits(decoder, encoders, wanted, lora)
    finally:
        for encoder in encoders.values():
            encoder.sites.lanes.groups = ()
    plain = our_logits(decoder, encoders, wanted)
    assert (found - plain).abs().max() > 0.05
    for merged in (merge_by_hand(base, adapter, output / "hand"), merge(str(adapter), None, output / "ours")):
        _, decoder, encoders = load(merged)
        torch.testing.assert_close(found, our_logits(decoder, encoders, wanted), atol=1e-4, rtol=0)


def test_every_layer_of_a_merged_model_is_the_one_merged_by_hand(tmp_path: Path) -> None:
    make_checkpoint("qwen3", tmp_path / "base", shards=3)
    make_checkpoint("qwen3", tmp_path / "whole")
    layers = decoder_layers(tmp_path / "whole", *ATTENTION, *MLP)
    adapter = write_adapter(tmp_path / "adapter", tmp_path / "whole", layers, prefix="")
    merged = merge(str(adapter), str(tmp_path / "base"), tmp_path / "merged")
    assert sorted(file.name for file in merged.iterdir()) == sorted(file.name for file in (tmp_path / "base").iterdir())
    _, decoder, _ = load(merged)
    _, by_hand, _ = load(merge_by_hand(tmp_path / "whole", adapter, tmp_path / "hand"))
    family, *_ = load(tmp_path / "whole")
    prompt = build_prompt(tmp_path / "whole", family, [])
    torch.testing.assert_close(our_logits(decoder, {}, prompt), our_logits(by_hand, {}, prompt), atol=1e-5, rtol=0)


def test_a_foreign_adapter_is_refused_with_names_and_shapes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base, other = checkpoint("qwen2"), checkpoint("qwen3")
    foreign = write_adapter(tmp_path / "foreign", other, decoder_layers(other, "q_proj", "k_norm", "up_proj"))
    with pytest.raises(
        ConfigurationError, match=r"3 of the 6 layers .* model\.layers\.0\.self_attn\.q_proj .*\(64, 64\)"
    ):
        load_lora(base, foreign)
    tower = write_adapter(
        tmp_path / "tower", checkpoint("llava"), ["vision_tower.vision_model.encoder.layers.0.mlp.fc1"]
    )
    with pytest.raises(ConfigurationError, match=r"1 of the 1 layers .*vision_tower\..*there is no such linear layer"):
        load_lora(base, tower)
    with pytest.raises(
        ConfigurationError, match=r"does not fit the base's model\.layers\.\d\.self_attn\.q_proj\.weight"
    ):
        merge(str(foreign), str(base), tmp_path / "merged")
    with pytest.raises(ConfigurationError, match="has rank 4; the limit is 2"):
        load_lora(other, foreign, max_rank=2)
    assert not list(tmp_path.glob("*merged*"))


def test_broken_files_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("qwen2")
    adapter = write_adapter(tmp_path, base, decoder_layers(base, "q_proj"))
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match="damaged or cut short"):
        load_lora(base, adapter)
    weights.unlink()
    with pytest.raises(ConfigurationError, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        load_lora(base, adapter)
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(ConfigurationError, match="holds other things than tensors"):
        load_lora(base, adapter)
    (adapter / "adapter_model.bin").unlink()
    weights.write_bytes(whole)
    for config, message in (
        ("[]", "not a JSON object"),
        ("{}", "lacks r"),
        ('{"r": 0}', "rank below 1"),
        ("{", "JSON"),
    ):
        (adapter / "adapter_config.json").write_text(config)
        with pytest.raises(ConfigurationError, match=message):
            load_lora(base, adapter)
    (adapter / "adapter_config.json").write_text('{"r": 4, "peft_type": "IA3"}')
    with pytest.raises(ConfigurationError, match="peft_type 'IA3'"):
        load_lora(base, adapter)


def test_values_that_are_not_finite_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("qwen2")
    adapter = write_adapter(tmp_path, base, decoder_layers(base, "q_proj"), strength=float("nan"))
    with pytest.raises(ConfigurationError, match=r"lora_B\.weight' holds values that are not finite"):
        load_lora(base, adapter)


def test_what_was_computed_with_an_adapter_is_found_again_with_it_only(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("qwen2")
    prompt = build_prompt(base, load(base)[0], [])
    prompt = replace(prompt, token_ids=prompt.token_ids * 5)
    lora = load_lora(base, write_adapter(tmp_path / "a", base, decoder_layers(base, "k_proj"), seed=1))
    other = load_lora(base, write_adapter(tmp_path / "b", base, decoder_layers(base, "k_proj"), seed=2))
    same = load_lora(base, tmp_path / "a")
    from sensorium.engine.sequence import Sequence
    from sensorium.types import SamplingParams

    def hashes(lora: object) -> list[bytes]:
        each = adapted(prompt, lora)  # type: ignore[arg-type]
        return list(Sequence(("a", 0), each, SamplingParams(), 1, frozenset(), seed=0).hashes_up_to(2, 8))

    assert hashes(lora) == hashes(same)
    assert not set(hashes(lora)) & (set(hashes(other)) | set(hashes(None)))


def test_bin_bases_are_merged_into_safetensors(tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_checkpoint("qwen2", base)
    adapter = write_adapter(tmp_path / "adapter", base, decoder_layers(base, "q_proj"))
    by_hand = load_file(merge_by_hand(base, adapter, tmp_path / "hand") / "model.safetensors")
    weights = load_file(base / "model.safetensors")
    torch.save(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    merged = merge(str(adapter), None, tmp_path / "merged")
    assert not list(merged.glob("*.bin"))
    found = load_file(merged / "model.safetensors")
    assert all(torch.allclose(found[name], tensor, atol=1e-6) for name, tensor in by_hand.items())


def test_a_head_tied_to_the_embeddings_runs_but_is_not_merged(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("qwen2")
    adapter = write_adapter(tmp_path / "adapter", base, ["model.embed_tokens"])
    renamed = {name.replace("model.embed_tokens", "lm_head"): tensor for name, tensor in _tensors(adapter).items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    family, decoder, _ = load(base)
    prompt = build_prompt(base, family, [])
    lora = load_lora(base, adapter)
    assert answers(decoder, {}, [prompt, adapted(prompt, lora), prompt]) == [
        answers(decoder, {}, [each])[0] for each in (prompt, adapted(prompt, lora), prompt)
    ]
    with pytest.raises(ConfigurationError, match="in common with its embeddings"):
        merge(str(adapter), str(base), tmp_path / "merged")


def _tensors(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")
