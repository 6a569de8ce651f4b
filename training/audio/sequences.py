"""Builds training sequences: one clip and several questions that cannot see each other, or a conversation.

So the tower runs once for many questions, and no answer can be copied from another one; see
`training/sequences.py`, of which this is the smaller sister.
"""

import itertools
import random
from dataclasses import dataclass, field

import torch

from . import facts, hear, questions
from .clips import Clip, invent
from .imagine import imagine

TASKS = {
    "digits": {
        "digits": 8, "count": 1.5, "first": 1, "last": 1, "voice": 2, "tone": 0.3, "beeps": 0.4, "kind": 0.7,
        "describe": 2, "is_woman": 0.8, "is_man": 0.8, "is_speech": 0.5, "is_high": 0.2,
    },
    "talk": dict.fromkeys(questions.TASKS, 1.0) | {"digits": 2, "describe": 2, "voice": 2},
    "beeps": dict.fromkeys(questions.TASKS, 0.5) | {"beeps": 4, "tone": 3, "is_high": 1.5, "describe": 2, "kind": 1},
    "silence": dict.fromkeys(questions.TASKS, 1.0) | {"kind": 2, "describe": 2},
    "noise": dict.fromkeys(questions.TASKS, 1.0) | {"kind": 2, "describe": 2},
}  # fmt: skip
SYSTEM = [
    "You are a helpful assistant.",
    "You are tiny-audio.",
    "Answer the questions of the user.",
    "你是一个有用的助手。",
    "You are a helpful assistant that listens.",
]
ROWS = 16  # sequences per batch
ASKED = 6  # questions about one clip
SILENT = 0.1  # share of sequences without any clip


@dataclass
class Sequence:
    ids: list = field(default_factory=list)
    learn: list = field(default_factory=list)
    segment: list = field(default_factory=list)  # 0 is seen by everyone after it
    positions: list = field(default_factory=list)
    clips: list = field(default_factory=list)
    spoken: list = field(default_factory=list)  # of the newest clip: the audio tokens of every digit or beep
    look: list = field(default_factory=list)  # (a token, tokens it should look at)
    cursor: int = 0
    branch: int = 0

    def text(self, ids, learn=False):
        self.ids += ids
        self.learn += [learn] * len(ids)
        self.segment += [self.branch] * len(ids)
        self.positions += range(self.cursor, self.cursor + len(ids))
        self.cursor += len(ids)


class Builder:
    def __init__(self, tok, blind=False):
        """blind: clips are imagined."""
        self.tok, self.blind = tok, blind
        one = tok.token_to_id
        self.audio, self.bos, self.eos = one("<|AUDIO|>"), one("<|audio_bos|>"), one("<|audio_eos|>")
        self.end, self.newline = [one("<|im_end|>")], self.encode("\n")
        self.user = [one("<|im_start|>"), *self.encode("user\n")]
        self.system = [one("<|im_start|>"), *self.encode("system\n")]
        self.assistant = [*self.end, *self.newline, one("<|im_start|>"), *self.encode("assistant\n")]

    def encode(self, text: str) -> list[int]:
        return self.tok.encode(text, add_special_tokens=False).ids

    def clip(self, rng, kind: str) -> Clip:
        return imagine(rng, kind) if self.blind else invent(rng, kind)

    def hear(self, seq: Sequence, clip: Clip):
        rows = (hear.MEL.num_frames(len(clip.samples)) + 1) // 2
        first, which = len(seq.ids) + 1, facts.labels(clip, rows // 2)[:, facts.NAMES.index("which")]
        seq.spoken = [(first + (which == i).nonzero()[0]).tolist() for i in range(clip.count)]
        seq.text([self.bos, *[self.audio] * (rows // 2), self.eos])
        seq.clips.append(clip)

    def question(self, rng, seq: Sequence, text: str):
        """Split at random now and then: that prepares for wordings never seen."""
        cuts = [0, len(text)]
        if rng.random() < 0.4:
            cuts = sorted({*cuts, *(rng.randrange(len(text) + 1) for _ in range(rng.randint(1, 3)))})
        for a, b in itertools.pairwise(cuts):
            seq.text(self.encode(text[a:b]))

    def answer(self, seq: Sequence, text: str, task: str | None):
        """What is to be learned; where the token before each digit should look."""
        found = self.tok.encode(text, add_special_tokens=False)
        said = [i for i, (a, b) in enumerate(found.offsets) if text[a:b].isdigit()]
        if seq.clips and seq.clips[-1].digits and task in ("digits", "describe", "first", "last"):
            spoken = {"first": seq.spoken[:1], "last": seq.spoken[-1:]}.get(task, seq.spoken)
            seq.look += [(len(seq.ids) + i - 1, tokens) for i, tokens in zip(said, spoken, strict=True)]
        seq.text(found.ids + self.end, learn=True)

    def draw(self, rng, clip: Clip | None):
        """(question, answer, task or None)"""
        lang = rng.choice(["en", "zh"])
        if clip is None:
            make = questions.orphan if rng.random() < 0.4 else questions.something_else
            return *make(rng, lang), None
        if rng.random() < 0.05:
            return *questions.something_else(rng, lang), None
        tasks = TASKS[clip.kind]
        task = rng.choices(list(tasks), list(tasks.values()))[0]
        return *questions.ask(rng, clip, task, lang), task

    def start(self, rng, seq: Sequence):
        if rng.random() < 0.1:
            seq.text(self.system + self.encode(rng.choice(SYSTEM)) + self.end + self.newline)
        seq.text(self.user)

    def one(self, rng) -> Sequence:
        kind = rng.choices(list(hear.SHARES), list(hear.SHARES.values()))[0]
        clip = None if rng.random() < SILENT else self.clip(rng, kind)
        seq = Sequence()
        self.start(rng, seq)
        if rng.random() < 0.3:
            self.turns(rng, seq, clip, rng.randint(1, 4))
            return seq
        if clip:
            self.hear(seq, clip)
            if rng.random() < 0.5:
                seq.text(self.newline)
        cursor = seq.cursor
        for branch in range(1, ASKED + 1):
            seq.branch, seq.cursor = branch, cursor
            question, answer, task = self.draw(rng, clip)
            self.question(rng, seq, question)
            seq.text(self.assistant)
            self.answer(seq, answer, task)
        return seq

    def turns(self, rng, seq: Sequence, clip: Clip | None, count: int):
        """A real conversation: every turn sees all before; text may come before the clip, and a clip later."""
        for turn in range(count):
            question, answer, task = self.draw(rng, clip)
            after = turn == 0 and clip and rng.random() < 0.5
            if turn == 0 and clip and not after:
                self.hear(seq, clip)
            self.question(rng, seq, question)
            if after:
                self.hear(seq, clip)
            seq.text(self.assistant)
            self.answer(seq, answer, task)
            if turn + 1 < count:
                seq.text(self.newline + self.user)
                if rng.random() < 0.2:  # another clip: questions are about the newest one
                    clip = self.clip(rng, rng.choice(["digits", "digits", "beeps", "talk"]))
                    self.hear(seq, clip)


def collate(sequences: list[Sequence], blind: bool) -> dict:
    length = (max(len(s.ids) for s in sequences) + 7) // 8 * 8
    rows = len(sequences)
    ids, labels = torch.zeros(rows, length, dtype=torch.long), torch.full((rows, length), -100)
    segment, positions = torch.full((rows, length), -1), torch.zeros(rows, length, dtype=torch.long)
    look, group = [], 0
    for i, s in enumerate(sequences):
        n = len(s.ids)
        ids[i, :n], segment[i, :n] = torch.tensor(s.ids), torch.tensor(s.segment)
        positions[i, :n] = torch.tensor(s.positions)
        # labels[t] is what should follow token t; only answers are learned.
        labels[i, : n - 1] = torch.where(torch.tensor(s.learn), ids[i, :n], -100)[1:]
        for query, tokens in s.look:
            look += [(i, query, token, group) for token in tokens]
            group += 1
    data = {"ids": ids, "labels": labels, "segment": segment, "positions": positions}
    data["look"] = torch.tensor(look).T if look else None  # (4, entries): row, query, key, group
    clips = [clip for s in sequences for clip in s.clips]
    if blind:
        tokens = [(hear.MEL.num_frames(len(c.samples)) + 1) // 4 for c in clips]
        made = [torch.from_numpy(facts.labels(c, n)) for c, n in zip(clips, tokens, strict=True)]
        return data | {"facts": torch.cat(made)}
    return data | hear.collate(clips)


def batch(builder: Builder, seed: int, number: int) -> dict:
    """The same seed and number give the same questions."""
    rng = random.Random(f"sequences {seed} {number}")
    return collate([builder.one(rng) for _ in range(ROWS)], builder.blind)


def about(builder: Builder, rng, task: str, rows: int) -> dict:
    """Sequences that ask nothing but `task`, to see how far it has been learned."""
    kind = {"beeps": "beeps", "tone": "beeps", "is_high": "beeps"}.get(task, "digits")
    out = []
    for _ in range(rows):
        seq, clip = Sequence(), builder.clip(rng, kind)
        builder.start(rng, seq)
        builder.hear(seq, clip)
        cursor = seq.cursor
        for branch, lang in enumerate(["en", "zh"], 1):
            seq.branch, seq.cursor = branch, cursor
            question, answer = questions.ask(rng, clip, task, lang)
            builder.question(rng, seq, question)
            seq.text(builder.assistant)
            builder.answer(seq, answer, task)
        out.append(seq)
    return collate(out, builder.blind)
