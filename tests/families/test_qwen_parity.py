"""The first Qwen and Qwen-VL against their authors' own code: tower, logits, greedy tokens, however the work is cut."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.engine import Engine, EngineLimits
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.errors import ConfigurationError
from sensorium.families import find
from sensorium.families.family import EncoderInput, MediaSpan
from sensorium.model.attention import make_plan
from sensorium.model.decoder import Step
from sensorium.model.rope import prompt_table
from sensorium.model.weights import load_weights
from sensorium.types import SamplingParams
from tests.families.conftest import image_processor, read_config
from tests.families.make_qwen_golden import CHATS, COLUMNS, EACH_ROW, PIXELS, SIZES
from tests.families.parity import Claim, Parity
from tests.families.test_encoders import encoder_weights, run
from tests.families.test_parity import CPU, load
from tests.qwen_checkpoints import NUM_RANKS, QUERIES, SEQ_LENGTH, make_qwen, qwen_config, qwen_picture, qwen_shapes

AUTHORS = "the authors' code (`qwen_golden.json`)"
GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("qwen_golden.json").read_text())
SEEN = [name for name, chat in CHATS.items() if any(part in SIZES for _, parts in chat for part in parts)]
TEXT_ONLY = [name for name in CHATS if name not in SEEN]


@cache
def arrays() -> dict[str, torch.Tensor]:
    with np.load(Path(__file__).with_name("qwen_golden.npz")) as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def build(name: str) -> Path:
        path = tmp_path_factory.mktemp(name)
        make_qwen(name, path)
        return path

    return build


def pictures(path: Path) -> dict[str, EncoderInput]:
    processor = image_processor(path)
    return {file: processor(qwen_picture(*size, seed), {}) for seed, (file, size) in enumerate(SIZES.items())}


def prompt_of(name: str, path: Path) -> Prompt:
    """The authors' ids, with the pictures behind the rows of <imgpad>."""
    ids = GOLDEN["chats"][name]["ids"]
    files = [part for _, parts in CHATS[name] for part in parts if part in SIZES]
    starts = [at + 1 for at, token_id in enumerate(ids) if token_id == NUM_RANKS + 214]
    items = pictures(path) if files else {}
    spans = [MediaSpan(at, file.encode(), items[file].layout) for at, file in zip(starts, files, strict=True)]
    return Prompt(ids, tuple(spans), tuple(items[file] for file in files))


def logits_of(name: str, path: Path) -> torch.Tensor:
    """Return (n, vocab_size) logits of one pass over the whole prompt."""
    _, decoder, encoders = load(path)
    prompt = prompt_of(name, path)
    num_tokens = len(prompt.token_ids)
    rows = features = None
    if prompt.inputs:
        rows = torch.cat([torch.arange(span.offset, span.offset + QUERIES) for span in prompt.spans])
        features = torch.cat(run(encoders["vision"], [item for item in prompt.inputs if item is not None]))
    step = Step(
        token_ids=torch.tensor(prompt.token_ids),
        positions=torch.arange(num_tokens),
        plan=make_plan([(0, num_tokens, range(1, 41))], 16, torch.float32, CPU),
        logit_rows=torch.arange(num_tokens),
        rope_rows=torch.full((num_tokens,), prompt_table(num_tokens, decoder.config)),
        media_rows=rows,
        media_features=features,
    )
    return decoder.forward(step, decoder.new_cache(num_blocks=41, block_size=16))


def answer(engine: Engine, prompt: Prompt, count: int) -> tuple[list[int], int]:
    """Greedy tokens, and how much of the prompt was cached."""
    sequence = Sequence(("a", 0), prompt, SamplingParams(temperature=0.0), count, frozenset(), seed=0)
    assert engine.add(sequence)
    while sequence.num_output_tokens < count:
        engine.step()
    engine.remove(sequence)
    return sequence.token_ids[sequence.num_prompt_tokens :], sequence.num_cached


def test_pixels_equal_the_authors(qwen: Callable[[str], Path]) -> None:
    processor = image_processor(qwen("qwen_vl"))
    assert [row[:2] for row in GOLDEN["pixels"]] == [list(size) for size in PIXELS]
    for seed, (height, width, digest) in enumerate(GOLDEN["pixels"]):
        item = processor(qwen_picture(height, width, seed), {})
        pixels = item.tensors["pixel_values"]
        assert pixels.shape == (1, 3, 448, 448)
        assert item.layout == processor.layout(height, width, {})
        assert item.layout.length == QUERIES
        assert blake2b(pixels.numpy().tobytes(), digest_size=16).hexdigest() == digest, (height, width)


def test_features_equal_the_authors(qwen: Callable[[str], Path]) -> None:
    path = qwen("qwen_vl")
    _, _, encoders = load(path)
    items = list(pictures(path).values())
    for item, ours, theirs in zip(items, run(encoders["vision"], items), arrays()["features"], strict=True):
        assert ours.shape == (QUERIES, encoders["vision"].out_features)
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours[:, ::COLUMNS], theirs, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours, run(encoders["vision"], [item])[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "family"), [*((name, "qwen_vl") for name in CHATS), *((name, "qwen") for name in TEXT_ONLY)]
)
def test_logits_equal_the_authors(name: str, family: str, qwen: Callable[[str], Path], parity: Parity) -> None:
    found = logits_of(name, qwen(family))
    wanted = arrays()[f"{name} logits"]
    assert wanted.std() > 0.5
    count = sum(part in SIZES for _, parts in CHATS[name] for part in parts)
    claims: tuple[Claim, ...] = ("text", "image", "several")
    parity.close(family, claims[min(count, 2)], found[::EACH_ROW, ::COLUMNS], wanted, reference=AUTHORS)
    torch.testing.assert_close(torch.logsumexp(found, -1), arrays()[f"{name} sums"], atol=1e-4, rtol=0)
    parity.holds(family, "layout", AUTHORS)


def test_the_chats_take_every_way_to_long_texts() -> None:
    config = find(qwen_config("qwen_vl")).decoder(qwen_config("qwen_vl"))
    lengths = {name: len(chat["ids"]) for name, chat in GOLDEN["chats"].items()}
    assert {prompt_table(length, config) for length in lengths.values()} == {0, 1, 2, 3}
    assert lengths["growing"] < SEQ_LENGTH < lengths["growing"] + len(GOLDEN["chats"]["growing"]["answer"])
    for length in range(1, 1025):  # their formula
        alpha = max(2 ** math.ceil(math.log(length / SEQ_LENGTH, 2) + 1) - 1, 1)
        assert 2 ** (prompt_table(length, config) + 1) - 1 == alpha


@pytest.mark.parametrize("chunk", [1, 7, 64, 2048])
@pytest.mark.parametrize("name", CHATS)
def test_greedy_tokens_equal_the_authors(name: str, chunk: int, qwen: Callable[[str], Path]) -> None:
    """Chunks end inside, before and behind pictures; the second time most of the prompt is in the cache."""
    path = qwen("qwen_vl")
    _, decoder, encoders = load(path)
    wanted = GOLDEN["chats"][name]["answer"]
    prompt = prompt_of(name, path)
    engine = Engine(decoder, encoders, EngineLimits(100, 8, max_num_batched_tokens=chunk))
    for again in (False, True):
        found, num_cached = answer(engine, prompt, len(wanted))
        assert found == wanted
        assert num_cached == ((len(prompt.token_ids) - 1) // 8 * 8 if again else 0)


def test_prompts_of_all_lengths_run_side_by_side(qwen: Callable[[str], Path]) -> None:
    """In one batch, with room for their prompts only: one is put off, computed again, and turns as before."""
    _, decoder, _ = load(qwen("qwen"))
    prompts = [Prompt(GOLDEN["chats"]["longer"]["ids"][:length]) for length in (50, 100, 150, 200, 270, 517)]
    blocks = sum(-(-len(prompt.token_ids) // 8) for prompt in prompts)
    engine = Engine(decoder, {}, EngineLimits(blocks + 5, 8, prefix_caching=False))
    sequences = [
        Sequence((f"{number}", 0), prompt, SamplingParams(temperature=0.0), 20, frozenset(), seed=0)
        for number, prompt in enumerate(prompts)
    ]
    for sequence in sequences:
        assert engine.add(sequence)
    going = list(sequences)
    while going:
        engine.step()
        for sequence in [s for s in going if s.num_output_tokens >= 20]:
            engine.remove(sequence)
            going.remove(sequence)
    assert engine.scheduler.num_preemptions
    assert len({sequence.rope_row for sequence in sequences}) == 4
    for sequence in sequences:
        alone = Engine(decoder, {}, EngineLimits(100, 8))
        assert sequence.token_ids[sequence.num_prompt_tokens :] == answer(alone, sequence.prompt, 20)[0]


def test_a_longer_prompt_takes_no_keys_of_a_shorter_one(qwen: Callable[[str], Path]) -> None:
    path = qwen("qwen")
    _, decoder, _ = load(path)
    ids = GOLDEN["chats"]["longer"]["ids"]
    engine = Engine(decoder, {}, EngineLimits(300, 8))
    found = {length: answer(engine, Prompt(ids[:length]), 4) for length in (100, 128, 129, 200, 257, 300)}
    assert [cached for _, cached in found.values()] == [0, 96, 0, 128, 0, 256]
    for length, (tokens, _) in found.items():
        alone = Engine(decoder, {}, EngineLimits(300, 8, prefix_caching=False))
        assert answer(alone, Prompt(ids[:length]), 4)[0] == tokens


def test_weights_in_torchs_format_are_the_same(qwen: Callable[[str], Path], tmp_path: Path) -> None:
    make_qwen("qwen_vl", tmp_path, suffix="bin")
    family = find(read_config(tmp_path))
    old, new = (
        load_weights(path, family.rename, torch.float32, CPU, lambda phase, fraction: None)
        for path in (tmp_path, qwen("qwen_vl"))
    )
    assert {part: sorted(tensors) for part, tensors in old.items()} == {
        part: sorted(tensors) for part, tensors in new.items()
    }
    assert all(torch.equal(tensor, new[part][name]) for part in old for name, tensor in old[part].items())


def test_bfloat16_stays_near_float32(qwen: Callable[[str], Path]) -> None:
    path = qwen("qwen_vl")
    family, _, encoders = load(path)
    rounded = family.encoders["vision"](read_config(path), torch.bfloat16, CPU)
    rounded.load({name: tensor.bfloat16() for name, tensor in encoder_weights(path, family).items()})
    items = list(pictures(path).values())
    for ours, wanted in zip(run(rounded, items), run(encoders["vision"], items), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - wanted).norm() / wanted.norm() < 0.03


def test_real_sizes_fit_the_published_names() -> None:
    config = qwen_config("qwen_vl") | {
        "hidden_size": 4096, "intermediate_size": 22016, "kv_channels": 128, "num_attention_heads": 32,
        "num_hidden_layers": 32, "max_position_embeddings": 8192, "seq_length": 2048, "vocab_size": 151936,
        "visual": {
            "heads": 16, "image_size": 448, "image_start_id": 151857, "layers": 48, "mlp_ratio": 4.9231,
            "output_dim": 4096, "patch_size": 14, "width": 1664,
        },
    }  # fmt: skip
    family = find(config)
    found = family.decoder(config)
    assert (found.intermediate_size, found.head_dim, found.num_key_value_heads) == (11008, 128, 32)
    assert (found.ntk_length, found.logn_length, found.max_position_embeddings) == (2048, 2048, 8192)
    tower: Any = family.encoders["vision"](config, torch.bfloat16, CPU)
    assert (tower.num_queries, tower.config.num_layers, tower.config.intermediate_size) == (256, 48, 8192)
    targets = [family.rename(name) for name in qwen_shapes("qwen_vl")]
    assert len(set(targets)) == len(targets)
    assert family.rename("transformer.h.3.attn.masked_bias") is None
    off = find(config).decoder(config | {"use_dynamic_ntk": False, "use_logn_attn": False})
    assert (off.ntk_length, off.logn_length) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"no_bias": False}, "no_bias false"),
        ({"rotary_pct": 0.5}, "partial_rotary_factor 'other than 1'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config 'gptq'"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"visual": None, "audio": {"n_mels": 80}}, "'QWenLMHeadModel audio' is not supported"),
    ],
)
def test_what_cannot_be_served_is_named(change: dict[str, Any], message: str) -> None:
    config = qwen_config("qwen_vl") | change
    with pytest.raises(ConfigurationError, match=message):
        find(config).decoder(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": None}, "lacks width"),
        ({"output_dim": 128}, "output_dim 128, the decoder hidden_size 256"),
        ({"n_queries": 15}, "n_queries 15"),
    ],
)
def test_what_is_wrong_with_a_tower_is_named(change: dict[str, Any], message: str) -> None:
    config = qwen_config("qwen_vl")
    config["visual"] = {key: value for key, value in (config["visual"] | change).items() if value is not None}
    with pytest.raises(ConfigurationError, match=message):
        find(config).encoders["vision"](config, torch.float32, CPU)


def test_missing_and_stray_tensors_are_named(qwen: Callable[[str], Path]) -> None:
    path = qwen("qwen_vl")
    family, *_ = load(path)
    weights = encoder_weights(path, family)
    make = family.encoders["vision"]
    missing = {name: tensor for name, tensor in weights.items() if name != "resampler.ln_kv.bias"}
    with pytest.raises(ConfigurationError, match=r"no tensor 'resampler\.ln_kv\.bias'"):
        make(read_config(path), torch.float32, CPU).load(missing)
    with pytest.raises(ConfigurationError, match=r"does not use: stray\.weight"):
        make(read_config(path), torch.float32, CPU).load(weights | {"stray.weight": torch.ones(7)})
