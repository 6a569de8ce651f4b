"""SmolVLM against transformers: tiles, pixels, prompt ids, logits of every position, greedy tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoTokenizer, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from sensorium import LLM, SamplingParams
from sensorium.engine.encoder_cache import EncoderCache
from sensorium.errors import ConfigurationError
from sensorium.families import find
from sensorium.families.smolvlm import SmolvlmImageProcessor
from sensorium.model.encoders.tile_vit import _places
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import MediaItem, MediaSlot, Message, Part, Request, Text
from sensorium.worker.prompting import PromptBuilder
from tests.families.conftest import image_processor, read_checkpoint, read_config
from tests.families.parity import Claim, Parity
from tests.families.test_parity import load, our_logits
from tests.families.test_qwen_image import picture
from tests.families.test_tiles import Raw
from tests.hf.checkpoints import smolvlm

# (height, width): sides under, at and over a tile and the longest side, odd ones, threads; and huge ones.
SIZES = [(h, w) for h in (1, 7, 31, 32, 33, 64, 95, 300) for w in (5, 32, 65, 96, 97, 451)] + [(4000, 33), (20, 5001)]
PREFIXES = {"model.text_model", "model.vision_model", "model.connector", "lm_head.weight"}  # of the published files


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smolvlm(tmp_path_factory.mktemp("smolvlm"))


def theirs(path: Path, image: npt.NDArray[np.uint8], **options: Any) -> Any:
    processor = SmolVLMImageProcessorPil.from_pretrained(path)
    return processor([[Image.fromarray(image)]], return_tensors="pt", return_row_col_info=True, **options)


def written(rows: int, columns: int) -> str:
    """What transformers' processor writes for a picture cut so."""
    return str(get_image_prompt_string(rows, columns, 4, "<fake_token_around_image>", "<image>", "<global-img>"))


def ids_of(path: Path, text: str) -> list[int]:
    found: list[int] = AutoTokenizer.from_pretrained(path).encode(text, add_special_tokens=False)
    return found


def test_tiles_and_tokens_equal_transformers(path: Path) -> None:
    ours = image_processor(path)
    assert len(SIZES) >= 30
    for height, width in SIZES:
        found = theirs(path, np.zeros((height, width, 3), np.uint8))
        (rows,), (columns,) = found["rows"][0], found["cols"][0]
        layout = ours.layout(height, width, {})
        assert layout.num_slots == 4 * (rows * columns + 1), (height, width)
        assert list(layout.token_ids) == ids_of(path, written(rows, columns)), (height, width)


@pytest.mark.parametrize("size", [(120, 90), (33, 400), (501, 77), (20, 21), (96, 96), (1, 3), (700, 1000)])
def test_pixels_equal_transformers(size: tuple[int, int], path: Path) -> None:
    image = picture(*size)
    wanted = theirs(path, image)
    found = image_processor(path)(image, {})
    assert bool(wanted["pixel_attention_mask"].all())  # tiles are whole: nothing is ever padded
    torch.testing.assert_close(found.tensors["pixel_values"], wanted["pixel_values"][0], atol=1e-6, rtol=0)
    assert found.cost == 64 * len(found.tensors["pixel_values"])
    assert found.layout == image_processor(path).layout(*size, {})


def test_pictures_need_not_be_cut(path: Path, tmp_path: Path) -> None:
    image = picture(120, 90)
    for change in ({"do_image_splitting": False}, {"size": {"longest_edge": 32}}):
        files = read_checkpoint(path)
        settings = {**files.image_settings, **change}
        changed = type(files)(files.config, {"preprocessor_config.json": settings}, files.encode)
        ours = find(files.config).media["image"].processor(changed)(image, {})
        wanted = theirs(path, image, **change)["pixel_values"][0]
        torch.testing.assert_close(ours.tensors["pixel_values"], wanted, atol=1e-6, rtol=0)
        assert list(ours.layout.token_ids) == ids_of(path, written(0, 0))


def test_the_number_of_tiles_is_bounded(path: Path) -> None:
    ours = image_processor(path)
    assert isinstance(ours, SmolvlmImageProcessor)
    assert ours.limits({}) == {"max_patches": 9}
    assert ours.layout(300, 300, {}).num_slots == 4 * 10
    assert ours.layout(300, 300, {"max_patches": 8}).num_slots == 4 * 5
    assert ours.layout(300, 300, {"max_patches": 3}).num_slots == 4
    assert ours.layout(10, 300, {"max_patches": 3}).num_slots == 4 * 4  # three in a row
    for most in (1000, 70, 69, 40, 12, 1):
        assert most < 10 or ours.within(most).layout(300, 300, {}).length <= most
    assert ours.within(40).fingerprint() != ours.fingerprint()
    with pytest.raises(ValueError, match="max_patches is 0; it must be a whole number of tiles"):
        ours.layout(3, 3, {"max_patches": 0})
    files = read_checkpoint(path)
    settings = {**files.image_settings, "max_image_size": {"longest_edge": 99}}
    with pytest.raises(ConfigurationError, match="tiles of 99 pixels; the tower takes 32x32"):
        find(files.config).media["image"].processor(
            type(files)(files.config, {"preprocessor_config.json": settings}, files.encode)
        )


@pytest.mark.parametrize("side", [8, 14, 26, 27, 32, 64])
def test_places_are_those_of_transformers(side: int, path: Path) -> None:
    config = SmolVLMForConditionalGeneration.from_pretrained(path).config.vision_config
    config.image_size, config.hidden_size, config.patch_size = 2 * side, 1, 2
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings

    embeddings = SmolVLMVisionEmbeddings(config)
    embeddings.patch_embedding.weight.zero_(), embeddings.patch_embedding.bias.zero_()
    embeddings.position_embedding.weight.copy_(torch.arange(side**2)[:, None])
    mask = torch.ones(1, side, side, dtype=torch.bool)
    found = embeddings(torch.zeros(1, 3, 2 * side, 2 * side), mask).view(side, side)
    places = _places(side)
    assert torch.equal(found, (places[:, None] * side + places).float())


def builder(path: Path) -> PromptBuilder:
    tokenizer = Tokenizer.load(path)
    return PromptBuilder(
        find(read_config(path)),
        read_checkpoint(path),
        tokenizer,
        ChatTemplate.load(path, None, tokenizer),
        {"image": image_processor(path)},
        Raw(),  # type: ignore[arg-type]
        EncoderCache(1 << 20),
        vocab_size=608,
        max_model_len=4096,
        processor_options={},
    )


CHATS: dict[str, list[str | tuple[int, int]]] = {
    "text only": ["What is it? <image> <row_1_col_1>"],
    "a picture": [(120, 90), "What is red?"],
    "text first": ["Look: ", (20, 300), "What is red?"],
    "three": [(40, 40), (300, 200), "and", (64, 90), "?"],
}


def request(parts: Sequence[str | tuple[int, int]]) -> Request:
    images = [picture(*part, seed=n) for n, part in enumerate(parts) if not isinstance(part, str)]
    media = tuple(MediaItem("image", i.tobytes(), f"item {n}", (i.shape[0], i.shape[1])) for n, i in enumerate(images))
    places = iter(range(len(images)))
    content: list[Part] = [Text(p) if isinstance(p, str) else MediaSlot("image", next(places)) for p in parts]
    return Request("r", SamplingParams(), messages=(Message("user", tuple(content)),), media=media)


@pytest.mark.parametrize("chat", CHATS)
def test_ids_and_logits_equal_transformers(chat: str, path: Path, parity: Parity) -> None:
    parts = CHATS[chat]
    _, decoder, encoders = load(path)
    with safe_open(path / "model.safetensors", "pt") as file:
        assert {".".join(name.split(".")[:2]) for name in file.keys()} == PREFIXES  # noqa: SIM118
    prompt, text = builder(path).build(request(parts))
    pictures = [theirs(path, image) for image in _images(parts)]
    if pictures:
        for found in pictures:
            text = text.replace(
                "<image>", written(found["rows"][0][0], found["cols"][0][0]).replace("<image>", "\0"), 1
            )
        assert prompt.token_ids == ids_of(path, text.replace("\0", "<image>"))
    model = SmolVLMForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    inputs: dict[str, Any] = {"input_ids": torch.tensor([prompt.token_ids])}
    if pictures:
        inputs["pixel_values"] = torch.cat([found["pixel_values"] for found in pictures], dim=1)
    wanted = model(**inputs).logits[0]
    assert wanted.std() > 0.5
    claim: Claim = "text" if not pictures else "image" if len(pictures) == 1 else "several"
    parity.close("smolvlm", claim, our_logits(decoder, encoders, prompt), wanted)
    parity.holds("smolvlm", "layout")


def _images(parts: Sequence[str | tuple[int, int]]) -> list[npt.NDArray[np.uint8]]:
    chosen = [part for part in parts if not isinstance(part, str)]
    return [np.frombuffer(item.data, np.uint8).reshape(*chosen[n], 3) for n, item in enumerate(request(parts).media)]


def test_greedy_tokens_equal_transformers(path: Path) -> None:
    image = picture(120, 90)
    greedy = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
    with torch.inference_mode(False), LLM(str(path), dtype="float32", num_threads=1, block_size=8) as llm:
        content = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
        (ours,) = llm.chat([{"role": "user", "content": content}], greedy, use_tqdm=False)
        assert (llm.info.engine, llm.info.family) == ("native", "smolvlm")
        assert llm.info.media_bounds == {"image": {"max_patches": 9}}
    model = SmolVLMForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    made = model.generate(
        input_ids=torch.tensor([ours.prompt_token_ids]),
        pixel_values=theirs(path, image)["pixel_values"],
        do_sample=False,
        max_new_tokens=10,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert ours.outputs[0].token_ids == made[0, len(ours.prompt_token_ids) :].tolist()
    assert len(set(ours.outputs[0].token_ids)) > 3
