"""Invents a clip: its samples at 16 kHz, and what is true of every moment of it."""

from dataclasses import dataclass, field

import numpy as np
import soxr

from . import noises, voices
from .espeak import say

RATE = 16000
LONGEST = 8 * RATE
KINDS = ["digits", "talk", "beeps", "silence", "noise"]
HIGH, LOW = (1100.0, 3000.0), (150.0, 500.0)  # hertz
MOST = 6  # digits or beeps
QUIET = 0.03  # of the loudest moment: below this nothing is heard


@dataclass
class Clip:
    kind: str
    samples: np.ndarray  # float32 in -1..1
    digits: list[int] = field(default_factory=list)
    beeps: int = 0
    woman: bool | None = None  # None: nobody speaks
    high: bool | None = None  # None: no beep
    spans: list[tuple[int, int]] = field(default_factory=list)  # first and last sample of each digit or beep, or of all

    @property
    def count(self) -> int:
        return len(self.digits) or self.beeps


def _speech(rng, words: list[str], lang: str, woman: bool, held_out: bool):
    """Samples and the first sample of every word, or None where espeak-ng tells another number of words."""
    comma, space = ("，", "") if lang == "zh" else (", ", " ")
    commas = rng.choice([0.0, 0.0, 0.3, 1.0])
    text = words[0] + "".join((comma if rng.random() < commas else space) + word for word in words[1:])
    gap = rng.choice([0, 0, 0, rng.randint(1, 25)])
    speed, pitch, melody = voices.speed(rng, held_out), rng.uniform(38, 62), rng.uniform(20, 80)
    wave, starts, rate = say(voices.voice(rng, lang, woman, held_out), text, speed, pitch, melody, gap)
    if len(starts) != len(words):
        return None
    # A little faster or slower on the whole, so also higher or lower: voices espeak-ng has not.
    stretch = 1.0 if held_out else rng.uniform(0.96, 1.04)
    wave = soxr.resample(wave, rate * stretch, RATE, quality="LQ").astype(np.float32)
    return wave, [round(s * RATE / rate / stretch) for s in starts]


def _trimmed(wave: np.ndarray, spans) -> list[tuple[int, int]]:
    """The spans without the silence at their ends."""
    loud = np.abs(wave) > QUIET * np.abs(wave).max()
    out = []
    for a, b in spans:
        there = np.flatnonzero(loud[a:b])
        out.append((a + int(there[0]), a + int(there[-1]) + 1) if len(there) else (a, b))
    return out


def _digits(rng, held_out, most):
    while True:
        lang, woman = rng.choice(["en", "zh"]), rng.random() < 0.5
        digits = [rng.randrange(10) for _ in range(rng.randint(1, most))]
        found = _speech(rng, [voices.DIGITS[lang][d] for d in digits], lang, woman, held_out)
        if found and len(found[0]) < LONGEST - RATE:
            wave, starts = found
            spans = _trimmed(wave, zip(starts, [*starts[1:], len(wave)], strict=True))
            return Clip("digits", wave, digits, woman=woman, spans=spans)


def _talk(rng, held_out):
    lang, woman = rng.choice(["en", "zh"]), rng.random() < 0.5
    text = rng.choice(voices.talk(lang, held_out))
    if rng.random() < 0.3:
        text += (", " if lang == "en" else "，") + rng.choice(voices.talk(lang, held_out))
    speed, pitch = voices.speed(rng, held_out), rng.uniform(38, 62)
    wave, _, rate = say(voices.voice(rng, lang, woman, held_out), text, speed, pitch, rng.uniform(20, 80))
    wave = soxr.resample(wave, rate, RATE, quality="LQ").astype(np.float32)
    return Clip("talk", wave, woman=woman, spans=_trimmed(wave, [(0, len(wave))]))


def _beep(rng, hertz: float, seconds: float, shape: str) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * hertz * t)
    if shape == "square":
        wave = np.tanh(4 * wave)
    elif shape == "overtones":
        wave = wave + 0.4 * np.sin(4 * np.pi * hertz * t) + 0.2 * np.sin(6 * np.pi * hertz * t)
    fade = min(len(t) // 4, round(rng.uniform(0.002, 0.02) * RATE))
    ramp = np.linspace(0, 1, fade)
    wave[:fade] *= ramp
    wave[-fade:] *= ramp[::-1]
    return wave.astype(np.float32) * 0.5


def _beeps(rng, held_out, most):
    count, high = rng.randint(1, most), rng.random() < 0.5
    low_hertz, high_hertz = HIGH if high else LOW
    hertz = low_hertz * (high_hertz / low_hertz) ** rng.random()
    shape = "overtones" if held_out and rng.random() < 0.5 else rng.choice(["sine", "sine", "square"])
    long, pause = rng.uniform(0.09, 0.45), rng.uniform(0.1, 0.45)
    if count == 1:
        long = rng.uniform(0.1, 2.0)
    parts, spans, at = [], [], 0
    for _ in range(count):
        beep = _beep(rng, hertz, long, shape)
        spans.append((at, at + len(beep)))
        gap = round(pause * rng.uniform(0.85, 1.2) * RATE)
        parts += [beep, np.zeros(gap, np.float32)]
        at += len(beep) + gap
    return Clip("beeps", np.concatenate(parts[:-1]), beeps=count, high=high, spans=spans)


def invent(rng, kind: str, held_out=False, most=MOST) -> Clip:
    """A clip of this kind; the same state of `rng` gives the same clip."""
    if kind == "digits":
        clip = _digits(rng, held_out, most)
    elif kind == "talk":
        clip = _talk(rng, held_out)
    elif kind == "beeps":
        clip = _beeps(rng, held_out, most)
    else:
        clip = Clip(kind, np.zeros(round(rng.uniform(0.4, 3.0) * RATE), np.float32))
    return _recorded(rng, clip, held_out)


def _recorded(rng, clip: Clip, held_out: bool) -> Clip:
    """With silence around it, at some level, with some noise behind it."""
    before, after = (round(rng.choice([0.02, rng.uniform(0, 0.8)]) * RATE) for _ in range(2))
    wave = np.pad(clip.samples, (before, after))
    clip.spans = [(a + before, b + before) for a, b in clip.spans]
    kinds = noises.HELD_OUT if held_out else noises.KINDS
    noise = noises.make(rng, rng.choice(kinds), len(wave))
    if clip.kind == "noise":
        wave = noise * 10 ** rng.uniform(-2.0, -0.8)
    elif clip.kind == "silence":
        wave = noise * (rng.random() < 0.6) * 10 ** rng.uniform(-5.5, -3.8)
    else:
        level = 10 ** rng.uniform(-1.1, -0.05) / np.abs(wave).max()
        wave = wave * level
        if rng.random() < 0.75:
            inside = wave[clip.spans[0][0] : clip.spans[-1][1]]
            power = np.sqrt(np.square(inside).mean())
            wave = wave + noise * power * 10 ** (-rng.uniform(12, 45) / 20)
    steps = np.round(np.clip(wave, -1, 1) * 32767)  # as in a file of 16 bits
    clip.samples = (steps / 32768).astype(np.float32)
    return clip
