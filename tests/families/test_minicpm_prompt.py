"""MiniCPM-V's prompts as its authors build them: text with markers, all of them replaced, then tokenized."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.errors import ConfigurationError, InvalidRequest
from sensorium.families import find, serves
from sensorium.families.minicpm_slices import choose_slices
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.media.decoded import Video
from sensorium.media.raw import raw_video
from sensorium.media.sampling import Sampling
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaSlot, Message, Request, SamplingParams, Text
from sensorium.worker.checkpoint import eos_token_ids
from sensorium.worker.prompting import PromptBuilder
from tests.families.conftest import read_checkpoint
from tests.minicpm_checkpoints import (
    FAMILIES,
    QUERIES,
    VERSIONS,
    VOCAB_SIZE,
    make_minicpm,
    minicpm_config,
    minicpm_shapes,
    minicpm_tokenizer,
)

Builders = Callable[[str], tuple[PromptBuilder, EncoderCache]]
MARKER = "(<image>./</image>)"


class RawDecoder:
    """Stands in for the decoding child: items bring raw pixels."""

    def decode_image(self, item: MediaItem) -> npt.NDArray[np.uint8]:
        assert item.size is not None
        return np.frombuffer(item.data, np.uint8).reshape(*item.size, 3)

    def decode_video(self, item: MediaItem, sampling: Sampling, max_pixels: int | None) -> Video:
        return raw_video(item, sampling, MediaLimits())


def item(width: int, height: int) -> MediaItem:
    pixels = np.full((height, width, 3), (width * 7 + height) % 256, np.uint8)
    return MediaItem("image", pixels.tobytes(), "messages[0]", (height, width))


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Builders:
    @cache
    def folder(version: str) -> Path:
        path = tmp_path_factory.mktemp(f"minicpm-{version}")
        make_minicpm(version, path)
        return path

    def build(version: str) -> tuple[PromptBuilder, EncoderCache]:
        path, cache_ = folder(version), EncoderCache(1 << 24)
        checkpoint, tokenizer = read_checkpoint(path), Tokenizer.load(path)
        family = find(checkpoint.config)
        processors = {kind: media.processor(checkpoint).within(1536) for kind, media in family.media.items()}
        template = ChatTemplate.load(path, None, tokenizer)
        builder = PromptBuilder(
            family, checkpoint, tokenizer, template, processors, cast(MediaDecoder, RawDecoder()), cache_,
            vocab_size=VOCAB_SIZE, max_model_len=2048, processor_options={},
        )  # fmt: skip
        return builder, cache_

    return build


def request(turns: list[tuple[str, list[str | tuple[int, int]]]], **options: Any) -> Request:
    """Turns of strings and (width, height) of pictures."""
    messages, media = [], []
    for role, parts in turns:
        content: list[Text | MediaSlot] = []
        for part in parts:
            if isinstance(part, str):
                content.append(Text(part))
            else:
                content.append(MediaSlot("image", len(media)))
                media.append(item(*part))
        messages.append(Message(role, tuple(content)))
    return Request(id="a", sampling=SamplingParams(), messages=tuple(messages), media=tuple(media), **options)


def chat_text(version: str, turns: list[tuple[str, list[str | tuple[int, int]]]]) -> str:
    """The authors' chat form, written out; every picture is the marker, parts are joined by line ends."""
    contents = [(role, "\n".join(p if isinstance(p, str) else MARKER for p in parts)) for role, parts in turns]
    if version == "2.5":
        pieces = [f"<|start_header_id|>{r}<|end_header_id|>\n\n{c.strip()}<|eot_id|>" for r, c in contents]
        return "<|begin_of_text|>" + "".join(pieces) + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    pieces = [f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in contents]
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    return system + "".join(pieces) + "<|im_start|>assistant\n"


def authors_ids(version: str, text: str, sizes: list[tuple[int, int]], most: int = 9) -> list[int]:
    """Replace every marker, then tokenize."""
    queries = "<unk>" * QUERIES[version]
    first, *rest = text.split(MARKER)
    for number, (chunk, size) in enumerate(zip(rest, sizes, strict=True)):
        columns, rows = choose_slices(size, most, 448) or (0, 0)
        overview = f"<image>{queries}</image>"
        if version == "2.5":
            grid = "\n".join([overview * columns] * rows)
            first += overview + (f"<slice>{grid}</slice>" if rows else "") + chunk
        else:
            grid = "\n".join([f"<slice>{queries}</slice>" * columns] * rows)
            first += f"<image_id>{number}</image_id>{overview}{grid}{chunk}"
    return list(minicpm_tokenizer(version).encode(first, add_special_tokens=False).ids)


def sizes_of(turns: list[tuple[str, list[str | tuple[int, int]]]]) -> list[tuple[int, int]]:
    return [part for _, parts in turns for part in parts if isinstance(part, tuple)]


CONVERSATIONS: list[list[tuple[str, list[str | tuple[int, int]]]]] = [
    [("user", ["How many shapes are there?"])],
    [("user", [(300, 200), "How many shapes are there?"])],
    [("user", ["Before:", (900, 700), (50, 2000), "What is in these images?\n"])],
    [("user", [(900, 700), "What is it?"]), ("assistant", ["A red square."]), ("user", [(200, 300), "And this?"])],
    [
        ("user", [(64, 64)]),
        ("assistant", ["图中有一个红色的正方形。"]),
        ("user", ["(why)", (64, 64), ") and (", (1, 999)]),
    ],
]


@pytest.mark.parametrize("turns", CONVERSATIONS)
@pytest.mark.parametrize("version", VERSIONS)
def test_prompts_equal_the_authors(version: str, turns: Any, builders: Builders) -> None:
    builder, _ = builders(version)
    prompt, _ = builder.build(request(turns))
    assert prompt.token_ids == authors_ids(version, chat_text(version, turns), sizes_of(turns))
    slot = minicpm_tokenizer(version).token_to_id("<unk>")
    for span in prompt.spans:
        where, _ = span.layout.slots(0, span.length)
        assert {prompt.token_ids[span.offset + i] for i in where} == {slot}
        assert len(where) == span.layout.num_slots


@pytest.mark.parametrize("version", VERSIONS)
def test_finished_prompts_have_the_authors_marker(version: str, builders: Builders) -> None:
    builder, _ = builders(version)
    text = chat_text(version, CONVERSATIONS[3])
    asked = Request(
        id="a", sampling=SamplingParams(), prompt=text, media=(item(900, 700), item(200, 300)),
        add_special_tokens=False,
    )  # fmt: skip
    prompt, shown = builder.build(asked)
    assert prompt.token_ids == authors_ids(version, text, [(900, 700), (200, 300)])
    assert shown == text


def test_a_marker_a_client_writes_is_text(builders: Builders) -> None:
    builder, _ = builders("2.6")
    prompt, _ = builder.build(request([("user", [(64, 64), f"What does {MARKER} or <image> mean?"])]))
    assert len(prompt.spans) == 1
    assert prompt.token_ids.count(minicpm_tokenizer("2.6").token_to_id("<image>")) == 1


@pytest.mark.parametrize("version", ["2.6", "4.0"])
def test_a_videos_frames_have_no_numbers_and_pictures_count_without_them(version: str, builders: Builders) -> None:
    builder, _ = builders(version)
    frames = np.stack([np.full((60, 90, 3), 40 * number, np.uint8) for number in range(3)])
    media = (
        item(200, 300),
        MediaItem("video", frames.tobytes(), "messages[0]", (60, 90), times=(0.0, 1.0, 2.0)),
        item(64, 64),
    )
    content = (MediaSlot("image", 0), MediaSlot("video", 1), MediaSlot("image", 2), Text("(<video>./</video>) is text"))
    asked = Request("a", SamplingParams(), messages=(Message("user", content),), media=media)
    prompt, _ = builder.build(asked)
    turns: list[tuple[str, list[str | tuple[int, int]]]] = [
        ("user", [(200, 300), "VIDEO", (64, 64), "(<video>./</video>) is text"])
    ]
    queries = "<unk>" * QUERIES[version]
    overview = f"<image>{queries}</image>"
    text = chat_text(version, turns).replace("VIDEO", overview * 3)
    assert prompt.token_ids == authors_ids(version, text, [(200, 300), (64, 64)])
    assert [len(span.layout.times) for span in prompt.spans] == [0, 3, 0]


@pytest.mark.parametrize("most", [1, 2, 4, 100])
def test_requests_may_ask_for_fewer_slices(most: int, builders: Builders) -> None:
    builder, _ = builders("2.6")
    turns: list[tuple[str, list[str | tuple[int, int]]]] = [("user", [(1600, 1200), "What is it?"])]
    prompt, _ = builder.build(request(turns, mm_processor_kwargs={"max_slice_nums": most}))
    assert prompt.token_ids == authors_ids("2.6", chat_text("2.6", turns), [(1600, 1200)], min(most, 9))
    for wrong in (0, "9", True):
        with pytest.raises(InvalidRequest, match=r"mm_processor_kwargs\.max_slice_nums"):
            builder.build(request(turns, mm_processor_kwargs={"max_slice_nums": wrong}))
    with pytest.raises(InvalidRequest, match="takes max_slice_nums"):
        builder.build(request(turns, mm_processor_kwargs={"max_pixels": 100}))


def test_a_picture_known_by_another_number_is_not_encoded_again(builders: Builders) -> None:
    builder, encoded = builders("2.6")
    first, _ = builder.build(request([("user", [(900, 700), "What is it?"])]))
    encoded.put(first.spans[0].key, torch.zeros(first.spans[0].layout.num_slots, 4))
    turns: list[tuple[str, list[str | tuple[int, int]]]] = [("user", [(64, 64), (900, 700), "Compare."])]
    second, _ = builder.build(request(turns))
    assert second.inputs[1] is None
    assert second.spans[1].key == first.spans[0].key
    assert second.token_ids == authors_ids("2.6", chat_text("2.6", turns), sizes_of(turns))


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_are_families(version: str) -> None:
    config = minicpm_config(version)
    assert serves(config)
    assert not serves(config | {"version": 4.5})
    family = find(config)
    assert family.name == FAMILIES[version]
    assert family.modalities == ("text", "image", *(() if version == "2.5" else ("video",)))
    decoder = family.decoder(config)
    assert decoder.attention_bias == (version == "2.6")
    assert decoder.head_dim == 32
    # Beyond the length it was made for, LongRoPE would need other factors.
    assert decoder.max_position_embeddings == (4096 if version == "4.0" else 8192)
    targets = [family.rename(name) for name in minicpm_shapes(version)]
    assert len(set(targets)) == len(targets)
    assert ("decoder", "layers.1.mlp.up_proj.weight") in targets
    assert ("decoder", "lm_head.weight") in targets
    assert ("vision", "resampler.query") in targets
    assert family.rename("llm.model.layers.0.self_attn.rotary_emb.inv_freq") is None


def test_other_versions_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'MiniCPMV 4\.5' is not supported; supported: .*MiniCPMV 2\.5, "):
        find(minicpm_config("2.6") | {"version": 4.5})
    without = {key: value for key, value in minicpm_config("2.6").items() if key != "version"}
    with pytest.raises(ConfigurationError, match=r"'MiniCPMV' is not supported"):
        find(without)


@pytest.mark.parametrize(
    ("version", "ends"),
    [("2.5", {"<|eot_id|>", "<|end_of_text|>"}), ("2.6", {"<|im_end|>", "<|endoftext|>"})],
)
def test_answers_end_where_the_authors_end_them(version: str, ends: set[str], tmp_path: Path) -> None:
    make_minicpm(version, tmp_path)
    config = minicpm_config(version)
    found = eos_token_ids({}, config, Tokenizer.load(tmp_path), find(config).end_tokens)
    assert found == {minicpm_tokenizer(version).token_to_id(end) for end in ends}
