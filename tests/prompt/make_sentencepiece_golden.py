"""Write sentencepiece_golden/: tiny model files, and the ids that SentencePiece and transformers 4 make of texts.

    python -m tests.prompt.make_sentencepiece_golden

needs sentencepiece, and transformers below 5, whose tokenizers in Python run that library; neither is part of this
project's environment, so the tests read what they gave.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
import transformers

FOLDER = Path(__file__).with_name("sentencepiece_golden")
CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: What is in this picture? ASSISTANT: Two red circles.",
    "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. Human: ###",
    "图里有什么？有几个红色的圆形？请用中文回答。你好，世界！这是一个好奇的人类和一个人工智能助手之间的对话。",
    "The quick brown fox jumps over the lazy dog. How many shapes are on the left? There are three of them.",
    "def main():    return {'a': 1}  indented  two  spaces   three", "aaaa aaaaaaa baaab abababab aabb aab ababa",
    "café naïve Ωμέγα Привет мир", "0123456789 2024 3.14 42 100",
    "im_start im_end system user assistant <s </s [UNUSED",
]  # fmt: skip
LLAMA = {
    "model_type": "bpe", "vocab_size": 640, "byte_fallback": True, "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True,
    "character_coverage": 0.98,
}  # fmt: skip
UNUSED = [f"[UNUSED_TOKEN_{i}]" for i in range(141, 147)]
RULES = {"ﬁ": "fi", "①": "1", "Ａ": "A", "\u2126": "\u03a9", "\u00a0": " ", "\u3000": " "}  # a small NFKC
YI = ["<|im_start|>", "<fim_prefix>", "<h1>", "\n", "▁▁", "▁▁▁▁", "▁▁▁"]
MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "internlm2": LLAMA | {"user_defined_symbols": UNUSED, "add_dummy_prefix": False},
    "yi": LLAMA | {
        "user_defined_symbols": YI, "add_dummy_prefix": False, "bos_piece": "<|startoftext|>",
        "eos_piece": "<|endoftext|>",
    },
    "unigram": {"model_type": "unigram", "vocab_size": 460, "byte_fallback": True, "hard_vocab_limit": False},
    "unigram_unk": {
        "model_type": "unigram", "vocab_size": 200, "hard_vocab_limit": False, "character_coverage": 0.98,
        "normalization_rule_name": "identity",
    },
}  # fmt: skip


def _token(text: str, special: bool = True) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": text, "special": special, **flags}


def _internlm2(pieces: int) -> dict[str, Any]:
    first = [_token("<unk>"), _token("<s>"), _token("</s>")]
    names = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
    behind = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
    listed = {str(i): token for i, token in enumerate(first)}
    # Six pieces that the model file calls otherwise, as in the real one, and more behind them all.
    listed |= {str(3 + i): _token(name) for i, name in enumerate(names)}
    return listed | {str(pieces + i): _token(name) for i, name in enumerate(behind)}


def configs(pieces: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return name -> (model, tokenizer_config.json); `pieces`: of the InternLM2 model."""
    llama = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    llama |= {"tokenizer_class": "LlamaTokenizer", "add_eos_token": False, "clean_up_tokenization_spaces": False}
    yi = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "add_bos_token": False, "pad_token": "<unk>"}
    internlm2 = llama | {"tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": _internlm2(pieces)}
    return {
        "llava": ("llama", llama | {"legacy": False}),
        "llava_legacy": ("llama", llama),
        "yi_vl": ("yi", llama | yi),
        "internlm2": ("internlm2", internlm2),
        "internlm2_prefix": ("llama", llama | {"tokenizer_class": "InternLM2Tokenizer"}),
    }


def texts(seed: int) -> list[str]:
    """Return texts of all sorts, some of them random."""
    fixed = [
        "", " ", "  ", "Hello world", " leading and trailing ", "How many red circles? 图里有几个红色的圆形？",
        "line\n\n\nbreaks\r\n\ttabs   blanks", "🙂🚀👩‍👩‍👧 e\u0301 Ω \u212a café", "▁mark▁ ▁▁x", "<0x0A><0xE4>x", "\n",
        "\nWhat is this?", "aaaaaaaaaaa aaab", "x<s>y</s>z<unk>w", "</s> USER: more", "<s>[INST] hi [/INST]</s> ok",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "[UNUSED_TOKEN_146]user\nhi[UNUSED_TOKEN_145]",
        "<img><IMG_CONTEXT></img>\nWhat?", "<h1>title<fim_prefix> <|im_start|>x", "### Human: q\n### Assistant:",
        "\x00 \x01\u200b\ufeff\u00a0\u3000end", "ﬁ ① Ａ", "    four  two   three     five", "it's I'M 12345 x=1;",
    ]  # fmt: skip
    rng = random.Random(seed)
    words = [word for line in CORPUS for word in line.split()] + ["🙂", "龘", "\n", "  ", "<s>", "aa", "a", "b", "▁"]
    letters = "aab ab<>s/_▁01é你\n🙂"
    random_texts = ["".join(rng.choices(words, k=rng.randint(1, 7))) for _ in range(40)]
    random_texts += [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(50)]
    random_texts += ["".join(rng.choices(letters, k=rng.randint(1, 30))) for _ in range(70)]
    return fixed + random_texts


def slow(model: bytes, config: dict[str, Any]) -> Any:
    """Return transformers' tokenizer in Python; InternLM2's own class tokenizes as Llama's older way does."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(model)
        config = config | {"tokenizer_class": "LlamaTokenizer"}
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"legacy": True} | config))
        return transformers.AutoTokenizer.from_pretrained(folder, use_fast=False)


def _hex(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    versions = {"sentencepiece": sentencepiece.__version__, "transformers": transformers.__version__}
    models, golden = {}, {"made_with": versions, "library": {}, "slow": {}}
    rules = FOLDER / "rules.tsv"
    rules.write_text("".join(f"{_hex(old)}\t{_hex(new)}\n" for old, new in RULES.items()))
    for name, options in MODELS.items():
        written = io.BytesIO()
        if "normalization_rule_name" not in options:
            options = options | {"normalization_rule_tsv": str(rules)}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=written, minloglevel=2, **options
        )
        models[name] = written.getvalue()
        (FOLDER / f"{name}.model").write_bytes(models[name])
        library = sentencepiece.SentencePieceProcessor(model_proto=models[name])
        golden["library"][name] = [[text, library.encode(text)] for text in texts(1)]
    pieces = len(sentencepiece.SentencePieceProcessor(model_proto=models["internlm2"]))
    for name, (model, config) in configs(pieces).items():
        tokenizer = slow(models[model], config)
        rows = []
        for text in texts(2):
            # Of several blanks at the front transformers 5 makes one fewer than 4, and so do we.
            text = text.lstrip(" ▁") if config.get("legacy") is False else text
            ids = tokenizer.encode(text, add_special_tokens=False)
            rows.append([text, ids, tokenizer.encode(text) != ids])
        golden["slow"][name] = {"model": model, "config": config, "size": len(tokenizer), "rows": rows}
    rules.unlink()
    lines = json.dumps(golden, separators=(",", ":")).replace("],[", "],\n[")
    (FOLDER / "golden.json").write_text(lines + "\n")


if __name__ == "__main__":
    main()
