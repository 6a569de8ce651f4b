"""Checkpoint folders with tiny tokenizers of the kinds we serve, trained from a fixed text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from sensorium.prompt.tokenizer import Tokenizer as OurTokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is in this picture? How many red circles are there?",
    "You are a helpful assistant. user system name tool call think end start <|> </s> 0123456789",
    "图里有什么？有几个红色的圆形？请用中文回答。你好，世界！",
    "def main():\n    return {'a': 1}\n\n\n  indented\ttabs  two  spaces",
    "café naïve Ωμέγα Привет 🙂🚀👩‍👩‍👧 e\u0301",
]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
QWEN_PLAIN = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# The Qwen2-VL template's form: content is a string or a list of parts.
QWEN_VL = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}"
    "{% set image_count.value = image_count.value + 1 %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' + message.content | trim "
    "+ ' [/INST]' }}{% else %}{{ ' ' + message.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)

_folders: list[TemporaryDirectory[str]] = []


def _save(backend: Tokenizer, name: str, config: dict[str, Any], model_type: str = "qwen2") -> Path:
    kept = TemporaryDirectory(prefix=f"sensorium-{name}-")
    _folders.append(kept)  # lives as long as the test run
    folder = Path(kept.name)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def _byte_level(split: str, **model: Any) -> Tokenizer:
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet))
    return backend


@cache
def qwen() -> Path:
    """Qwen2 and Qwen3: byte-level BPE with NFC, vocab.json and merges.txt beside tokenizer.json."""
    backend = _byte_level(QWEN_SPLIT)
    backend.normalizer = normalizers.NFC()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in QWEN_SPECIAL])
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in QWEN_PLAIN])
    added = {
        str(i): {"content": t.content, "special": t.special, "normalized": False, "lstrip": False, "rstrip": False}
        for i, t in backend.get_added_tokens_decoder().items()
    }
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": added,
        "additional_special_tokens": QWEN_SPECIAL[1:],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "add_bos_token": False,
        "chat_template": QWEN_VL,
    }
    folder = _save(backend, "qwen", config)
    backend.model.save(str(folder))
    return folder


@cache
def llama3() -> Path:
    """Llama 3: byte-level BPE that looks whole words up, with a bos from the post-processor."""
    backend = _byte_level(QWEN_SPLIT, ignore_merges=True)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in names])
    bos = (names[0], backend.token_to_id(names[0]))
    backend.post_processor = processors.TemplateProcessing(single=[names[0], "$A"], special_tokens=[bos])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": names[0], "eos_token": names[4]}
    return _save(backend, "llama3", config, "llama")


def _sentencepiece() -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # No rare letters in the vocabulary: they must go through the byte tokens.
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=620, special_tokens=special, limit_alphabet=60))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < 3]
    backend = Tokenizer.from_str(json.dumps(state))
    backend.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 1)])
    return backend


_LLAMA2_CONFIG = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
    "chat_template": LLAMA2,
}


@cache
def llama2_legacy() -> Path:
    """Llama 2 as converted at first: a normaliser puts a blank before every stretch of text."""
    return _save(_sentencepiece(), "llama2", {**_LLAMA2_CONFIG, "tokenizer_class": "PreTrainedTokenizerFast"}, "llama")


@cache
def llama2_metaspace() -> Path:
    """Llama 2 as converted now: a blank before the very first text only."""
    backend = _sentencepiece()
    backend.normalizer = normalizers.Sequence([])
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    config = {**_LLAMA2_CONFIG, "tokenizer_class": "PreTrainedTokenizerFast"}
    return _save(backend, "metaspace", config, "llama")


KINDS = {"qwen": qwen, "llama3": llama3, "llama2_legacy": llama2_legacy, "llama2_metaspace": llama2_metaspace}


@cache
def ours(kind: str) -> OurTokenizer:
    """The tokenizer of this kind, loaded by the package."""
    return OurTokenizer.load(KINDS[kind]())


@cache
def reference(kind: str) -> Any:
    """The same loaded by transformers."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(KINDS[kind]()))
