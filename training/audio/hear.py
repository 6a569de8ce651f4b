"""The first stage: the tower learns alone what is true of every moment of a clip."""

import random

import torch

from sensorium.families.log_mel import LogMel

from . import facts, model
from .clips import RATE, Clip, invent

CLIPS = 32  # per step
GROUP = 8  # clips that are padded to one length
EASY_STEPS = 150  # at first fewer digits
SHARES = {"digits": 10, "talk": 2, "beeps": 4, "silence": 0.7, "noise": 1}
MEL = LogMel(num_mels=model.MELS, rate=RATE, fft_size=400, hop=160, max_samples=model.SECONDS * RATE)


def features(samples) -> tuple[torch.Tensor, int]:
    """(MELS, 2 * rows + 1) and the number of rows, as `families.whisper_audio` makes them."""
    rows = (MEL.num_frames(len(samples)) + 1) // 2
    return MEL(samples)[:, : 2 * rows + 1], rows


def collate(clips: list[Clip]) -> dict:
    """Clips of about equal length share one tensor: `mels` and `rows` have one entry for each such group."""
    made = [features(clip.samples) for clip in clips]
    labels = [torch.from_numpy(facts.labels(clip, n // 2)) for clip, (_, n) in zip(clips, made, strict=True)]
    order = sorted(range(len(clips)), key=lambda i: made[i][1])
    mels, rows = [], []
    for start in range(0, len(order), GROUP):
        group = [made[i] for i in order[start : start + GROUP]]
        mel = torch.zeros(len(group), model.MELS, 2 * group[-1][1] + 1)
        for i, (each, _) in enumerate(group):
            mel[i, :, : each.shape[1]] = each
        mels.append(mel)
        rows.append(torch.tensor([n for _, n in group]))
    return {"mels": mels, "rows": rows, "order": order, "facts": torch.cat(labels)}


def batch(seed: int, step: int) -> dict:
    """The same seed and step give the same clips."""
    rng = random.Random(f"hear {seed} {step}")
    most = 2 if step < EASY_STEPS else 6
    kinds = rng.choices(list(SHARES), list(SHARES.values()), k=CLIPS)
    return collate([invent(rng, kind, most=most) for kind in kinds])


def tokens(net, data) -> torch.Tensor:
    """The audio tokens of all clips of a batch, in the clips' order: (tokens, width)."""
    heard = []
    with torch.autocast("cpu", torch.bfloat16):
        for mel, rows in zip(data["mels"], data["rows"], strict=True):
            out = model.hear(net.audio_tower, net.multi_modal_projector, mel, rows)
            heard += out.split((rows // 2).tolist())
    first = {clip: place for place, clip in enumerate(data["order"])}
    return torch.cat([heard[first[clip]] for clip in range(len(heard))])


def loss(net, code: facts.Code, data) -> torch.Tensor:
    return code.loss(tokens(net, data), data["facts"])
