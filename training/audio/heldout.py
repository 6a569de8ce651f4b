"""Questions for the test: voices, accents, speeds, noises, sayings and wordings not trained on."""

import base64
import io
import random
from dataclasses import dataclass

import soundfile

from . import questions
from .clips import KINDS as SOUNDS
from .clips import RATE, Clip, invent

# Kind of question: the kinds of clips it is asked about, and how often.
ABOUT = {
    "digits": {"digits": 19, "talk": 1},
    "how many digits": {"digits": 19, "beeps": 1},
    "first, last digit": {"digits": 19, "noise": 1},
    "voice": {"digits": 10, "talk": 8, "beeps": 1, "silence": 1},
    "tone": {"beeps": 18, "digits": 1, "noise": 1},
    "beeps": {"beeps": 18, "digits": 1, "silence": 1},
    "kind of sound": dict.fromkeys(SOUNDS, 1),
    "describe": {"digits": 4, "talk": 2, "beeps": 3, "silence": 1, "noise": 1},
    "yes/no": {"digits": 4, "talk": 2, "beeps": 4, "noise": 1},
}
KINDS = [*ABOUT, "something else", "no sound", "conversation"]


@dataclass
class Item:
    kind: str
    lang: str
    messages: list
    answer: str
    new_wording: bool


def _sound(clip: Clip) -> dict:
    file = io.BytesIO()
    soundfile.write(file, clip.samples, RATE, format="WAV", subtype="PCM_16")
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(file.getvalue()).decode(), "format": "wav"},
    }


def _user(rng, clip: Clip | None, text: str) -> dict:
    words = {"type": "text", "text": text}
    sounds = [_sound(clip)] if clip else []
    return {"role": "user", "content": [words, *sounds] if rng.random() < 0.3 else [*sounds, words]}


def _clip(rng, group: str) -> Clip:
    about = ABOUT[group]
    return invent(rng, rng.choices(list(about), list(about.values()))[0], held_out=True)


def make(kind: str, index: int) -> Item:
    """The same kind and index give the same question."""
    rng = random.Random(f"held-out sound {kind} {index}")
    lang, new = ("en", "zh")[index % 2], rng.random() < 0.3
    if kind in ("something else", "no sound"):
        make_one = questions.something_else if kind == "something else" else questions.orphan
        question, answer = make_one(rng, lang, new)
        return Item(kind, lang, [_user(rng, None, question)], answer, new)
    if kind == "conversation":
        messages, clip = [], _clip(rng, "describe")
        for turn in range(rng.randint(2, 4)):
            if turn:
                messages.append({"role": "assistant", "content": answer})
            question, answer = questions.ask(rng, clip, rng.choice(questions.TASKS), lang, new)
            messages.append(_user(rng, None if turn else clip, question))
        return Item(kind, lang, messages, answer, new)
    clip = _clip(rng, kind)
    tasks = [task for task, group in questions.GROUP.items() if group == kind]
    question, answer = questions.ask(rng, clip, rng.choice(tasks), lang, new)
    return Item(kind, lang, [_user(rng, clip, question)], answer, new)
