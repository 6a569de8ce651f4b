"""Qwen2-Audio beside what test_parity holds: spectrograms, token counts, tower and prompt ids against transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen2AudioProcessor, WhisperFeatureExtractor

from sensorium.errors import ConfigurationError
from sensorium.families import find
from sensorium.families.family import Encoder, EncoderInput
from sensorium.families.whisper_audio import WhisperAudioProcessor
from sensorium.prompt.build import build
from sensorium.prompt.placeholders import expand
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import MediaItem, MediaSlot, Message, Part, Request, SamplingParams, Text
from tests.checkpoint_audio import PREPROCESSOR, RATE, SECONDS
from tests.families.conftest import Checkpoint, read_checkpoint, read_config
from tests.families.reference import reference_logits, reference_model

CPU = torch.device("cpu")
Samples = npt.NDArray[np.float32]

# From nothing at all to 30 s: borders of frames, of rows and of tokens, and the last ones of the window.
LENGTHS = [
    1, 2, 159, 160, 161, 200, 201, 319, 320, 321, 400, 479, 480, 481, 639, 640, 641, 800, 960, 961, 1119, 1120, 1121,
    1600, 7777, 16000, 16001, 100000, 300001, 479040, 479359, 479360, 479361, 479519, 479521, 479999, 480000,
]  # fmt: skip
HEARD = [321, 400, 641, 5000, 16001, 160000, 479360, 479999, 480000]


def noise(num_samples: int, seed: int = 5) -> Samples:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def processor(path: Path) -> Any:
    return find(read_config(path)).media["audio"].processor(read_checkpoint(path))


def thirty_seconds() -> WhisperAudioProcessor:
    return WhisperAudioProcessor.read(PREPROCESSOR | {"chunk_length": 30}, num_mels=128, max_rows=1500)


def theirs(path: Path) -> Qwen2AudioProcessor:
    tokenizer = AutoTokenizer.from_pretrained(path)
    # Without a template of its own the library's would be taken, whatever the tokenizer has.
    return Qwen2AudioProcessor(WhisperFeatureExtractor.from_pretrained(path), tokenizer, tokenizer.chat_template)


def tower(path: Path, dtype: torch.dtype = torch.float32) -> Encoder:
    config = read_config(path)
    family = find(config)
    named = ((family.rename(name), tensor) for name, tensor in load_file(path / "model.safetensors").items())
    encoder = family.encoders["audio"](config, dtype, CPU)
    encoder.load({where[1]: tensor.to(dtype) for where, tensor in named if where and where[0] == "audio"})
    return encoder


def run(encoder: Encoder, clips: list[EncoderInput]) -> list[torch.Tensor]:
    *steps, result = encoder.encode(clips)
    assert len(steps) == len(vars(encoder)["_layers"])  # a pause after each
    assert all(step is None for step in steps)
    assert result is not None
    return result


def reference_rows(path: Path, sounds: list[Samples]) -> list[torch.Tensor]:
    """What transformers' projector gives for the sounds of one prompt, each without the rows of its padding."""
    found = theirs(path)(text="<|AUDIO|>" * len(sounds), audio=sounds, sampling_rate=RATE, return_tensors="pt")
    model, caught = reference_model(path), []
    hook = model.model.multi_modal_projector.register_forward_hook(lambda module, args, out: caught.append(out))
    model(**found)
    hook.remove()
    lengths = model.model.audio_tower._get_feat_extract_output_lengths(found["feature_attention_mask"].sum(-1))[1]
    return [rows[:length] for rows, length in zip(caught[0], lengths.tolist(), strict=True)]


def test_token_counts_equal_transformers() -> None:
    ours, extractor = thirty_seconds(), WhisperFeatureExtractor(feature_size=128)
    for length in LENGTHS:
        padded = extractor.pad(
            {"input_features": [np.zeros((length, 1), np.float32)]},
            padding="max_length",
            max_length=480000,
            return_attention_mask=True,
        )
        frames = int(padded["attention_mask"][:, ::160].sum())
        assert ours.num_tokens(length) == (((frames - 1) // 2 + 1) - 2) // 2 + 1, length
    assert ours.layout(480000).num_slots == 750


@pytest.mark.parametrize("kind", ["noise", "tone", "click", "quiet", "silence"])
def test_features_equal_transformers(kind: str) -> None:
    ours, extractor = thirty_seconds(), WhisperFeatureExtractor(feature_size=128)
    for length in HEARD if kind == "noise" else HEARD[::4]:
        time = np.arange(length) / RATE
        sound = {
            "noise": noise(length),
            "tone": (0.5 * np.sin(2 * np.pi * 440 * time) + 0.01 * np.sin(2 * np.pi * 3000 * time)).astype(np.float32),
            "click": np.eye(1, length, length - 1, dtype=np.float32)[0],  # the last sample, seen from behind the clip
            "quiet": 1e-6 * noise(length),
            "silence": np.zeros(length, np.float32),
        }[kind]
        wanted = extractor(sound, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt")
        found = ours(sound, {})
        features, frames = found.tensors["input_features"], int(wanted["attention_mask"].sum())
        rows = (frames - 1) // 2 + 1
        assert features.shape == (128, min(2 * rows + 1, 3000))
        assert (found.layout.num_slots, found.cost, found.encoder) == (rows // 2, rows, "audio")
        whole = wanted["input_features"][0]
        torch.testing.assert_close(features, whole[:, : features.shape[1]], atol=1e-4, rtol=0)
        behind = whole[:, ours.mel(sound).shape[1] :]  # what is not computed here is silence there
        assert behind.numel() == 0 or behind.max() == behind.min()


def test_sounds_that_do_not_fit_are_refused_with_both_numbers() -> None:
    ours = thirty_seconds()
    with pytest.raises(ValueError, match=r"31\.00 s long .* at most 30 s .* `start` and `end`"):
        ours(noise(31 * RATE), {})
    with pytest.raises(ValueError, match=r"480001 samples at 16000 Hz\).* \(480000 samples\)"):
        ours.layout(480001)
    with pytest.raises(ValueError, match="has 320 samples at 16000 Hz; this model needs at least 321, 20 ms"):
        ours(noise(320), {})
    with pytest.raises(ValueError, match="has 0 samples"):
        ours.layout(0)
    assert (ours.rate, ours.max_seconds) == (16000, 30.0)


def test_files_that_do_not_fit_the_tower_are_refused(checkpoint: Checkpoint) -> None:
    for wrong in ({"feature_size": 80}, {"chunk_length": 20}):
        with pytest.raises(ConfigurationError, match=r"the tower in config\.json takes 128 bands and 3000 frames"):
            WhisperAudioProcessor.read(PREPROCESSOR | {"chunk_length": 30} | wrong, num_mels=128, max_rows=1500)
    with pytest.raises(ConfigurationError, match=r"'dither': 0\.1"):
        WhisperAudioProcessor.read(PREPROCESSOR | {"dither": 0.1}, num_mels=128, max_rows=150)
    config = read_config(checkpoint("qwen2_audio"))
    make = find(config).encoders["audio"]
    with pytest.raises(ConfigurationError, match="activation_function 'relu'; supported: 'gelu'"):
        make(config | {"audio_config": {"activation_function": "relu"}}, torch.float32, CPU)
    with pytest.raises(ConfigurationError, match="no 'audio_config'"):
        make(config | {"audio_config": None}, torch.float32, CPU)


def test_a_processor_tells_what_changes_its_features(checkpoint: Checkpoint) -> None:
    ours = processor(checkpoint("qwen2_audio"))
    assert ours.within(10) is ours
    assert ours.limits({}) == {}
    assert ours.fingerprint() == processor(checkpoint("qwen2_audio")).fingerprint() != thirty_seconds().fingerprint()


def test_settings_are_found_where_transformers_saves_them(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = checkpoint("qwen2_audio")
    theirs(path).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    assert processor(tmp_path).fingerprint() == processor(path).fingerprint()


@pytest.mark.parametrize("layout", ["hub", "saved"])
def test_tower_output_equals_transformers(layout: str, checkpoint: Checkpoint) -> None:
    path = checkpoint("qwen2_audio", layout)
    encoder, hear = tower(path), processor(path)
    lengths = [641, 961, 1281, 20000, 20000, 33333, 47359, 47360, 47361, 47999, SECONDS * RATE]
    sounds = [noise(length, seed) for seed, length in enumerate(lengths)]
    clips = [hear(sound, {}) for sound in sounds]
    together = run(encoder, clips)
    for clip, ours, wanted in zip(clips, together, reference_rows(path, sounds), strict=True):
        assert ours.shape == (clip.layout.num_slots, encoder.out_features) == (len(wanted), 64)
        assert wanted.std() > 0.1
        torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours, run(encoder, [clip])[0], atol=2e-5, rtol=0)


def test_bfloat16_stays_near_float32(checkpoint: Checkpoint) -> None:
    path = checkpoint("qwen2_audio")
    clips = [processor(path)(noise(length), {}) for length in (9000, 30000)]
    for ours, wanted in zip(run(tower(path, torch.bfloat16), clips), run(tower(path), clips), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - wanted).norm() / wanted.norm() < 0.03


def test_wrong_tensors_are_named(checkpoint: Checkpoint) -> None:
    path = checkpoint("qwen2_audio")
    family, config = find(read_config(path)), read_config(path)
    named = ((family.rename(name), tensor) for name, tensor in load_file(path / "model.safetensors").items())
    weights = {where[1]: tensor for where, tensor in named if where and where[0] == "audio"}
    encoder = family.encoders["audio"](config, torch.float32, CPU)
    with pytest.raises(ConfigurationError, match=r"no tensor 'layers\.1\.attn\.v\.bias'"):
        encoder.load({name: tensor for name, tensor in weights.items() if name != "layers.1.attn.v.bias"})
    with pytest.raises(ConfigurationError, match=r"'positions' of the audio tower has shape \(9, 32\).* \(150, 32\)"):
        encoder.load(weights | {"positions": torch.ones(9, 32)})
    with pytest.raises(ConfigurationError, match=r"does not use: layers\.0\.attn\.k\.bias"):
        encoder.load(weights | {"layers.0.attn.k.bias": torch.ones(32)})


SOUND, ASK = {"type": "audio", "audio_url": "x"}, {"type": "text", "text": "What do you hear? 42 <|AUDIO|"}
CHATS: dict[str, list[tuple[str, list[dict[str, str]]]]] = {
    "text only": [("user", [ASK])],
    "one clip": [("user", [SOUND, ASK])],
    "text first, and a system turn": [("system", [{"type": "text", "text": "Be brief."}]), ("user", [ASK, SOUND])],
    "two clips in one turn": [("user", [SOUND, ASK, SOUND])],
    "clips in several turns": [
        ("user", [SOUND, ASK]),
        ("assistant", [{"type": "text", "text": "A red square."}]),
        ("user", [SOUND, SOUND, ASK]),
    ],
}


@pytest.mark.parametrize("chat", CHATS)
def test_prompts_equal_transformers(chat: str, checkpoint: Checkpoint) -> None:
    """Ids, and the logits of the whole way: transformers' own features on one side, ours on the other."""
    path = checkpoint("qwen2_audio")
    family, files, tokenizer = find(read_config(path)), read_checkpoint(path), Tokenizer.load(path)
    count = sum(part is SOUND for _, parts in CHATS[chat] for part in parts)
    sounds = [noise(length, seed) for seed, length in enumerate([20000, 7777, 641][:count])]
    messages, number = [], iter(range(count))
    for role, parts in CHATS[chat]:
        content: list[Part] = [MediaSlot("audio", next(number)) if p is SOUND else Text(p["text"]) for p in parts]
        messages.append(Message(role, tuple(content)))
    items = tuple(MediaItem("audio", sound.tobytes(), f"item {n}") for n, sound in enumerate(sounds))
    request = Request("r", SamplingParams(), messages=tuple(messages), media=items)
    media = family.media["audio"]
    ids, _ = build(
        request,
        tokenizer,
        ChatTemplate.load(path, None, tokenizer),
        media_placeholder={"audio": media.marker},
        placeholder_ids={"audio": media.placeholder(files)},
    )
    hear = processor(path)
    clips = [hear(sound, {}) for sound in sounds]
    layouts = [("audio", clip.layout.num_slots) for clip in clips]
    found, _ = expand(ids, {"audio": media.placeholder(files)}, layouts)

    reference = theirs(path)
    chats = [
        {"role": role, "content": parts if SOUND in parts else "\n".join(p["text"] for p in parts)}
        for role, parts in CHATS[chat]
    ]
    text = reference.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    assert text.count("Audio ") == count
    kwargs = {"audio": sounds, "sampling_rate": RATE} if sounds else {}
    wanted = reference(text=text, return_tensors="pt", **kwargs)
    assert found == wanted["input_ids"][0].tolist()
    if count:
        logits = reference_model(path)(**wanted).logits[0]
        torch.testing.assert_close(reference_logits(path, "qwen2_audio", found, clips), logits, atol=1e-4, rtol=0)
