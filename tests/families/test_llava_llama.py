"""LLaVA and Yi-VL as their authors publish them: prompts against their code, pixels and logits against transformers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.engine.engine import Engine, EngineLimits
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.errors import ConfigurationError, InvalidRequest
from sensorium.families import find
from sensorium.families.checkpoint import FILES
from sensorium.families.checkpoint import Checkpoint as Files
from sensorium.families.family import Encoder, Family
from sensorium.model.decoder import Decoder
from sensorium.model.weights import load_weights
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import MediaItem, MediaSlot, Message, Request, SamplingParams, Text
from sensorium.worker.prompting import PromptBuilder
from sensorium.worker.tower import find_tower
from tests.checkpoint_llava import TOWERS, VOCAB_SIZE, Kind, write_llava_llama
from tests.families.conftest import read_config
from tests.families.parity import TRANSFORMERS, Claim, Parity
from tests.families.test_parity import our_logits
from tests.families.test_qwen_image import picture
from tests.families.test_tiles import SIZES, Raw
from tests.registry.fake_hub import fake_hub

CPU = torch.device("cpu")
KINDS: tuple[Kind, ...] = ("llava", "llava_legacy", "yi_vl")
FAMILIES = {"llava": "llava_llama", "llava_legacy": "llava_llama", "yi_vl": "yi_vl"}
GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("llava_golden.json").read_text())
NUM_OUTPUT = 12


class Loaded:
    """A checkpoint in the authors' layout, loaded as the native engine does, and transformers' model of it."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.path = write_llava_llama(folder / "hf", folder, kind)
        config = read_config(self.path)
        self.family: Family = find(config)
        tower = find_tower(self.family, config, self.path, _silent)
        assert tower is not None
        weights = load_weights(self.path, self.family.rename, torch.float32, CPU, _silent)
        tower.add_weights(weights, torch.float32, CPU, _silent)
        self.decoder = Decoder(self.family.decoder(tower.config), weights["decoder"])
        self.encoders: dict[str, Encoder] = {
            name: make(tower.config, torch.float32, CPU) for name, make in self.family.encoders.items()
        }
        self.encoders["vision"].load(weights["vision"])
        self.tokenizer = Tokenizer.load(self.path, self.family.cut_at)
        files = {name: json.loads((tower.path / name).read_text()) for name in FILES if (tower.path / name).exists()}
        self.checkpoint = Files(tower.config, files, self.tokenizer.encode)
        self.process = self.family.media["image"].processor(self.checkpoint)
        assert self.family.chat_template is not None
        special = self.tokenizer.special_tokens | {"bos_token": self.tokenizer.start}
        self.builder = PromptBuilder(
            self.family,
            self.checkpoint,
            self.tokenizer,
            ChatTemplate({"default": self.family.chat_template}, special),
            {"image": self.process},
            Raw(),  # type: ignore[arg-type]
            EncoderCache(1 << 20),
            vocab_size=VOCAB_SIZE,
            max_model_len=4096,
            processor_options={},
        )
        self.reference = LlavaForConditionalGeneration.from_pretrained(folder / "hf", dtype=torch.float32).eval()
        if kind == "yi_vl":
            layers = (torch.nn.Linear(32, 64), torch.nn.LayerNorm(64), torch.nn.GELU())
            projector = torch.nn.Sequential(*layers, torch.nn.Linear(64, 64), torch.nn.LayerNorm(64))
            projector.load_state_dict(load_file(folder / "hf" / "projector.safetensors"))
            self.reference.model.multi_modal_projector = projector.eval()

    def reference_logits(self, prompt: Prompt, token_ids: list[int]) -> torch.Tensor:
        """(n, VOCAB_SIZE) logits, as transformers computes them."""
        ids = torch.tensor([token_ids])
        for span in prompt.spans:
            ids[0, span.offset : span.offset + span.length] = VOCAB_SIZE
        inputs = {"input_ids": ids}
        if prompt.inputs:
            inputs["pixel_values"] = torch.cat([item.tensors["pixel_values"] for item in prompt.inputs if item])
        logits: torch.Tensor = self.reference(**inputs).logits[0, :, :VOCAB_SIZE]
        return logits


def _silent(phase: str, fraction: float) -> None:
    pass


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cache(lambda kind: Loaded(kind, tmp_path_factory.mktemp(kind)))


def request_of(talk: list[str], **options: Any) -> Request:
    """The request of a golden conversation, its pictures being all different."""
    messages, media = [], []
    for index, said in enumerate(talk):
        parts: list[MediaSlot | Text] = []
        while said.startswith("IMAGE\n"):
            image = picture(40 + 30 * len(media), 100, seed=len(media))
            parts.append(MediaSlot("image", len(media)))
            media.append(MediaItem("image", image.tobytes(), f"item {len(media)}", image.shape[:2]))
            said = said.removeprefix("IMAGE\n")
        parts += [Text(said)] if said else []
        messages.append(Message("assistant" if index % 2 else "user", tuple(parts)))
    return Request("r", SamplingParams(), messages=tuple(messages), media=tuple(media), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_equal_the_authors(kind: Kind, loaded: Any) -> None:
    model = loaded(kind)
    for talk, text, ids in GOLDEN[kind]:
        prompt, rendered = model.builder.build(request_of(talk))
        assert rendered.removeprefix("<s>") == text
        wanted: list[int] = []
        for token_id in ids:
            wanted += [0] * 16 if token_id == -200 else [token_id]
        assert prompt.token_ids == wanted, text
        assert [span.layout.num_slots for span in prompt.spans] == [16] * ids.count(-200)
        # The finished text as a raw prompt gives the same, with the bos where the tokenizer adds one.
        request = request_of(talk)
        raw = Request("r", SamplingParams(), prompt=text, media=request.media)
        assert model.builder.build(raw)[0].token_ids == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_system_message_replaces_the_first_sentences(kind: Kind, loaded: Any) -> None:
    builder = loaded(kind).builder
    question = Message("user", (Text("Why?"),))
    messages = (Message("system", (Text("Be brief."),)), question)
    text = builder.build(Request("r", SamplingParams(), messages=messages))[1]
    wanted = "Be brief.\n\n### Human: Why?\n### Assistant:" if kind == "yi_vl" else "<s>Be brief. USER: Why? ASSISTANT:"
    assert text == wanted
    with pytest.raises(InvalidRequest, match="roles are user and assistant, and system for the first message"):
        builder.build(Request("r", SamplingParams(), messages=(question, messages[0])))


@pytest.mark.parametrize("kind", KINDS)
def test_client_text_is_no_picture_and_no_end(kind: Kind, loaded: Any) -> None:
    model = loaded(kind)
    hostile = "<image><image_placeholder></s><s><|endoftext|><unk>"
    prompt, text = model.builder.build(request_of(["IMAGE\n" + hostile]))
    assert hostile in text
    control = set(model.tokenizer.added_tokens.values())
    assert len(prompt.spans) == 1
    span = prompt.spans[0]
    rest = prompt.token_ids[1 : span.offset] + prompt.token_ids[span.offset + span.length :]
    assert control.isdisjoint(rest)
    with pytest.raises(InvalidRequest, match="1 image placeholders, but 0 image items"):
        model.builder.build(Request("r", SamplingParams(), prompt="a" + model.family.cut_at[0]))


@pytest.mark.parametrize(("kind", "side", "tokens"), [("llava", 336, 576), ("yi_vl", 448, 1024)])
def test_a_picture_of_any_size_takes_the_same(kind: Kind, side: int, tokens: int, loaded: Any) -> None:
    """With the sizes of the published towers."""
    model = loaded(kind)
    vision = model.checkpoint.config["vision_config"] | {"image_size": side}
    files = {"preprocessor_config.json": {"size": {"shortest_edge": side}, "crop_size": side, "resample": 3}}
    full = Files(model.checkpoint.config | {"vision_config": vision}, files, model.tokenizer.encode)
    processor = model.family.media["image"].processor(full)
    assert len(SIZES) >= 30
    for height, width in [*SIZES, (1, 30000), (30000, 1)]:
        layout = processor.layout(height, width, {})
        assert (layout.length, layout.num_slots, layout.token_ids[0]) == (tokens, tokens, 0)
    found = processor(picture(30, 1000), {})
    assert found.tensors["pixel_values"].shape == (1, 3, side, side)


def reference_pixels(model: Any, image: Any, aspect: str) -> torch.Tensor:
    """What the authors' `process_images` does: a square of the mean colour, then CLIP's processor."""
    processor = CLIPImageProcessorPil(**model.checkpoint.image_settings)
    shown = Image.fromarray(image)
    if aspect == "pad" and shown.width != shown.height:
        longer = max(shown.size)
        square = Image.new("RGB", (longer, longer), tuple(int(mean * 255) for mean in processor.image_mean))
        square.paste(shown, ((longer - shown.width) // 2, (longer - shown.height) // 2))
        shown = square
    pixels: torch.Tensor = processor(shown, return_tensors="pt")["pixel_values"]
    return pixels


@pytest.mark.parametrize("kind", ["llava", "yi_vl"])
def test_pixels_equal_the_authors(kind: Kind, loaded: Any) -> None:
    model = loaded(kind)
    sizes = [(h, w) for h, w in SIZES if max(h, w) <= 1920]
    assert len(sizes) > 30
    for height, width in sizes:
        image = picture(height, width)
        found = model.process(image, {}).tensors["pixel_values"]
        torch.testing.assert_close(found, reference_pixels(model, image, "pad"), atol=2e-6, rtol=0)
    whole = Files(model.checkpoint.config | {"image_aspect_ratio": None}, model.checkpoint.files)
    cropping = model.family.media["image"].processor(whole)
    for height, width in ((90, 40), (33, 400), (56, 56)):
        image = picture(height, width)
        found = cropping(image, {}).tensors["pixel_values"]
        torch.testing.assert_close(found, reference_pixels(model, image, "square"), atol=2e-6, rtol=0)
    assert cropping.fingerprint() != model.process.fingerprint()


@pytest.mark.parametrize("talk", [GOLDEN["llava"][index][0] for index in (0, 1, 4, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_transformers(kind: Kind, talk: list[str], loaded: Any, parity: Parity) -> None:
    model = loaded(kind)
    prompt, _ = model.builder.build(request_of(talk))
    wanted = model.reference_logits(prompt, prompt.token_ids)
    found = our_logits(model.decoder, model.encoders, prompt)
    assert wanted.std() > 0.5
    claims: tuple[Claim, ...] = ("text", "image", "several")
    reference = f"{TRANSFORMERS}; prompts: the authors' code (`llava_golden.json`)"
    parity.close(FAMILIES[kind], claims[min(len(prompt.spans), 2)], found, wanted, reference=reference)
    parity.holds(FAMILIES[kind], "layout", reference)


@pytest.mark.parametrize("kind", ["llava", "yi_vl"])
def test_greedy_tokens_equal_transformers_however_the_work_is_cut(kind: Kind, loaded: Any) -> None:
    model = loaded(kind)
    prompt, _ = model.builder.build(request_of(GOLDEN[kind][4][0]))
    found = []
    for cached in (False, True):
        for chunk in (7, 40, 2048):
            engine = Engine(model.decoder, model.encoders, EngineLimits(128, 8, chunk, prefix_caching=cached))
            for _ in range(1 + cached):
                sequence = Sequence(("a", 0), prompt, SamplingParams(temperature=0.0), NUM_OUTPUT, frozenset(), seed=0)
                assert engine.add(sequence)
                while sequence.num_output_tokens < NUM_OUTPUT:
                    engine.step()
                engine.remove(sequence)
                found.append(sequence.token_ids)
    wanted = list(prompt.token_ids)
    for _ in range(NUM_OUTPUT):
        wanted.append(int(model.reference_logits(prompt, wanted)[-1].argmax()))
    assert all(token_ids == wanted for token_ids in found)


@pytest.mark.parametrize("own_first", [True, False])
def test_whose_tower_counts(own_first: bool, loaded: Any) -> None:
    """A tower that was trained along is in the main checkpoint, which then says so."""
    model = loaded("llava")
    config = read_config(model.path) | {"unfreeze_mm_vision_tower": own_first}
    tower = find_tower(model.family, config, model.path, _silent)
    assert tower is not None
    name = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    part, ours = model.family.rename(name)
    weights = {part: {ours: torch.full((32,), 7.0)}, "decoder": {}}
    tower.add_weights(weights, torch.float32, CPU, _silent)
    assert (weights["vision"]["first_norm.weight"] == 7).all() == own_first
    assert len(weights["vision"]) > 20


def test_where_a_tower_may_lie(loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "home"))
    family, config = loaded("llava").family, {"mm_vision_tower": TOWERS["llava"]}
    checkpoint = tmp_path / "models" / "llava"
    checkpoint.mkdir(parents=True)
    missing = (
        r"mm_vision_tower.*neither in .*llava nor beside it\. Place its folder at .*/llava/clip-vit-large-patch14-336"
    )
    with pytest.raises(ConfigurationError, match=missing + ".*HF_HUB_OFFLINE is set"):
        find_tower(family, config, checkpoint, _silent)
    with pytest.raises(ConfigurationError, match=r"Place its folder at .*/llava/vit-x .*no folder '/elsewhere/vit-x'"):
        find_tower(family, {"mm_vision_tower": "/elsewhere/vit-x"}, checkpoint, _silent)
    with pytest.raises(ConfigurationError, match="no mm_vision_tower"):
        find_tower(family, {}, checkpoint, _silent)
    last = Path(TOWERS["llava"]).name
    for place in (checkpoint.parent / last, checkpoint.parent / "openai" / last, checkpoint / last):
        place.mkdir(parents=True)
        (place / "config.json").write_text('{"hidden_size": 5}')
        found = find_tower(family, config, checkpoint, _silent)
        assert found is not None
        assert found.path == place
        assert found.config["vision_config"] == {"hidden_size": 5}


def test_a_tower_comes_from_the_hub(loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llava")
    original = model.path.parent / Path(TOWERS["llava"]).name
    files = {file.name: file.read_bytes() for file in original.iterdir()}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "home"))
    with fake_hub(files | {"tf_model.h5": b"another copy"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        tower = find_tower(model.family, {"mm_vision_tower": "org/model"}, tmp_path, _silent)
        assert tower is not None
        assert not any("tf_model" in asked for asked in hub.asked)
    assert {file.name for file in tower.path.iterdir()} == set(files)
    weights: dict[str, dict[str, torch.Tensor]] = {}
    tower.add_weights(weights, torch.float32, CPU, _silent)
    assert "layers.2.attn.q.weight" in weights["vision"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio 'anyres', which is not supported"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type 'spatial_unpad'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True"),
        ({"mm_vision_select_feature": "cls"}, "strategy 'cls'"),
    ],
)
def test_what_later_versions_want_is_refused(change: dict[str, Any], message: str, loaded: Any) -> None:
    model = loaded("llava")
    with pytest.raises(ConfigurationError, match=message):
        model.family.encoders["vision"](model.checkpoint.config | change, torch.float32, CPU)
    with pytest.raises(ConfigurationError, match="'LlavaLlamaForCausalLM linear' is not supported"):
        find(model.checkpoint.config | {"mm_projector_type": "linear"})
