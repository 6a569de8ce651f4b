"""Tokenizers and chat templates for the tiny checkpoints: small, but of the same build as the real ones."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

NUM_PLAIN_TOKENS = 560  # 256 bytes and the merges; added tokens follow, as in the real tokenizers

_DIGITS = {"qwen": r"\p{N}", "qwen2_audio": r"\p{N}", "internvl": r"\p{N}", "llama": r"\p{N}{1,3}", "llava": r"\p{N}"}
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_QWEN_WORDS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_LLAMA_SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>",
)  # fmt: skip
_EXTRA = {
    "internvl": ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    "llava": ("<image>", "<pad>"),
    "qwen2_audio": ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
}

_CORPUS = (
    "The picture shows a red square above a blue circle, and a green triangle on the left of the yellow star.",
    "How many shapes are there in this image? What is the colour of the one at the bottom right? Two of them are red.",
    "You are a helpful assistant. Answer the question of the user in one short sentence, in the same language.",
    "图中有一个红色的正方形和两个蓝色的圆形。左上角的三角形是什么颜色？请用一句话回答。",
    "def describe(image):\n    return [shape.colour for shape in image.shapes if shape.area > 100]\n\n",
    "user assistant system 0 1 2 3 4 5 6 7 8 9 10 42 100 2024 3.14",
)

# ChatML of Qwen2-VL and Qwen2.5-VL: a default system turn, parts in the order given.
_PARTS = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' or 'image' in c or 'image_url' in c %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type'] == 'video' or 'video' in c %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
)
_SYSTEM = (
    "{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
)
_TURN = "{{ '<|im_start|>' + m['role'] + '\n' }}" + _PARTS + "{{ '<|im_end|>\n' }}"
_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_LOOP, _STOP = "{% for m in messages %}", "{% endfor %}"

CHAT_TEMPLATES = {
    "qwen2_vl": _LOOP + _SYSTEM + _TURN + _STOP + _END,
    "qwen3": _LOOP + _TURN + _STOP + _END,  # also Qwen3-VL: no system turn of its own
    # LLaVA-1.5: all pictures of a turn first, then its text.
    "llava": "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
    "{% if m['content'] is string %}{{ m['content'] + ' ' }}{% else %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    "internvl": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}" + _END,
    # Qwen2-Audio counts the sounds of all turns, and knows them by a key: the type it looks at is never there.
    "qwen2_audio": "{% set sounds = namespace(n=0) %}" + _LOOP + _SYSTEM + "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if 'audio' in c or 'audio_url' in c or m['type'] == 'audio' %}{% set sounds.n = sounds.n + 1 %}"
    "{{ 'Audio ' ~ sounds.n ~ ': <|audio_bos|><|AUDIO|><|audio_eos|>\n' }}"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}" + _STOP + _END,
    "llama": "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + (m['content'] | trim) + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
}


@cache
def build_tokenizer(kind: str) -> Tokenizer:
    """Return a byte-level BPE tokenizer with the added tokens of `kind`, a key of _DIGITS."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT.replace("DIGITS", _DIGITS[kind])), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_PLAIN_TOKENS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if kind in ("qwen", "qwen2_audio", "internvl"):
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _QWEN_SPECIAL])
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in _QWEN_WORDS])
    else:
        tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _LLAMA_SPECIAL])
        bos = "<|begin_of_text|>"
        template = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    extra = _EXTRA.get(kind, ())
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in extra])
    return tokenizer


def tokenizer_config(kind: str, template: str) -> dict[str, Any]:
    """Return what stands in tokenizer_config.json; `template` is a key of CHAT_TEMPLATES."""
    added = {
        str(index): {
            "content": token.content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": token.special,
        }
        for index, token in sorted(build_tokenizer(kind).get_added_tokens_decoder().items())
    }  # fmt: skip
    shared = {
        "added_tokens_decoder": added,
        "chat_template": CHAT_TEMPLATES[template],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    if kind in ("llama", "llava"):
        return shared | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
        }
    named = {"start_image": "<img>", "end_image": "</img>", "context_image": "<IMG_CONTEXT>", "video": "<video>"}
    if kind == "internvl":
        shared["extra_special_tokens"] = {f"{name}_token": text for name, text in named.items()}
    return shared | {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
    }
