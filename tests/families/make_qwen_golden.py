"""Write qwen_golden.json and .npz from the authors' own code: python -m tests.families.make_qwen_golden FOLDER

FOLDER holds `modeling_qwen.py`, `visual.py`, `tokenization_qwen.py` and the other Python files published beside the
checkpoints of Qwen-VL-Chat. They are not part of this project, so the tests read what they gave: for chats, prompt ids,
logits and greedy tokens, decoded one by one with their cache; for pictures, pixels; for texts, tiktoken's ids.
Weights and pictures are those of `tests/qwen_checkpoints.py`, seed 0. Needs transformers 4.37, torchvision, tiktoken,
einops and matplotlib. A vocabulary is trained only where `tests/tiny.tiktoken` is not there.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
import tempfile
import unicodedata
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests import qwen_checkpoints as tiny

HERE = Path(__file__).parent
SIZES = {"a.png": (60, 90), "b.png": (448, 448), "c.png": (500, 333)}  # (height, width); seeds are 0, 1, 2
PIXELS = [*SIZES.values(), (1, 1), (3, 900), (1200, 1600), (447, 449)]
COLUMNS = 13  # every so manieth logit is kept
EACH_ROW = 5

_LONG = "The quick brown fox jumps over the lazy dog; 敏捷的棕色狐狸跳过懒狗。 "
_PLACES = "<ref>the dog</ref><box>(12,34),(560,780)</box> and <quad>(1,2),(3,4),(5,6),(7,8)</quad>"
# A turn is (role, parts); a part that ends in .png is a picture.
CHATS: dict[str, list[tuple[str, list[str]]]] = {
    "text": [("user", ["Hello! What is 12 + 34?"])],
    "picture": [("user", ["a.png", "What is this?"])],
    "pictures": [
        ("system", ["Answer briefly. 简短回答。"]),
        ("user", ["a.png", "c.png", "Where is the dog? 狗在哪里？"]),
        ("assistant", [_PLACES]),
        ("user", ["Compare it with this: ", "b.png", "Which is larger?\n\n- the first\n- the second"]),
        ("assistant", ["The second."]),
        ("user", ["Why?"]),
    ],
    "long": [("user", ["a.png", _LONG * 4])],
    "longer": [("user", [_LONG * 5, "b.png", _LONG * 3])],
    "growing": [("user", [_LONG])],  # a short prompt whose answer goes on beyond seq_length
}
OUTPUTS = {"growing": 60}

TEXTS = [
    "Hello, world! It's 12:34 and we'll see what they've done.", "HE'S SHE'LL I'D", " leading and trailing  ",
    "你好，世界！今天天气很好。敏捷的棕色狐狸。", "日本語のテキスト、한국어 텍스트, русский текст, עברית, ไทย",
    "😀👩‍👩‍👧‍👦🇩🇪✨ and \u200bzero\u00a0width", "cafe\u0301 = café; \u1e9b\u0323; ﬁ",
    "def f(x):\n    return {'a': [x**2, 0x1F]}\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\r\n\r\n",
    "a  b   c    d\t\te\n\n\nf \n g\r\n  h   ", "\n", "   ", "\t\n \n  x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "=====-----=====\n#####", "1234567890 3.14159 1,000,000", "", "x",
    "\x00\x01\x7f control", "http://example.com/a_b?c=d&e=%20f#g", "👍🏽👍🏿", "\ufeffbom", "ＦＵＬＬ　ｗｉｄｔｈ",
]  # fmt: skip
# With the special tokens in them: as text, and as tokens.
LITERALS = [
    "<|im_start|>user\nhi<|im_end|>", "a<|endoftext|>b", "<|extra_0|><|extra_204|><|extra_205|>", "<img>x.png</img>",
    "<ref>a dog</ref><box>(1,2),(3,4)</box>", "<imgpad><imgpad>", "<quad>(1,2)</quad>", "< |im_start|> <|im_start |>",
]  # fmt: skip


def train_vocabulary() -> None:
    """Train 256 + 1500 tokens on this project's own pages and code, in the order tiktoken's files have."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from sensorium.prompt.byte_pieces import BYTE_OF_CHARACTER
    from sensorium.prompt.tiktoken_file import QWEN_SPLIT

    root = HERE.parent.parent
    corpus = [root / "README.md", root / "README.zh-CN.md", root / "ARCHITECTURE.md", *sorted(root.glob("src/**/*.py"))]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1756, show_progress=False, initial_alphabet=alphabet)
    backend.train_from_iterator([file.read_text(encoding="utf-8") for file in corpus], trainer)
    ranks = sorted(backend.get_vocab().items(), key=lambda pair: pair[1])
    lines = [
        base64.b64encode(bytes(BYTE_OF_CHARACTER[c] for c in token)) + b" %d\n" % rank for rank, (token, _) in
        enumerate(ranks)
    ]  # fmt: skip
    tiny.VOCABULARY.write_bytes(b"".join(lines))


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder.parent))
    modeling, configuration, tokenization, generation = (
        importlib.import_module(f"{folder.name}.{name}")
        for name in ("modeling_qwen", "configuration_qwen", "tokenization_qwen", "qwen_generation_utils")
    )
    tokenization.IMG_TOKEN_SPAN = tiny.QUERIES
    tokenizer = tokenization.QWenTokenizer(str(tiny.VOCABULARY))
    model = modeling.QWenLMHeadModel(configuration.QWenConfig(**tiny.qwen_config("qwen_vl"))).eval()
    model.load_state_dict(tiny.qwen_tensors("qwen_vl"))
    golden: dict[str, Any] = {"made_with": _versions(), "chats": {}, "pixels": [], "texts": [], "literals": []}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        os.chdir(scratch)
        for seed, (file, size) in enumerate(SIZES.items()):
            Image.fromarray(tiny.qwen_picture(*size, seed)).save(file)
        features = model.transformer.visual.encode(list(SIZES))
        arrays["features"] = features[:, :, ::COLUMNS].numpy()
        for name, chat in CHATS.items():
            ids = _prompt(chat, tokenizer, generation.make_context)
            logits, answer = _run(model, ids, OUTPUTS.get(name, 8))
            arrays[f"{name} logits"] = logits[::EACH_ROW, ::COLUMNS].numpy()
            arrays[f"{name} sums"] = torch.logsumexp(logits, -1).numpy()
            golden["chats"][name] = {"ids": _padded(ids, tokenizer), "answer": answer}
    for seed, size in enumerate(PIXELS):
        pixels = model.transformer.visual.image_transform(Image.fromarray(tiny.qwen_picture(*size, seed)))
        golden["pixels"].append([*size, blake2b(pixels.numpy().tobytes(), digest_size=16).hexdigest()])
    encode = tokenizer.tokenizer.encode
    for text in TEXTS + LITERALS:
        plain = unicodedata.normalize("NFC", text)
        golden["texts"].append([text, encode(plain, allowed_special=set(), disallowed_special=())])
    for text in LITERALS:
        ids = encode(text, allowed_special="all")
        skipped = tokenizer.tokenizer.decode(ids)
        golden["literals"].append([text, ids, skipped])
    lines = json.dumps(golden, separators=(",", ":"), ensure_ascii=True).replace("],[", "],\n[").replace("},", "},\n")
    (HERE / "qwen_golden.json").write_text(lines + "\n")
    np.savez_compressed(HERE / "qwen_golden.npz", **arrays)


def _prompt(chat: list[tuple[str, list[str]]], tokenizer: Any, make_context: Any) -> list[int]:
    """The chat as `model.chat` puts it together."""
    number, turns = 0, []
    for role, parts in chat:
        text = ""
        for part in parts:
            number += part.endswith(".png")
            text += f"Picture {number}: <img>{part}</img>\n" if part.endswith(".png") else part
        turns.append((role, text))
    system = dict(turns).get("system", "You are a helpful assistant.")
    said = [text for role, text in turns if role != "system"]
    history = list(zip(said[:-1:2], said[1::2], strict=True))
    _, ids = make_context(tokenizer, said[-1], history=history, system=system, chat_format="chatml")
    return list(ids)


def _run(model: Any, ids: list[int], num_output: int) -> tuple[torch.Tensor, list[int]]:
    """Logits of the prompt and greedy tokens, each from the cache of those before."""
    past, new, answer, first = None, ids, [], None
    for _ in range(num_output):
        mask = torch.ones(1, len(ids) + len(answer), dtype=torch.long)
        out = model(torch.tensor([new]), attention_mask=mask, past_key_values=past, use_cache=True)
        first = out.logits[0] if first is None else first
        past, new = out.past_key_values, [int(out.logits[0, -1].argmax())]
        answer += new
    assert first is not None
    return first.float(), answer


def _padded(ids: list[int], tokenizer: Any) -> list[int]:
    """The prompt with a picture's name, which stands between its tags, written over with <imgpad>."""
    result, inside = [], False
    for token_id in ids:
        inside = inside and token_id != tokenizer.img_end_id
        result.append(tokenizer.img_pad_id if inside else token_id)
        inside = inside or token_id == tokenizer.img_start_id
    return result


def _versions() -> dict[str, str]:
    names = ("torch", "torchvision", "transformers", "tiktoken", "PIL", "numpy")
    return {name: importlib.import_module(name).__version__ for name in names}


if __name__ == "__main__":
    if tiny.VOCABULARY.exists():
        main(Path(sys.argv[1]).resolve())
    else:
        train_vocabulary()
        sys.exit("A vocabulary was trained; run again.")
