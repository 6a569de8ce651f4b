"""The wordings of a question: listed ones, composed ones, and small disturbances, none of them a held-out wording."""

import random
import re
from functools import lru_cache

from . import patterns_en, patterns_zh, wordings_en, wordings_zh

LISTED = {"en": wordings_en, "zh": wordings_zh}
COMPOSED = {"en": patterns_en.PATTERNS, "zh": patterns_zh.PATTERNS}
SHARE_COMPOSED = 0.5
SHARE_DISTURBED = 0.12

_CHOICE = re.compile(r"\(([^()]*)\)")
# Words that can be missing without changing what is asked.
_WEAK = {"the", "is", "are", "of", "a", "do", "you", "there", "please", "can", "in", "me", "this", "does"}
_WEAK_ZH = ["的", "请", "一下", "里", "中", "了", "这张", "都"]
_FILLER = "exactly actually really just now please here then again kindly simply precisely altogether maybe so quickly"
_FILLER_ZH = [
    "请",
    "那么",
    "现在",
    "其实",
    "具体",
    "大概",
    "就",
    "再",
    "快",
    "也",
    "麻烦",
    "帮忙",
    "准确",
    "一起",
    "简单",
    "此",
    "该",
    "本",
    "您看",
    "你看",
    "我说",
]


def expand(rng: random.Random, text: str) -> str:
    """One of the texts that a pattern stands for."""
    while found := _CHOICE.search(text):
        text = text[: found.start()] + rng.choice(found[1].split("|")) + text[found.end() :]
    return re.sub(r"\s+", " ", text).strip().replace(" ?", "?").replace(" .", ".").replace(" ,", ",")


def plain(text: str) -> str:
    """What two wordings have in common that differ in case, spelling, punctuation or the word for picture alone."""
    text = re.sub(r"[^\w{}]", "", text.lower()).replace("colour", "color").replace("grey", "gray")
    return re.sub(r"\{p\}|图片|图像|照片|画面|图", "{p}", text)


@lru_cache
def held_out(lang: str) -> frozenset[str]:
    from . import something_else

    tables = [*LISTED[lang].HELD_OUT.values(), *something_else.HELD_OUT[lang].values()]
    return frozenset(plain(text) for table in tables for text in table)


def composed(rng: random.Random, lang: str, task: str) -> str:
    while True:
        text = expand(rng, rng.choice(COMPOSED[lang][task]))
        if plain(text) not in held_out(lang):
            return text


def train(rng: random.Random, lang: str, task: str) -> str:
    """A wording to learn from, its slots still empty."""
    if task in COMPOSED[lang] and rng.random() < SHARE_COMPOSED:
        text = composed(rng, lang, task)
    else:
        text = rng.choice(LISTED[lang].TRAIN[task])
    if rng.random() >= SHARE_DISTURBED:
        return text
    changed = disturbed(rng, lang, text)
    return text if plain(changed) in held_out(lang) else changed


def disturbed(rng: random.Random, lang: str, text: str) -> str:
    """With a word more, a word less or a slip of the pen: one strange word must not make a question another one."""
    roll = rng.random()
    if lang == "zh":
        parts = re.split(r"(\{\w+\})", text)  # slots stay whole
        i = rng.choice([k for k, part in enumerate(parts) if not part.startswith("{")])
        weak = [word for word in _WEAK_ZH if word in parts[i]]
        if roll < 0.3 and weak:
            parts[i] = parts[i].replace(rng.choice(weak), "", 1)
        else:
            new = rng.choice(_FILLER_ZH) if roll < 0.7 else chr(rng.randint(0x4E00, 0x9FA5))
            at = rng.choice([0, 0, rng.randint(0, len(parts[i]))])
            parts[i] = parts[i][:at] + new + parts[i][at:]
        return "".join(parts)
    words = text.split(" ")
    weak = [k for k, word in enumerate(words) if word.lower() in _WEAK]
    long = [k for k, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if roll < 0.3 and weak and len(words) > 3:
        del words[rng.choice(weak)]
    elif roll < 0.5 and long:
        k = rng.choice(long)
        at = rng.randint(1, len(words[k]) - 2)
        word = words[k]
        words[k] = word[:at] + (word[at + 1] + word[at] if rng.random() < 0.5 else "") + word[at + 2 :]
    else:
        strange = "".join(rng.choice("abcdefghiklmnoprstuvwyz") for _ in range(rng.randint(3, 8)))
        words.insert(rng.randint(0, len(words)), rng.choice(_FILLER.split()) if roll < 0.8 else strange)
    return " ".join(words)
