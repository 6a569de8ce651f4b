"""Builds training sequences: tokens, which of them are learned, positions and visibility.

Most sequences show one picture and then several *independent* questions: each question sees the
picture but not the other questions, and takes the positions it would have if it were the first.
So the visual tower runs once for many questions, and no answer can be copied from another one.
"""

import itertools
import random
from dataclasses import dataclass, field

from . import dense, looks, motion, pairs, pixels, questions, something_else
from .draw import render
from .model import FACTOR
from .scenes import Scene, invent

TASKS = {
    "shapes": {
        "what": 2.0,
        "describe": 0.9,
        "colours": 2.0,
        "count": 1.2,
        "where": 1.7,
        "relation": 2.0,
        "is_relation": 1.3,
        "digits": 0.1,
        "box": 1.7,
        "is_there": 0.9,
        "colour_of": 0.7,
        "shape_of": 0.7,
        "background": 0.3,
    },
    "count": {
        "what": 2.0,
        "describe": 0.4,
        "colours": 1.5,
        "count": 3.5,
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
        "colours": 1.0,
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
        [rng.uniform(100, 200), 224, 256, 300, rng.uniform(180, 420), rng.uniform(180, 420), 512, rng.uniform(400, 700)]
    )
    if rng.random() < 0.006:
        return rng.choice([(1920, 1080), (1280, 720), (1024, 768), (1600, 900), (1024, 1024)])
    return max(64, round(side * ratio**0.5)), max(64, round(side / ratio**0.5))


@dataclass
class View:
    """A picture and where in the sequence its things and digits are."""

    scene: Scene
    first: int  # its first visual token
    things: list
    digits: list


@dataclass
class Sequence:
    ids: list = field(default_factory=list)
    learn: list = field(default_factory=list)  # how much each token counts; 0: it is given
    segment: list = field(default_factory=list)  # 0 is seen by everyone after it
    positions: list = field(default_factory=list)  # (t, h, w)
    images: list = field(default_factory=list)
    grids: list = field(default_factory=list)  # (rows, columns) of visual tokens, one per picture
    labels: list = field(default_factory=list)  # what is true in every cell, one per picture
    views: list = field(default_factory=list)
    names: list = field(default_factory=list)  # (tokens, colour, shape) of all that the newest question names
    look: list = field(default_factory=list)  # (a key of fastvision.LOOKING, a token, tokens it should look at)
    cursor: int = 0
    branch: int = 0
    branches: int = 0

    def fork(self, cursor):
        self.branches += 1
        self.branch, self.cursor = self.branches, cursor

    def text(self, ids, learn=False):
        for i in ids:
            self.ids.append(i)
            self.learn.append(float(learn))
            self.segment.append(self.branch)
            self.positions.append((self.cursor,) * 3)
            self.cursor += 1

    def image(self, scene, pad_id, blind=False, size=None):
        """blind: what is true in every cell is enough, nothing needs to be drawn. size: of the pixels, for a frame."""
        height, width = size or pixels.smart_resize(scene.height, scene.width)
        rows, cols = height // FACTOR, width // FACTOR
        if blind:
            if scene.number:
                scene.number.guess_centres()
        else:
            self.images.append(pixels.resize(render(scene), (height, width)))
        labels, things, digits = dense.labels(scene, rows, cols)
        first = len(self.ids)
        self.views.append(
            View(scene, first, [[first + i for i in cells] for cells in things], [first + i for i in digits])
        )
        for r in range(rows):
            for c in range(cols):
                self.ids.append(pad_id)
                self.learn.append(0.0)
                self.segment.append(self.branch)
                self.positions.append((self.cursor, self.cursor + r, self.cursor + c))
        self.cursor += max(rows, cols)
        self.grids.append((rows, cols))
        self.labels.append(labels)


class Builder:
    def __init__(self, tok, blind=False):
        self.tok = tok
        self.blind = blind
        one = tok.token_to_id
        enc = lambda s: tok.encode(s, add_special_tokens=False).ids  # noqa: E731
        self.pad_image = one("<|image_pad|>")
        self.pad_video = one("<|video_pad|>")
        self.user = [one("<|im_start|>"), *enc("user\n")]
        self.system = [one("<|im_start|>"), *enc("system\n")]
        self.end = [one("<|im_end|>")]
        self.newline = enc("\n")
        self.assistant = [*self.end, *self.newline, one("<|im_start|>"), *enc("assistant\n")]
        self.vision = [one("<|vision_start|>")], [one("<|vision_end|>")]

    def encode(self, rng, text, vary):
        """Tokens, and which characters (start, end) of `text` each of them stands for."""
        # Splitting words at random now and then prepares for wordings never seen.
        # Numbers in answers and labels are never varied, only what people write.
        cuts = [0, len(text)]
        if vary and rng.random() < 0.4:
            cuts = sorted({*cuts, *(rng.randrange(len(text) + 1) for _ in range(rng.randint(1, 3)))})
        ids, spans = [], []
        for a, b in itertools.pairwise(cuts):
            found = self.tok.encode(text[a:b], add_special_tokens=False)
            ids += found.ids
            spans += [(a + start, a + end) for start, end in found.offsets]
        return ids, spans

    def question(self, rng, seq, text, views=slice(-1, None)):
        ids, spans = self.encode(rng, text, True)
        first, seq.names = len(seq.ids), []
        for start, end, colour, shape in looks.mentions(text, "en" if text.isascii() else "zh"):
            tokens = [first + i for i, (a, b) in enumerate(spans) if a < end and b > start]
            seq.names.append((tokens, colour, shape))
            if group := looks.things(seq.views[views], colour, shape):
                seq.look.append(("picture", tokens[-1], group))
        seq.text(ids)

    def picture(self, seq, scene):
        seq.text(self.vision[0])
        seq.image(scene, self.pad_image, self.blind)
        seq.text(self.vision[1])

    def answer(self, seq, text, views=slice(-1, None), told=None):
        """What is to be learned, and where the words before each of its tokens should look: in `views`.

        told: (visual tokens, those to compare them with) for every word, where that is known better.
        """
        ids, spans = self.encode(None, text, False)
        lang = "en" if text.isascii() else "zh"
        pictures = [(0, len(text), told)] if told else looks.looks(text, lang, seq.views[views])
        for what, wanted in (
            ("picture", [(a, b, group) for a, b, (group, _) in pictures]),
            ("other", [(a, b, other) for a, b, (_, other) in pictures]),
            ("question", looks.asked(text, lang, seq.names) if seq.views else []),
        ):
            for i, (start, end) in enumerate(spans, len(seq.ids)):
                middle = (start + text[start:end].startswith(" ") + end) / 2
                group = next((g for a, b, g in wanted if a <= middle <= b), None)
                if group:
                    seq.look.append((what, i - 1, group))
        seq.text(ids + self.end, learn=True)

    def qa(self, rng, seq, question, answer, views=slice(-1, None)):
        self.question(rng, seq, question, views)
        seq.text(self.assistant)
        self.answer(seq, answer, views)

    def start(self, rng, seq):
        if rng.random() < 0.06:
            seq.text(self.system + self.encode(rng, rng.choice(SYSTEM), False)[0] + self.end + self.newline)
        seq.text(self.user)

    def next_turn(self, seq):
        seq.text(self.newline + self.user)

    # -- the kinds of sequences ------------------------------------------------------------

    def single(self, rng, wh, kind, budget, ease, multi_turn):
        while True:
            scene = invent(rng, *wh, kind, ease=ease)
            if kind == "empty" or scene.things or scene.number:
                break
        draw_qa = lambda: self.draw_question(rng, scene, kind)  # noqa: E731
        seq = Sequence()
        self.start(rng, seq)
        if multi_turn:
            self.turns(rng, seq, scene, draw_qa, rng.randint(2, 6))
        else:
            self.picture(seq, scene)
            self.fan(rng, seq, draw_qa, budget)
        return seq

    def draw_question(self, rng, scene, kind):
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
                self.question(rng, seq, question)
                self.picture(seq, scene)
                seq.text(self.assistant)
                self.answer(seq, answer)
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
            task = rng.choices(["difference", "same", "what_first", "what_second"], [3.6, 1.0, 0.8, 0.8])[0]
            views = {"what_first": slice(-2, -1), "what_second": slice(-1, None)}.get(task, slice(-2, None))
            return *pairs.ask_pair(rng, a, b, sentences, how, task, lang), views

        seq = Sequence()
        self.start(rng, seq)
        if rng.random() < 0.18:  # text first, or text between and after
            question, answer, views = draw_qa()
            self.question(rng, seq, question)
            self.two(seq, a, b)
            seq.text(self.assistant)
            self.answer(seq, answer, views)
        else:
            self.two(seq, a, b)
            self.fan(rng, seq, draw_qa, budget)
        return seq

    def two(self, seq, a, b):
        """Two pictures; if they have the same grid every cell of the second looks at its place in the first."""
        self.picture(seq, a)
        self.picture(seq, b)
        if seq.grids[0] == seq.grids[1]:
            one, two = (view.first for view in seq.views)
            seq.look += [("place", two + i, [one + i]) for i in range(len(seq.labels[0]))]

    def film(self, rng, wh, budget):
        """A video as Qwen3-VL is shown it: every frame a picture behind its time."""
        made = motion.film(rng, *wh)
        seconds = rng.uniform(0.5, 8)
        seq = Sequence()
        self.start(rng, seq)
        asked = self._about_film(rng, made) if rng.random() < 0.3 else None  # the text may come before the video
        if asked:
            seq.text(self.encode(rng, asked[1], True)[0])
        size = pixels.frame_size(len(made.frames), wh[1], wh[0])
        for k, scene in enumerate(made.frames):
            seq.text(self.encode(None, f"<{seconds * k / (len(made.frames) - 1):.1f} seconds>", False)[0])
            seq.text(self.vision[0])
            seq.image(scene, self.pad_video, self.blind, size)
            seq.text(self.vision[1])
        begin, *later = (view.first for view in seq.views)
        cells = len(seq.labels[0])
        seq.look += [("place", first + i, [begin + i]) for first in later for i in range(cells)]
        told = seq.views[-1].things[made.thing], seq.views[0].things[made.thing]
        cursor, room = seq.cursor, len(seq.ids) + budget
        while len(seq.ids) < room:
            task, question, answer = asked or self._about_film(rng, made)
            if not asked:
                seq.fork(cursor)
                self.question(rng, seq, question, slice(0, 1))
            seq.text(self.assistant)
            self.answer(seq, answer, told=None if task == "shown" or not all(told) else told)
            if asked:
                break
        return seq

    @staticmethod
    def _about_film(rng, made):
        """(task, question, answer)"""
        while True:
            task = rng.choices(list(motion.TASKS), list(motion.TASKS.values()))[0]
            found = motion.ask(rng, made, task, rng.choice(["en", "zh"]))
            if found:
                return task, *found

    def album(self, rng, sizes, ease):
        """A new picture in every turn; questions are about the newest one."""
        seq = Sequence()
        self.start(rng, seq)
        for i, wh in enumerate(sizes):
            kind = rng.choice(["shapes", "shapes", "count", "number", "number"])
            scene = invent(rng, *wh, kind, ease=ease)
            if i:
                self.next_turn(seq)
            self.turns(
                rng, seq, scene, lambda scene=scene, kind=kind: self.draw_question(rng, scene, kind), rng.randint(1, 2)
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
            if rng.random() < 0.06:
                text = questions.wording(rng, lang, "happens", v="video" if lang == "en" else "视频")
                return text, something_else.ANSWER["no_picture"][lang]
            task = rng.choice([t for t, kind in questions.GROUP.items() if kind not in ("two pictures", "video")])
            if task in ("difference", "same"):
                return (questions.wording(rng, lang, task), something_else.ANSWER["no_picture"][lang])
            found = questions.ask(rng, scene, task, lang)
            if found:
                return found[0], something_else.ANSWER["no_picture"][lang]


def sizes_like(rng, count, first):
    """Sizes that all end up in the same grid as `first`, so that a batch can share one attention call."""
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
    "count": 14,
    "number": 17,
    "mixed": 6,
    "turns": 9,
    "pair": 48,
    "film": 14,
    "album": 7,
    "talk": 3.5,
    "empty": 0.5,
}


ROWS = 14  # sequences per batch
LENGTH = 240  # tokens of a sequence that asks several independent questions
EASY_STEPS = 250  # at first mostly pictures with one to three things


def batch(builder: Builder, seed: int, number: int, step: int):
    """The sequences of one batch, of all kinds; the same seed and number give the same batch."""
    rng = random.Random(seed * 1_000_003 + number)
    ease = max(0.0, 1 - step / EASY_STEPS)
    # Two processes wait for each other in every step, so their batches should cost the same.
    both = random.Random(f"both {seed} {number // 2}")
    kinds = sorted(both.choices(list(MIX), list(MIX.values()), k=2 * ROWS))[number % 2 :: 2]
    # Sizes differ when nothing is drawn: the grid of one batch of drawn pictures is the same for speed only.
    sizes = iter([size(rng) for _ in range(3 * ROWS)] if builder.blind else sizes_like(rng, 3 * ROWS, size(both)))
    return [one(builder, rng, kind, sizes, ease) for kind in kinds]


def one(builder: Builder, rng, kind: str, sizes, ease: float) -> Sequence:
    if kind == "talk":
        return builder.talk(rng, LENGTH)
    wh = next(sizes)
    if kind == "pair":
        if rng.random() < 0.12:
            return builder.pair(rng, wh, next(sizes), LENGTH - 110, "other")
        return builder.pair(rng, wh, wh, LENGTH - 110)
    if kind == "film":
        return builder.film(rng, wh, LENGTH - 120)
    if kind == "album":
        return builder.album(rng, [wh, *(next(sizes) for _ in range(rng.choice([1, 1, 2])))], ease)
    if kind == "turns":
        return builder.single(
            rng, wh, rng.choice(["shapes", "shapes", "count", "mixed", "number", "number"]), 0, ease, True
        )
    return builder.single(rng, wh, kind, LENGTH - 60, ease, False)


def about(builder: Builder, rng, task: str, rows: int):
    """Sequences that ask nothing but `task`, to see how far it has been learned."""
    kind = {"digits": "number", "count": "count"}.get(task, "shapes")
    out = []
    while len(out) < rows:
        if task == "film":
            out.append(builder.film(rng, (224, 224), 60))
            continue
        if task in ("difference", "same"):
            out.append(builder.pair(rng, (224, 224), (224, 224), 60))
            continue
        scene = invent(rng, 224, 224, kind)
        if len(scene.things) + bool(scene.number) < (2 if "relation" in task else 1):
            continue
        found = [questions.ask(rng, scene, task, lang) for lang in ("en", "zh", "en", "zh")]
        if None in found:
            continue
        seq = Sequence()
        builder.start(rng, seq)
        builder.picture(seq, scene)
        cursor = seq.cursor
        for question, answer in found:
            seq.fork(cursor)
            builder.qa(rng, seq, question, answer)
        out.append(seq)
    return out
