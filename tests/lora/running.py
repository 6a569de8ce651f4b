"""A tiny model with adapters, as the worker would have them, and batches of sequences through the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sensorium.engine.engine import Engine, EngineLimits
from sensorium.engine.sequence import Prompt
from sensorium.engine.sequence import Sequence as EngineSequence
from sensorium.families.family import Encoder
from sensorium.lora.fit import fit
from sensorium.lora.tensors import read_adapter
from sensorium.model.decoder import Decoder
from sensorium.model.lora import Lora
from sensorium.types import SamplingParams
from tests.families.conftest import read_config
from tests.families.test_parity import CPU, load


def load_lora(base: Path, adapter: Path, max_rank: int = 64) -> Lora:
    family, decoder, encoders = load(base)
    towers = {"decoder": decoder.sites} | {name: encoder.sites for name, encoder in encoders.items()}
    return fit(read_adapter(adapter), family, read_config(base), towers, torch.float32, CPU, max_rank)


def adapted(prompt: Prompt, lora: Lora | None) -> Prompt:
    """The prompt as the worker makes it for an adapter: with its key in salt and media keys."""
    if lora is None:
        return prompt
    mark = lora.key.encode() if lora.parts - {"decoder"} else b""
    spans = tuple(replace(span, key=mark + span.key) for span in prompt.spans)
    return replace(prompt, lora=lora, cache_salt=lora.key, spans=spans)


def answers(
    decoder: Decoder, encoders: Mapping[str, Encoder], prompts: Sequence[Prompt], num: int = 8, **limits: int
) -> list[list[int]]:
    """Greedy tokens of all prompts, run together."""
    engine = Engine(decoder, dict(encoders), EngineLimits(**{"num_blocks": 256, "block_size": 8, **limits}))
    sequences = [
        EngineSequence((str(i), 0), prompt, SamplingParams(temperature=0.0), num, frozenset(), seed=0)
        for i, prompt in enumerate(prompts)
    ]
    for sequence in sequences:
        assert engine.add(sequence)
    left = set(sequences)
    while left:
        result = engine.step()
        assert not result.failed
        for sequence in [sequence for sequence in left if sequence.num_output_tokens == num]:
            engine.remove(sequence)
            left.discard(sequence)
    return [sequence.token_ids[sequence.num_prompt_tokens :] for sequence in sequences]
