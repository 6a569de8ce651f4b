"""Clips nobody hears: what is true of their moments is enough for the language model to learn from."""

import numpy as np

from .clips import MOST, RATE, Clip


def imagine(rng, kind: str) -> Clip:
    """As `clips.invent`, in no time: the samples are zeros, only their number counts."""
    at, spans = round(rng.choice([0.02, rng.uniform(0, 0.8)]) * RATE), []
    clip = Clip(kind, np.zeros(0, np.float32))
    if kind == "digits":
        clip.digits = [rng.randrange(10) for _ in range(rng.randint(1, MOST))]
    elif kind == "beeps":
        clip.beeps, clip.high = rng.randint(1, MOST), rng.random() < 0.5
    if kind in ("digits", "talk"):
        clip.woman = rng.random() < 0.5
    pace, pause = rng.uniform(0.1, 0.5), rng.choice([0.0, 0.05, rng.uniform(0, 0.4)])
    for _ in range(clip.count or (kind == "talk")):
        long = round(pace * rng.uniform(0.7, 1.3) * RATE) * (1 if clip.count else 4)
        spans.append((at, at + long))
        at += long + round(pause * RATE)
    at += round(rng.choice([0.02, rng.uniform(0, 0.8)]) * RATE) + (0 if spans else round(rng.uniform(0.3, 2) * RATE))
    clip.samples, clip.spans = np.zeros(at, np.float32), spans
    return clip
