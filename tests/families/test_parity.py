"""Whole models against transformers: logits of every position, and greedy tokens through the engine."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorium.engine.engine import Engine, EngineLimits
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.families import find
from sensorium.families.family import Encoder, EncoderInput, Family, MediaSpan
from sensorium.model.attention import make_plan
from sensorium.model.decoder import Decoder, Step
from sensorium.model.lora import Lora
from sensorium.model.weights import load_weights
from sensorium.types import SamplingParams
from tests.checkpoint_chat import write_internvl_chat
from tests.checkpoints import FAMILIES, MEDIA_FAMILIES
from tests.families.conftest import Checkpoint, image_processor, read_checkpoint, read_config
from tests.families.parity import Claim, Parity
from tests.families.reference import reference_logits

CPU = torch.device("cpu")
IMAGE_SIZES = [(120, 90), (60, 260), (224, 224)]  # (height, width)
NUM_SAMPLES = [20000, 48000, 7777]
NUM_OUTPUT = 12
SIDES = ("start", "end")


@cache
def load(path: Path) -> tuple[Family, Decoder, dict[str, Encoder]]:
    config = read_config(path)
    family = find(config)
    weights = load_weights(path, family.rename, torch.float32, CPU, lambda phase, fraction: None)
    encoders = {name: make(config, torch.float32, CPU) for name, make in family.encoders.items()}
    for name, encoder in encoders.items():
        encoder.load(weights[name])
    tensors = family.convert(config, weights["decoder"]) if family.convert else weights["decoder"]
    return family, Decoder(family.decoder(config), tensors), encoders


def items(path: Path, family: Family, count: int) -> list[EncoderInput]:
    """Return `count` pictures; of a family that only hears, sounds."""
    rng = np.random.default_rng(11)
    if "image" not in family.media:
        hear = family.media["audio"].processor(read_checkpoint(path))
        return [hear(rng.normal(0, 0.1, n).astype(np.float32), {}) for n in NUM_SAMPLES[:count]]
    processor = image_processor(path, family)
    return [processor(rng.integers(0, 256, (h, w, 3), dtype=np.uint8), {}) for h, w in IMAGE_SIZES[:count]]


def build_prompt(path: Path, family: Family, images: list[EncoderInput], keys: str = "") -> Prompt:
    """Return text, then each image (Qwen's between its two markers) and some more text."""
    rng = np.random.default_rng(3)
    config = read_config(path)
    token_ids = rng.integers(0, 560, 9).tolist()
    spans = []
    around = [[config[f"vision_{side}_token_id"]] if f"vision_{side}_token_id" in config else [] for side in SIDES]
    for index, image in enumerate(images):
        token_ids += around[0]
        spans.append(MediaSpan(len(token_ids), f"{keys}{index}".encode(), image.layout))
        media = family.media.get("image") or family.media["audio"]
        placeholder = media.placeholder(read_checkpoint(path))
        token_ids += image.layout.token_ids or [placeholder] * image.layout.num_slots
        token_ids += [*around[1], *rng.integers(0, 560, index + 1).tolist()]
    if family.positions is None:
        return Prompt(token_ids, tuple(spans), tuple(images))
    positions, delta = family.positions(len(token_ids), spans, config)
    return Prompt(token_ids, tuple(spans), tuple(images), positions=positions, position_delta=delta)


def our_logits(
    decoder: Decoder, encoders: dict[str, Encoder], prompt: Prompt, lora: Lora | None = None
) -> torch.Tensor:
    """Return (n, vocab_size) logits of one forward pass over the whole prompt, `lora` beside the decoder's weights."""
    num_tokens = len(prompt.token_ids)
    rows, features = None, None
    if prompt.inputs:
        (encoder,) = encoders.values()
        *_, encoded = encoder.encode([item for item in prompt.inputs if item is not None])
        assert encoded is not None
        features = torch.cat(encoded)
        rows = torch.cat(
            [torch.from_numpy(span.layout.slots(0, span.length)[0]) + span.offset for span in prompt.spans]
        )
    positions = np.arange(num_tokens) if prompt.positions is None else prompt.positions
    step = Step(
        token_ids=torch.tensor(prompt.token_ids),
        positions=torch.from_numpy(positions),
        plan=make_plan([(0, num_tokens, range(1, 41))], 16, torch.float32, CPU),
        logit_rows=torch.arange(num_tokens),
        media_rows=rows,
        media_features=features,
        adapters=((lora, None),) if lora else (),
        logit_adapters=((lora, None),) if lora else (),
    )
    return decoder.forward(step, decoder.new_cache(num_blocks=41, block_size=16))


CASES = [(name, count) for name in FAMILIES for count in ((0, 1, 3) if name in MEDIA_FAMILIES else (0,))]


@pytest.mark.parametrize("layout", ["hub", "saved"])
@pytest.mark.parametrize(("name", "num_images"), CASES)
def test_logits_equal_transformers(
    name: str, num_images: int, layout: str, checkpoint: Checkpoint, parity: Parity
) -> None:
    path = checkpoint(name, layout)
    family, decoder, encoders = load(path)
    images = items(path, family, num_images) if num_images else []
    prompt = build_prompt(path, family, images)
    wanted = reference_logits(path, name, prompt.token_ids, images)
    found = our_logits(decoder, encoders, prompt)
    assert wanted.std() > 0.5
    kind: Claim = "audio" if "image" not in family.media else "image"
    parity.close(name, "text" if not num_images else kind if num_images == 1 else "several", found, wanted)
    if layout == "hub":
        parity.holds(name, "layout")


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_equal_transformers(name: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    family, decoder, encoders = load(path)
    images = items(path, family, 2) if name in MEDIA_FAMILIES else []
    prompt = build_prompt(path, family, images)
    engine = Engine(decoder, encoders, EngineLimits(num_blocks=64, block_size=8, max_num_batched_tokens=40))
    sequence = Sequence(("a", 0), prompt, SamplingParams(temperature=0.0), NUM_OUTPUT, frozenset(), seed=0)
    assert engine.add(sequence)
    while len(sequence.token_ids) < len(prompt.token_ids) + NUM_OUTPUT:
        engine.step()
    engine.remove(sequence)

    wanted = list(prompt.token_ids)
    for _ in range(NUM_OUTPUT):
        # The whole prefix again each time: transformers' positions of generated tokens are tested as well.
        wanted.append(int(reference_logits(path, name, wanted, images)[-1].argmax()))
    assert sequence.token_ids == wanted


@pytest.mark.parametrize("name", MEDIA_FAMILIES)
def test_however_the_work_is_cut_the_tokens_are_the_same(name: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    family, decoder, encoders = load(path)
    prompt = build_prompt(path, family, items(path, family, 2))
    found = []
    for cached in (False, True):
        for chunk in (1, 7, 64, 2048):
            limits = EngineLimits(128, 8, max_num_batched_tokens=chunk, prefix_caching=cached)
            engine = Engine(decoder, encoders, limits)
            for _ in range(1 + cached):  # the second time most of it is in the cache
                sequence = Sequence(("a", 0), prompt, SamplingParams(temperature=0.0), 6, frozenset(), seed=0)
                assert engine.add(sequence)
                while sequence.num_output_tokens < 6:
                    engine.step()
                engine.remove(sequence)
                found.append(sequence.token_ids[sequence.num_prompt_tokens :])
            assert sequence.num_cached > 0 or not cached
    assert all(tokens == found[0] for tokens in found)


@pytest.mark.parametrize("decoder_kind", ["qwen2", "internlm2"])
def test_internvl_of_its_authors_is_internvl(decoder_kind: str, tmp_path: Path, parity: Parity) -> None:
    """The same weights under the authors' names give transformers' logits of the layout it can read."""
    hf, chat = tmp_path / "hf", tmp_path / "chat"
    write_internvl_chat(hf, chat, decoder_kind)
    family, decoder, encoders = load(chat)
    assert family.name == "internvl_chat"
    by_transformers = find(read_config(hf))
    counts: list[tuple[int, Claim]] = [(0, "text"), (1, "image"), (3, "several")]
    for count, claim in counts:
        images = items(chat, family, count)
        prompt = build_prompt(chat, family, images)
        assert prompt.token_ids == build_prompt(hf, by_transformers, items(hf, by_transformers, count)).token_ids
        wanted = reference_logits(hf, "internvl", prompt.token_ids, images)
        parity.close("internvl_chat", claim, our_logits(decoder, encoders, prompt), wanted)
    parity.holds("internvl_chat", "layout")
