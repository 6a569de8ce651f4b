"""Write llava_golden.json from the authors' own code: python -m tests.families.make_llava_golden FOLDER_LLAVA FOLDER_YI

The folders hold the packages `llava` of haotian-liu/LLaVA and of 01-ai/Yi (`VL/llava`). Their `conversation.py` and
`mm_utils.py` make the prompts here, with the tiny tokenizers of `tests/prompt/sentencepiece_golden`, run by
sentencepiece and transformers below 5. None of it is part of this project's environment, so the tests read what it
gave.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers

from tests.prompt.make_sentencepiece_golden import FOLDER, slow

GOLDEN = json.loads((FOLDER / "golden.json").read_text())
CASES: dict[str, tuple[str, str, str]] = {  # name -> conversation, tokenizer, the literal of a picture
    "llava": ("vicuna_v1", "llava", "<image>"),
    "llava_legacy": ("vicuna_v1", "llava_legacy", "<image>"),
    "yi_vl": ("mm_default", "yi_vl", "<image_placeholder>"),
}
# Turns: user, assistant, user, ...; IMAGE stands for a picture.
TALKS = [
    ["IMAGE\nWhat is in this picture?"],
    ["How many red circles are there?"],
    ["IMAGE\n图里有几个红色的圆形？🙂"],
    ["IMAGE\nWhat?", "Two red circles.", "And on the left?"],
    ["Hello", "Hi. How can I help?", "IMAGE\nWhat is this?", "三个。", "IMAGE\nAnd this?\n  Two  lines."],
    ["IMAGE\nIMAGE\nAre they the same?"],
    ["IMAGE\n"],
]


def load(folder: Path, name: str) -> ModuleType:
    """Import `llava.NAME` without the package's own `__init__`, which wants all of its models."""
    for known in [module for module in sys.modules if module.split(".")[0] == "llava"]:
        del sys.modules[known]
    for package, path in (("llava", folder), ("llava.model", folder / "model")):
        stub = ModuleType(package)
        stub.__path__ = [str(path)]
        stub.LlavaLlamaForCausalLM = None  # type: ignore[attr-defined]
        sys.modules[package] = stub
    return importlib.import_module(f"llava.{name}")


def main(folders: list[str]) -> None:
    rows: dict[str, Any] = {"made_with": {"transformers": transformers.__version__}}
    for name, (template, tokenizer_name, literal) in CASES.items():
        folder = Path(folders[name == "yi_vl"])
        templates, utilities = load(folder, "conversation").conv_templates, load(folder, "mm_utils")
        found = GOLDEN["slow"][tokenizer_name]
        tokenizer = slow((FOLDER / f"{found['model']}.model").read_bytes(), found["config"])
        rows[name] = []
        for talk in TALKS:
            conversation = templates[template].copy()
            for index, said in enumerate([*talk, None]):
                text = said and said.replace("IMAGE", literal)
                conversation.append_message(conversation.roles[index % 2], text)
            prompt = conversation.get_prompt()
            rows[name].append([talk, prompt, utilities.tokenizer_image_token(prompt, tokenizer)])
    lines = json.dumps(rows, separators=(",", ":")).replace("]],[", "]],\n[")
    Path(__file__).with_name("llava_golden.json").write_text(lines + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
