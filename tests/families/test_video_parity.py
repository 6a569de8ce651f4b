"""Videos through prompt, positions, tower and decoder against transformers: ids, logits, and tokens of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.engine.engine import Engine, EngineLimits
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaSlot, Message, Modality, Request, SamplingParams, Text
from sensorium.worker.prompting import PromptBuilder
from tests.checkpoints import GRID_FAMILIES, VOCAB_SIZE
from tests.families.conftest import Checkpoint, read_checkpoint
from tests.families.parity import Parity
from tests.families.test_parity import load, our_logits
from tests.families.test_qwen_image import picture
from tests.families.test_qwen_video import clip
from tests.families.video_reference import reference_inputs, reference_logits, stamped_text

FPS = 1.5
# (frames, height, width); None: a picture. The second is longer in time than its frames are wide.
PROMPTS: dict[str, list[tuple[int, int, int] | None]] = {
    "a video": [(6, 84, 112)],
    "a long video": [(17, 56, 56)],
    "a video and a picture": [(5, 60, 90), None],
    "all mixed": [None, (4, 100, 60), (3, 56, 112), None],
}


def builder(path: Path, **options: Any) -> PromptBuilder:
    files, tokenizer = read_checkpoint(path), Tokenizer.load(path)
    family, *_ = load(path)
    return PromptBuilder(
        family,
        files,
        tokenizer,
        ChatTemplate.load(path, None, tokenizer),
        {kind: media.processor(files).within(1024) for kind, media in family.media.items()},
        MediaDecoder(MediaLimits()),
        EncoderCache(1 << 20),
        vocab_size=VOCAB_SIZE,
        max_model_len=4096,
        processor_options=options,
    )


def video_item(frames: int, height: int, width: int, fps: float = FPS) -> MediaItem:
    data = clip(frames, height, width).tobytes()
    return MediaItem("video", data, "messages[0]", (height, width), times=tuple(i / fps for i in range(frames)))


def request(parts: list[tuple[int, int, int] | None]) -> Request:
    """Text that ends in a blank, each item, and text again."""
    content: list[Text | MediaSlot] = [Text("Look at this: ")]
    media = []
    for index, part in enumerate(parts):
        kind: Modality = "image" if part is None else "video"
        content += [MediaSlot(kind, index), Text(f"What is it, number {index}? ")]
        if part is None:
            media.append(MediaItem("image", picture(70, 100, index).tobytes(), "messages[0]", (70, 100)))
        else:
            media.append(video_item(*part))
    return Request("r", SamplingParams(), messages=(Message("user", tuple(content)),), media=tuple(media))


def build(path: Path, parts: list[tuple[int, int, int] | None]) -> tuple[Prompt, dict[str, Any]]:
    """Our prompt, and what transformers takes for the same."""
    prompt, _ = builder(path).build(request(parts))
    kinds = ["image" if part is None else "video" for part in parts]
    inputs = reference_inputs(
        path, prompt.token_ids, [i for i in prompt.inputs if i], kinds, [2 / FPS] * kinds.count("video")
    )
    return prompt, inputs


@pytest.mark.parametrize("parts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_prompt_ids_equal_transformers(
    name: str, parts: list[tuple[int, int, int] | None], checkpoint: Checkpoint
) -> None:
    path = checkpoint(name)
    prompt, _ = build(path, parts)
    tokenizer = AutoTokenizer.from_pretrained(path)
    content: list[dict[str, str]] = [{"type": "text", "text": "Look at this: "}]
    for index, part in enumerate(parts):
        text = {"type": "text", "text": f"What is it, number {index}? "}
        content += [{"type": "image" if part is None else "video"}, text]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    for part, span in zip(parts, prompt.spans, strict=True):
        pad = "<|image_pad|>" if part is None else "<|video_pad|>"
        wanted = f"<|vision_start|>{pad}<|vision_end|>"
        expanded = f"<|vision_start|>{'#' * span.layout.num_slots}<|vision_end|>"
        if part is not None and name == "qwen3_vl":
            expanded = stamped_text(range(part[0]), FPS, span.layout.grid).replace(pad, "#")
        assert wanted in text
        text = text.replace(wanted, expanded.replace("#", f"<#{pad[2:-2]}>"), 1)
    text = text.replace("<#image_pad>", "<|image_pad|>").replace("<#video_pad>", "<|video_pad|>")
    assert prompt.token_ids == tokenizer.encode(text, add_special_tokens=False)
    counts = [len(span.layout.times) for span in prompt.spans]
    assert counts == [0 if part is None else part[0] for part in parts]


def placed(prompt: Prompt, num_tokens: int) -> torch.Tensor:
    """(3, 1, num_tokens): transformers 5 would place text behind long videos elsewhere; see test_mrope."""
    assert prompt.positions is not None
    tail = np.arange(prompt.positions.shape[1], num_tokens) + prompt.position_delta
    whole = np.concatenate([prompt.positions, np.broadcast_to(tail, (3, len(tail)))], axis=1)
    return torch.from_numpy(whole)[:, None]


@pytest.mark.parametrize("parts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_logits_equal_transformers(
    name: str, parts: list[tuple[int, int, int] | None], checkpoint: Checkpoint, parity: Parity
) -> None:
    path = checkpoint(name)
    _, decoder, encoders = load(path)
    prompt, inputs = build(path, parts)
    wanted = reference_logits(path, inputs, placed(prompt, len(prompt.token_ids)))
    assert wanted.std() > 0.5
    found = our_logits(decoder, encoders, prompt)
    parity.close(name, "video" if len(parts) == 1 else "several", found, wanted)


@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_however_a_video_is_cut_the_tokens_are_the_same(name: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    _, decoder, encoders = load(path)
    prompt, _ = build(path, PROMPTS["a video and a picture"])
    found = []
    for cached in (False, True):
        for chunk in (1, 7, 2048):
            limits = EngineLimits(256, 8, max_num_batched_tokens=chunk, prefix_caching=cached)
            engine = Engine(decoder, encoders, limits)
            for _ in range(1 + cached):  # the second time most of it is in the cache
                sequence = Sequence(("a", 0), prompt, SamplingParams(temperature=0.0), 5, frozenset(), seed=0)
                assert engine.add(sequence)
                while sequence.num_output_tokens < 5:
                    engine.step()
                engine.remove(sequence)
                found.append(sequence.token_ids[sequence.num_prompt_tokens :])
    assert all(tokens == found[0] for tokens in found)


@pytest.mark.parametrize("name", ["qwen2_5_vl"])
def test_greedy_tokens_equal_transformers(name: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    _, decoder, encoders = load(path)
    prompt, inputs = build(path, PROMPTS["a long video"])
    kinds = inputs["mm_token_type_ids"]
    engine = Engine(decoder, encoders, EngineLimits(num_blocks=256, block_size=8, max_num_batched_tokens=40))
    sequence = Sequence(("a", 0), prompt, SamplingParams(temperature=0.0), 6, frozenset(), seed=0)
    assert engine.add(sequence)
    while sequence.num_output_tokens < 6:
        engine.step()
    found = sequence.token_ids[sequence.num_prompt_tokens :]
    ids = list(prompt.token_ids)
    for token_id in found:
        inputs = inputs | {
            "input_ids": torch.tensor([ids]),
            "mm_token_type_ids": torch.nn.functional.pad(kinds, (0, len(ids) - kinds.shape[1])),
        }
        assert int(reference_logits(path, inputs, placed(prompt, len(ids)))[-1].argmax()) == token_id
        ids.append(token_id)


@pytest.mark.parametrize(
    ("name", "image", "video"),
    [
        ("qwen2_vl", "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"),
        ("internvl", "<image>", "<video>"),
    ],
)
def test_items_of_a_raw_prompt_may_be_listed_kind_by_kind(
    name: str, image: str, video: str, checkpoint: Checkpoint
) -> None:
    made = builder(checkpoint(name))
    items = request([None, (4, 56, 56)]).media
    for text, kinds in ((f"a {image} b {video}", ["image", "video"]), (f"a {video} b {image}", ["video", "image"])):
        asked = [Request("r", SamplingParams(), prompt=text, media=media) for media in (items, items[::-1])]
        first, second = (made.build(each)[0] for each in asked)
        assert [use.kind for use in first.media] == [use.kind for use in second.media] == kinds
        assert [span.key for span in first.spans] == [span.key for span in second.spans]
        assert first.token_ids == second.token_ids
