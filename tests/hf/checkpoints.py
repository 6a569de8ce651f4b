"""Tiny random checkpoints of architectures that no native family serves, saved by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import (
    Gemma2Config,
    Gemma3Config,
    GlmAsrConfig,
    GPTNeoXConfig,
    Idefics3Config,
    LlavaOnevisionConfig,
    SmolVLMConfig,
)

from tests.checkpoint_text import CHAT_TEMPLATES, build_tokenizer

IMAGE_TOKENS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4))
IDEFICS_TEMPLATE = (
    "<|begin_of_text|>{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% elif c['type'] == 'image' %}<image>{% endif %}"
    "{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
SMOLVLM_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "vocab_size": 608,
}


def gemma2(path: Path, **saving: Any) -> Path:
    """Soft-capped logits, and every other layer with a window of 8 tokens: the cache is of two kinds."""
    tokenizer = build_tokenizer("llama")
    config = Gemma2Config(
        **_TEXT, intermediate_size=48, num_key_value_heads=2, head_dim=8, sliding_window=8, query_pre_attn_scalar=8,
        tie_word_embeddings=False,
        **_ids(tokenizer),
    )  # fmt: skip
    return _save(transformers.Gemma2ForCausalLM, config, path, tokenizer, CHAT_TEMPLATES["llama"], **saving)


def gpt_neox(path: Path, **saving: Any) -> Path:
    """LayerNorm, biases, a parallel MLP, a quarter of each head rotated."""
    tokenizer = build_tokenizer("llama")
    config = GPTNeoXConfig(**_TEXT, intermediate_size=64, **_ids(tokenizer))
    return _save(transformers.GPTNeoXForCausalLM, config, path, tokenizer, CHAT_TEMPLATES["llama"], **saving)


def idefics3(path: Path) -> Path:
    """SigLIP, pixel shuffle and Llama; a picture is cut into tiles, each with a name of its own in the prompt."""
    tokenizer = Tokenizer.from_str(build_tokenizer("llama").to_str())
    tokenizer.add_special_tokens([*IMAGE_TOKENS, *ROWS])
    ids = _ids(tokenizer, "<end_of_utterance>")
    config = Idefics3Config(
        text_config={
            "model_type": "llama", **_TEXT, **ids, "intermediate_size": 48, "num_key_value_heads": 2,
            "pad_token_id": ids["pad_token_id"],
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        image_token_id=tokenizer.token_to_id("<image>"),
        scale_factor=2,
        **ids,
    )  # fmt: skip
    _save(transformers.Idefics3ForConditionalGeneration, config, path, tokenizer, IDEFICS_TEMPLATE)
    processor = {
        "image_processor_type": "Idefics3ImageProcessor", "processor_class": "Idefics3Processor",
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 1,
        "rescale_factor": 1 / 255, "size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32},
    }  # fmt: skip
    _write(path / "preprocessor_config.json", processor)
    _write(path / "processor_config.json", {"processor_class": "Idefics3Processor", "image_seq_len": 4})
    return path


def smolvlm(path: Path, longest: int = 96) -> Path:
    """Idefics 3's younger sibling, which is native: pictures are scaled to `longest` pixels and cut into 32 by 32."""
    tokenizer = Tokenizer.from_str(build_tokenizer("llama").to_str())
    tokenizer.add_special_tokens([*IMAGE_TOKENS, *ROWS])
    ids = _ids(tokenizer, "<end_of_utterance>")
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **_TEXT, **ids, "intermediate_size": 48, "num_key_value_heads": 2},
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 4,
        },
        image_token_id=tokenizer.token_to_id("<image>"),
        scale_factor=4,
        **ids,
    )  # fmt: skip
    _save(transformers.SmolVLMForConditionalGeneration, config, path, tokenizer, SMOLVLM_TEMPLATE)
    processor = {
        "image_processor_type": "SmolVLMImageProcessor", "processor_class": "SmolVLMProcessor",
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 1,
        "rescale_factor": 1 / 255, "size": {"longest_edge": longest}, "max_image_size": {"longest_edge": 32},
    }  # fmt: skip
    _write(path / "preprocessor_config.json", processor)
    _write(path / "processor_config.json", {"processor_class": "SmolVLMProcessor", "image_seq_len": 4})
    return path


def gemma3(path: Path) -> Path:
    """SigLIP and Gemma 3: pictures attend in both directions, which the model learns from token types."""
    tokenizer = Tokenizer.from_str(build_tokenizer("llama").to_str())
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer.add_special_tokens(list(names.values()))
    ids = _ids(tokenizer)
    config = Gemma3Config(
        text_config={
            **_TEXT, **ids, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8,
            "tie_word_embeddings": False,
        },
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        mm_tokens_per_image=4,
        image_token_index=tokenizer.token_to_id("<image_soft_token>"),
        boi_token_index=tokenizer.token_to_id("<start_of_image>"),
        eoi_token_index=tokenizer.token_to_id("<end_of_image>"),
        tie_word_embeddings=False,
        **ids,
    )  # fmt: skip
    template = IDEFICS_TEMPLATE.replace("<image>", "<start_of_image>").replace("<end_of_utterance>", "<|eot_id|>")
    kind = transformers.Gemma3ForConditionalGeneration
    _save(kind, config, path, tokenizer, template, {"extra_special_tokens": names})
    processor = {
        "image_processor_type": "Gemma3ImageProcessor", "processor_class": "Gemma3Processor", "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 32, "width": 32},
    }  # fmt: skip
    _write(path / "preprocessor_config.json", processor)
    _write(path / "processor_config.json", {"processor_class": "Gemma3Processor", "image_seq_length": 4})
    return path


def glm_asr(path: Path) -> Path:
    """An encoder with rotary positions over Whisper's features, and Llama."""
    tokenizer = Tokenizer.from_str(build_tokenizer("llama").to_str())
    tokenizer.add_special_tokens(["<|pad|>", "<|begin_of_audio|>", "<|end_of_audio|>"])
    ids = _ids(tokenizer)
    config = GlmAsrConfig(
        text_config={"model_type": "llama", **_TEXT, **ids, "intermediate_size": 48, "num_key_value_heads": 2},
        audio_config={
            "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_mel_bins": 80, "max_position_embeddings": 200,
        },
        audio_token_id=tokenizer.token_to_id("<|pad|>"),
        tie_word_embeddings=False,
        **ids,
    )  # fmt: skip
    template = IDEFICS_TEMPLATE.replace("'image' %}<image>", "'audio' %}<|begin_of_audio|><|pad|><|end_of_audio|>")
    template = template.replace("<end_of_utterance>", "<|eot_id|>")
    _save(transformers.GlmAsrForConditionalGeneration, config, path, tokenizer, template)
    _write(
        path / "processor_config.json",
        {
            "processor_class": "GlmAsrProcessor",
            "audio_token": "<|pad|>",
            "max_audio_len": 8,
            "feature_extractor": {
                "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "chunk_length": 4,
                "sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "return_attention_mask": True,
            },
        },
    )  # fmt: skip
    return path


def llava_onevision(path: Path) -> Path:
    """SigLIP and Qwen2; pictures in tiles of any arrangement, frames of videos pooled two by two."""
    tokenizer = Tokenizer.from_str(build_tokenizer("llama").to_str())
    tokenizer.add_special_tokens(["<image>", "<video>"])
    ids = _ids(tokenizer)
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_TEXT, **ids, "intermediate_size": 48, "num_key_value_heads": 2},
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "vision_use_head": False,
        },
        image_token_index=tokenizer.token_to_id("<image>"),
        video_token_index=tokenizer.token_to_id("<video>"),
        image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]],
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        **ids,
    )  # fmt: skip
    template = IDEFICS_TEMPLATE.replace(
        "<image>{% endif %}", "<image>{% elif c['type'] == 'video' %}<video>{% endif %}"
    )
    template = template.replace("<end_of_utterance>", "<|eot_id|>")
    _save(transformers.LlavaOnevisionForConditionalGeneration, config, path, tokenizer, template)
    pixels = {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 3,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"height": 32, "width": 32},
    }  # fmt: skip
    _write(
        path / "processor_config.json",
        {
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "image_processor": pixels
            | {
                "image_processor_type": "LlavaOnevisionImageProcessor",
                "image_grid_pinpoints": [[32, 32], [32, 64], [64, 32]],
            },
            "video_processor": pixels | {"video_processor_type": "LlavaOnevisionVideoProcessor"},
        },
    )
    return path


def _ids(tokenizer: Tokenizer, end: str = "<|eot_id|>") -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.token_to_id("<|begin_of_text|>"),
        "eos_token_id": tokenizer.token_to_id(end),
        "pad_token_id": tokenizer.token_to_id("<|end_of_text|>"),
    }


def _save(
    kind: Any,
    config: Any,
    path: Path,
    tokenizer: Tokenizer,
    template: str,
    extra: dict[str, Any] | None = None,
    **saving: Any,
) -> Path:
    torch.manual_seed(0)
    model = kind(config).float()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:  # the library's own 0.02 gives logits so flat that every token is a near tie
            torch.nn.init.normal_(parameter, std=0.5 if "embed" in name else parameter.shape[-1] ** -0.5)
    if saving.pop("bin", False):
        model.config.save_pretrained(path)
        config_file = path / "config.json"
        _write(config_file, json.loads(config_file.read_text()) | {"architectures": [kind.__name__]})
        torch.save(model.state_dict(), path / "pytorch_model.bin")
    else:
        model.save_pretrained(path, **saving)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>",
        "eos_token": tokenizer.id_to_token(config.eos_token_id), "pad_token": "<|end_of_text|>",
        "model_max_length": 512, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    _write(path / "tokenizer_config.json", settings | (extra or {}))
    (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    return path


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
