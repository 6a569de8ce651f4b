"""InternVL's videos against transformers: prompt ids, tiles and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sensorium.families.family import Frames
from sensorium.families.tile_video import TileVideoProcessor
from sensorium.types import MediaItem, MediaSlot, Message, Request, SamplingParams, Text
from tests.checkpoint_chat import write_internvl_chat
from tests.families.conftest import Checkpoint, image_processor, read_checkpoint
from tests.families.parity import Parity
from tests.families.reference import reference_logits
from tests.families.test_parity import load, our_logits
from tests.families.test_qwen_image import picture
from tests.families.test_qwen_video import clip
from tests.families.test_tiles import reference_processor
from tests.families.test_video_parity import builder, video_item


def processor(path: Path) -> TileVideoProcessor:
    family, *_ = load(path)
    return cast(TileVideoProcessor, family.media["video"].processor(read_checkpoint(path)))


@pytest.mark.parametrize("before", ["Look: ", "", "Look (", "看"])
def test_prompt_ids_and_logits_equal_transformers(before: str, checkpoint: Checkpoint, parity: Parity) -> None:
    path = checkpoint("internvl")
    media = (
        video_item(5, 60, 90),
        MediaItem("image", picture(50, 80).tobytes(), "messages[0]", (50, 80)),
    )
    content = (Text(before), MediaSlot("video", 0), Text("Is it"), MediaSlot("image", 1), Text("this?"))
    request = Request("r", SamplingParams(), messages=(Message("user", content),), media=media)
    made = builder(path)
    prompt, text = made.build(request)

    theirs: Any = reference_processor("internvl", path)
    written = theirs.replace_video_token({"pixel_values_videos": [np.zeros((5, 3, 56, 56))]}, 0)
    num_tiles = prompt.spans[1].layout.num_slots // 4
    picture_text = f"<img>{'<IMG_CONTEXT>' * 4 * num_tiles}</img>"
    marker = "Frame1: <IMG_CONTEXT>"
    assert marker in text
    head, tail = text.split(marker)
    wanted = head + written + tail.replace("<IMG_CONTEXT>", picture_text, 1)
    assert prompt.token_ids == AutoTokenizer.from_pretrained(path).encode(wanted, add_special_tokens=False)
    assert len(prompt.spans[0].layout.times) == 5

    _, decoder, encoders = load(path)
    items = [item for item in prompt.inputs if item is not None]
    expected = reference_logits(path, "internvl", prompt.token_ids, items)
    found = our_logits(decoder, encoders, prompt)
    parity.close("internvl", "video", found, expected)
    parity.close("internvl", "several", found, expected)


def test_a_frame_is_a_picture_of_one_tile(checkpoint: Checkpoint) -> None:
    path = checkpoint("internvl")
    ours, frames = processor(path), clip(3, 100, 300)
    found = ours(Frames(frames, (0.0, 0.5, 1.0)), {})
    alone = [image_processor(path)(frame, {"max_patches": 1}).tensors["pixel_values"] for frame in frames]
    assert torch.equal(found.tensors["pixel_values"], torch.cat(alone))
    assert found.layout.num_slots == 3 * 4
    assert found.cost == 3 * 16
    with pytest.raises(ValueError, match="no frames"):
        ours(Frames(frames[:0], ()), {})


def test_eight_frames_or_as_many_as_fit(checkpoint: Checkpoint) -> None:
    ours = processor(checkpoint("internvl"))
    assert (ours.sampling.num_frames, ours.sampling.max_frames, ours.sampling.spread) == (8, 768, "middles")
    short = ours.within(60)
    most = short.sampling.max_frames
    assert 1 <= most < 8
    found = short(Frames(clip(most, 56, 56), [0.0] * most), {})
    assert found.layout.length <= 60


@pytest.mark.parametrize("decoder_kind", ["qwen2"])
def test_internvl_of_its_authors_takes_the_same(decoder_kind: str, tmp_path: Path, parity: Parity) -> None:
    hf, chat = tmp_path / "hf", tmp_path / "chat"
    write_internvl_chat(hf, chat, decoder_kind)
    content = (MediaSlot("video", 0), Text("What is it?"))
    request = Request("r", SamplingParams(), messages=(Message("user", content),), media=(video_item(4, 60, 90),))
    prompt, _ = builder(chat).build(request)
    assert prompt.token_ids == builder(hf).build(request)[0].token_ids
    _, decoder, encoders = load(chat)
    items = [item for item in prompt.inputs if item is not None]
    expected = reference_logits(hf, "internvl", prompt.token_ids, items)
    parity.close("internvl_chat", "video", our_logits(decoder, encoders, prompt), expected)
