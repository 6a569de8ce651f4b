"""What transformers itself makes of the tiny checkpoints, and questions to ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from sensorium import LLM, SamplingParams
from sensorium.outputs import RequestOutput

LENGTH = 16
GREEDY = SamplingParams(temperature=0, max_tokens=LENGTH, ignore_eos=True)


def picture(number: int = 0, size: tuple[int, int] = (90, 50)) -> Image.Image:
    """Noise, (width, height)."""
    source = np.random.default_rng(number)
    return Image.fromarray(source.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def ask(text: str, *pictures: Image.Image) -> list[dict[str, Any]]:
    """One user message: pictures, then text."""
    shown: list[dict[str, Any]] = [{"type": "image", "image": image} for image in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}] if shown else text}]


def answer(llm: LLM, messages: Any, sampling: SamplingParams = GREEDY) -> RequestOutput:
    return llm.chat(messages, sampling, use_tqdm=False)[0]


def generated(path: Path, messages: list[dict[str, Any]], sees: bool) -> tuple[list[int], list[int]]:
    """Return the prompt's ids and the greedy tokens by transformers alone."""
    auto = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    processor = (transformers.AutoProcessor if sees else transformers.AutoTokenizer).from_pretrained(path)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    model = auto.from_pretrained(path)
    with torch.no_grad():
        made = model.generate(**inputs, do_sample=False, max_new_tokens=LENGTH, eos_token_id=None, pad_token_id=0)
    prompt = inputs["input_ids"][0].tolist()
    return prompt, made[0, len(prompt) :].tolist()


def generated_with(path: Path, messages: list[dict[str, Any]], **media: Any) -> tuple[list[int], list[int]]:
    """Return the prompt's ids and the greedy tokens by transformers alone; `media` is what its processor takes."""
    processor = transformers.AutoProcessor.from_pretrained(path)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], return_tensors="pt", add_special_tokens=False, **media)
    inputs = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    model = transformers.AutoModelForMultimodalLM.from_pretrained(path)
    with torch.no_grad():
        made = model.generate(**inputs, do_sample=False, max_new_tokens=LENGTH, eos_token_id=None, pad_token_id=0)
    prompt = inputs["input_ids"][0].tolist()
    return prompt, made[0, len(prompt) :].tolist()
