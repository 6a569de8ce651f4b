"""Builds training sequences: tokens, which of them are learned, positions and visibility.

Most sequences show one picture and then several *independent* questions: each question sees the
picture but not the other questions, and takes the positions it would have if it were the first.
So the visual tower runs once for many questions, and no answer can be copied from another one.
"""

import random
from dataclasses import dataclass, field

from . import dense, pairs, pixels, questions, something_else
from .draw import render
from .model import FACTOR
from .scenes import invent

TASKS = {
    "shapes": {
        "what": 1.6,
        "describe": 0.8,
        "colours": 0.5,
        "count": 1.2,
        "where": 1.7,
        "relation": 1.3,
        "is_relation": 0.6,
        "digits": 0.1,
        "box": 2.6,
        "is_there": 0.9,
        "colour_of": 0.7,
        "shape_of": 0.7,
        "background": 0.3,
    },
    "count": {
        "what": 1.2,
        "describe": 0.3,
        "colours": 0.4,
        "count": 5,
        "is_there": 0.6,
        "where": 0.3,
        "box": 0.4,
        "background": 0.1,
    },
    "number": {
        "digits": 4,
        "what": 1.2,
        "describe": 0.5,
        "count": 0.15,
        "background": 0.2,
        "is_there": 0.15,
        "where": 0.05,
    },
    "mixed": {
        "digits": 2,
        "what": 1.5,
        "describe": 0.8,
        "count": 0.7,
        "where": 0.8,
        "box": 0.8,
        "is_there": 0.3,
        "colour_of": 0.4,
        "shape_of": 0.4,
        "relation": 0.3,
    },
    "empty": {"what": 1, "describe": 1, "count": 1, "digits": 1, "is_there": 1, "where": 0.3},
}
SYSTEM = [
    "You are a helpful assistant.",
    "You are tiny-vl.",
    "Answer the questions of the user.",
    "你是一个有用的助手。",
    "You are a helpful assistant that looks at pictures.",
]


def size(rng, held_out=False):
    """Width and height of a picture: many formats, now and then a large one."""
    if held_out:
        return rng.choice(
            [
                (210, 210),
                (333, 250),
                (250, 380),
                (410, 300),
                (720, 480),
                (800, 450),
                (1024, 768),
                (150, 150),
                (1280, 720),
                (480, 640),
                (600, 600),
            ]
        )
    ratio = rng.choice([1, 1, 1, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 16 / 9, 2, rng.uniform(0.5, 2.2)])
    side = rng.choice(
        [rng.uniform(100, 200), 224, 256, 300, rng.uniform(180, 420), rng.uniform(180, 420), 512, rng.uniform(400, 800)]
    )
    if rng.random() < 0.015:
        return rng.choice([(1920, 1080), (1280, 720), (1024, 768), (1600, 900), (1024, 1024)])
    return max(64, round(side * ratio**0.5)), max(64, round(side / ratio**0.5))


@dataclass
class Sequence:
    ids: list = field(default_factory=list)
    learn: list = field(default_factory=list)
    segment: list = field(default_factory=list)  # 0 is seen by everyone after it
    positions: list = field(default_factory=list)  # (t, h, w)
    images: list = field(default_factory=list)
    labels: list = field(default_factory=list)  # for the dense heads, one per image
    cursor: int = 0
    branch: int = 0
    branches: int = 0

    def fork(self, cursor):
        self.branches += 1
        self.branch, self.cursor = self.branches, cursor

    def text(self, ids, learn=False):
        for i in ids:
            self.ids.append(i)
            self.learn.append(learn)
            self.segment.append(self.branch)
            self.positions.append((self.cursor,) * 3)
            self.cursor += 1

    def image(self, scene, pad_id):
        image = pixels.resize(render(scene))
        rows, cols = image.shape[1] // FACTOR, image.shape[2] // FACTOR
        for r in range(rows):
            for c in range(cols):
                self.ids.append(pad_id)
                self.learn.append(False)
                self.segment.append(self.branch)
                self.positions.append((self.cursor, self.cursor + r, self.cursor + c))
        self.cursor += max(rows, cols)
        self.images.append(image)
        self.labels.append(dense.labels(scene, rows, cols))


class Builder:
    def __init__(self, tok, dropout=0.1):
        self.tok = tok
        self.dropout = dropout
        one = tok.token_to_id
        enc = lambda s: tok.encode(s, add_special_tokens=False).ids  # noqa: E731
        self.pad_image = one("<|image_pad|>")
        self.user = [one("<|im_start|>"), *enc("user\n")]
        self.system = [one("<|im_start|>"), *enc("system\n")]
        self.end = [one("<|im_end|>")]
        self.newline = enc("\n")
        self.assistant = [*self.end, *self.newline, one("<|im_start|>"), *enc("assistant\n")]
        self.vision = [one("<|vision_start|>")], [one("<|vision_end|>")]

    def encode(self, rng, text, vary):
        # Splitting words at random now and then prepares for wordings never seen.
        # Numbers in answers and labels are never varied, only what people write.
        if vary and rng.random() < 0.5:
            self.tok.model.dropout = self.dropout
            ids = self.tok.encode(text, add_special_tokens=False).ids
            self.tok.model.dropout = None
            return ids
        return self.tok.encode(text, add_special_tokens=False).ids

    def picture(self, seq, scene):
        seq.text(self.vision[0])
        seq.image(scene, self.pad_image)
        seq.text(self.vision[1])

    def qa(self, rng, seq, question, answer):
        seq.text(self.encode(rng, question, True))
        seq.text(self.assistant)
        seq.text(self.encode(rng, answer, False) + self.end, learn=True)

    def start(self, rng, seq):
        if rng.random() < 0.06:
            seq.text(self.system + self.encode(rng, rng.choice(SYSTEM), False) + self.end + self.newline)
        seq.text(self.user)

    def next_turn(self, seq):
        seq.text(self.newline + self.user)

    # -- the kinds of sequences ------------------------------------------------------------

    def single(self, rng, wh, kind, budget, ease, multi_turn):
        while True:
            scene = invent(rng, *wh, kind, ease=ease)
            if kind == "empty" or scene.things or scene.number:
                break
        draw_qa = lambda: self.question(rng, scene, kind)  # noqa: E731
        seq = Sequence()
        self.start(rng, seq)
        if multi_turn:
            self.turns(rng, seq, scene, draw_qa, rng.randint(2, 6))
        else:
            self.picture(seq, scene)
            self.fan(rng, seq, draw_qa, budget)
        return seq

    def question(self, rng, scene, kind):
        lang = rng.choice(["en", "zh"])
        if rng.random() < 0.035:
            if rng.random() < 0.2:
                return (questions.wording(rng, lang, "difference"), something_else.ANSWER["one_picture"][lang])
            return something_else.ask(rng, lang, with_picture=True)
        tasks = TASKS[kind]
        while True:
            task = rng.choices(list(tasks), list(tasks.values()))[0]
            found = questions.ask(rng, scene, task, lang)
            if found:
                return found

    def fan(self, rng, seq, draw_qa, budget):
        """Independent questions after a shared beginning, until the budget of tokens is used."""
        cursor, room = seq.cursor, len(seq.ids) + budget
        while len(seq.ids) < room:
            seq.fork(cursor)
            self.qa(rng, seq, *draw_qa())

    def turns(self, rng, seq, scene, draw_qa, count):
        """A real conversation: every turn sees all before; the text may come before the picture."""
        for i in range(count):
            question, answer = draw_qa()
            if i == 0 and rng.random() < 0.5:
                seq.text(self.encode(rng, question, True))
                self.picture(seq, scene)
                seq.text(self.assistant)
                seq.text(self.encode(rng, answer, False) + self.end, learn=True)
            else:
                if i == 0:
                    self.picture(seq, scene)
                self.qa(rng, seq, question, answer)
            if i + 1 < count:
                self.next_turn(seq)

    def pair(self, rng, wh_a, wh_b, budget, how=None):
        a, b, sentences, how = pairs.make_pair(rng, wh_a, wh_b, how=how)

        def draw_qa(lang=None):
            lang = lang or rng.choice(["en", "zh"])
            task = rng.choices(["difference", "same", "what_first", "what_second"], [3.2, 0.5, 0.6, 0.6])[0]
            return pairs.ask_pair(rng, a, b, sentences, how, task, lang)

        seq = Sequence()
        self.start(rng, seq)
        if rng.random() < 0.18:  # text first, or text between and after
            question, answer = draw_qa()
            seq.text(self.encode(rng, question, True))
            for scene in (a, b):
                self.picture(seq, scene)
            seq.text(self.assistant)
            seq.text(self.encode(rng, answer, False) + self.end, learn=True)
            return seq
        for scene in (a, b):
            self.picture(seq, scene)
        self.fan(rng, seq, draw_qa, budget)
        return seq

    def album(self, rng, sizes, ease):
        """A new picture in every turn; questions are about the newest one."""
        seq = Sequence()
        self.start(rng, seq)
        for i, wh in enumerate(sizes):
            kind = rng.choice(["shapes", "shapes", "count", "number"])
            scene = invent(rng, *wh, kind, ease=ease)
            if i:
                self.next_turn(seq)
            self.turns(
                rng, seq, scene, lambda scene=scene, kind=kind: self.question(rng, scene, kind), rng.randint(1, 2)
            )
        return seq

    def talk(self, rng, budget):
        """No picture at all: greetings, other topics, and questions that lack a picture."""
        seq = Sequence()
        self.start(rng, seq)

        def draw_qa():
            lang = rng.choice(["en", "zh"])
            if rng.random() < 0.3:
                return self.orphan(rng, lang)
            return something_else.ask(rng, lang)

        if rng.random() < 0.3:
            for i in range(rng.randint(2, 4)):
                if i:
                    self.next_turn(seq)
                self.qa(rng, seq, *draw_qa())
        else:
            self.fan(rng, seq, draw_qa, budget)
        return seq

    def orphan(self, rng, lang):
        scene = None
        while scene is None or len(scene.things) < 2:
            scene = invent(rng, 224, 224, "shapes")
        while True:
            task = rng.choice([t for t in questions.GROUP if not t.startswith("what_")])
            if task in ("difference", "same"):
                return (questions.wording(rng, lang, task), something_else.ANSWER["no_picture"][lang])
            found = questions.ask(rng, scene, task, lang)
            if found:
                return found[0], something_else.ANSWER["no_picture"][lang]


def sizes_like(rng, count):
    """Sizes that all end up in the same grid, so that a batch can share one attention call."""
    first = size(rng)
    grid = pixels.smart_resize(first[1], first[0])
    out = [first]
    while len(out) < count:
        wh = size(rng)
        if pixels.smart_resize(wh[1], wh[0]) == grid:
            out.append(wh)
        elif rng.random() < 0.05:
            s = rng.uniform(0.8, 1.3)
            wh = round(first[0] * s), round(first[1] * s)
            out.append(wh if pixels.smart_resize(wh[1], wh[0]) == grid else first)
    rng.shuffle(out)
    return out


MIX = {
    "shapes": 32,
    "count": 16,
    "number": 22,
    "mixed": 6,
    "turns": 5,
    "pair": 17,
    "album": 2.5,
    "talk": 2,
    "empty": 0.5,
}


def pictures(builder: Builder, seed: int, number: int, step: int):
    """Pictures alone, for the first stage."""
    rng = random.Random(seed * 1_000_003 + 500_000_000 + number)
    out = []
    for wh in sizes_like(rng, 24):
        kind = rng.choices(["shapes", "count", "number", "mixed"], [4, 3, 5, 1])[0]
        seq = Sequence()
        scene = invent(rng, *wh, kind, ease=max(0.0, 1 - step / 150))
        builder.picture(seq, scene)
        out.append(seq)
    return out


# Rows per batch, so that every kind takes about the same time.
ROWS = {
    "shapes": 12,
    "count": 14,
    "number": 20,
    "mixed": 12,
    "turns": 12,
    "pair": 10,
    "album": 6,
    "talk": 14,
    "empty": 16,
}
EASY_STEPS = 250  # at first mostly pictures with one to three things


def batch(builder: Builder, seed: int, number: int, step: int):
    """The sequences of one batch; the same seed and number give the same batch."""
    rng = random.Random(seed * 1_000_003 + number)
    kind = rng.choices(list(MIX), list(MIX.values()))[0]
    rows = ROWS[kind]
    ease = max(0.0, 1 - step / EASY_STEPS)
    if kind == "talk":
        return [builder.talk(rng, 260) for _ in range(rows)]
    if kind == "pair":
        if rng.random() < 0.12:
            return [builder.pair(rng, size(rng), size(rng), 120, "other") for _ in range(rows)]
        return [builder.pair(rng, wh, wh, 120) for wh in sizes_like(rng, rows)]
    if kind == "album":
        turns = rng.choice([2, 2, 3])
        sizes = sizes_like(rng, rows * turns)
        return [builder.album(rng, sizes[i * turns :][:turns], ease) for i in range(rows)]
    sizes = sizes_like(rng, rows)
    if kind == "turns":
        inner = ["shapes", "shapes", "count", "mixed", "number"]
        return [builder.single(rng, wh, rng.choice(inner), 0, ease, True) for wh in sizes]
    budget = {"number": 70, "empty": 60, "count": 140}.get(kind, 190)
    return [builder.single(rng, wh, kind, budget, ease, False) for wh in sizes]
