"""Invents scenes: what is where, in which colour and style."""

from dataclasses import dataclass, field

from . import fonts, shapes
from .palette import AREAS, COLOURS, SHAPES, distance, shade


@dataclass
class Thing:
    shape: str
    colour: str
    rgb: tuple
    points: list  # absolute pixels
    hollow: float = 0.0  # line width relative to the radius; 0 means filled

    @property
    def box(self):
        return shapes.box(self.points)

    @property
    def centre(self):
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass
class Number:
    text: str
    colour: str
    rgb: tuple
    box: tuple  # where it should fit; drawing shrinks it to the ink
    font: str | None = None  # None means written by hand
    seed: int = 0
    antialias: bool = True
    warp: float = 0.0  # how far printed digits are bent, in parts of their height
    outline: float = 0.0  # 0: filled; else how wide the line is, in parts of its height
    centres: list = field(default_factory=list)  # the middles of the digits, set by drawing

    def guess_centres(self):
        x1, y1, x2, y2 = self.box
        step = (x2 - x1) / len(self.text)
        self.centres = [(x1 + step * (i + 0.5), (y1 + y2) / 2) for i in range(len(self.text))]


@dataclass
class Scene:
    width: int
    height: int
    background: str
    ground: dict  # how the background is drawn
    things: list = field(default_factory=list)
    number: Number | None = None
    style: dict = field(default_factory=dict)


def area(scene, thing, margin=0.035):
    """One of the nine areas, or None if the centre is too near a border line to tell."""
    index = []
    for value, size in zip(thing.centre, (scene.width, scene.height), strict=True):
        v = value / size
        if min(abs(v - 1 / 3), abs(v - 2 / 3)) < margin:
            return None
        index.append(0 if v < 1 / 3 else 1 if v < 2 / 3 else 2)
    return AREAS[index[1] * 3 + index[0]]


def _ground(rng, held_out):
    name = rng.choices(COLOURS, [1, 1, 2, 1, 1, 2, 1, 1, 1, 5, 14, 4])[0]
    if held_out:
        kind = rng.choices(["plain", "gradient", "dots", "rings"], [6, 2, 1, 1])[0]
    else:
        kind = rng.choices(["plain", "gradient", "noise", "stripes", "checker", "blobs"], [11, 2, 2, 1, 0.7, 1])[0]
    rgb = shade(rng, name)
    return name, {"kind": kind, "rgb": rgb, "seed": rng.randrange(1 << 30), "amount": rng.uniform(6, 22)}


def _style(rng, held_out):
    if held_out:
        jpeg = rng.choice([0, 0, 35, 45, 55, 65, 75, 85, 92])
    else:
        jpeg = rng.choice([0, 0, 0, 0, 30, 40, 50, 60, 70, 80, 90, 95])
    return {
        "antialias": rng.random() < 0.5,
        "jpeg": jpeg,
        "blur": rng.uniform(0.3, 0.9) if rng.random() < 0.12 else 0.0,
        "noise": rng.uniform(2, 10) if rng.random() < 0.15 else 0.0,
        "edge": rng.random() < 0.12,
    }


def _colour_pair(rng, scene, used, limit=70.0):
    for _ in range(40):
        name = rng.choice(COLOURS)
        if name == scene.background:
            continue
        rgb = used.get(name) or shade(rng, name)
        if distance(rgb, scene.ground["rgb"]) > limit + scene.ground["amount"]:
            return name, rgb
    name = "black" if sum(scene.ground["rgb"]) > 380 else "white"
    return name, {"black": (0, 0, 0), "white": (255, 255, 255)}[name]


def _free(box, boxes, gap):
    return all(box[2] + gap < b[0] or b[2] + gap < box[0] or box[3] + gap < b[1] or b[3] + gap < box[1] for b in boxes)


def place(rng, scene, shape, radius, taken, tries=60, gap=2.0):
    least = 0.85 * radius
    for _ in range(tries):
        points = shapes.outline(rng, shape, radius)
        x1, y1, x2, y2 = shapes.box(points)
        if x2 - x1 > scene.width - 4 or y2 - y1 > scene.height - 4:
            radius *= 0.85
            continue
        dx = rng.uniform(2 - x1, scene.width - 2 - x2)
        dy = rng.uniform(2 - y1, scene.height - 2 - y2)
        if rng.random() < 0.06 and not taken:
            dx, dy = scene.width / 2 - (x1 + x2) / 2, scene.height / 2 - (y1 + y2) / 2
        moved = [(x + dx, y + dy) for x, y in points]
        if _free(shapes.box(moved), taken, gap):
            return moved
        radius = max(least, radius * 0.98)
    return None


def radius_for(rng, scene, count):
    small = min(scene.width, scene.height)
    long = max(scene.width, scene.height)
    # The largest radius at which `count` shapes still find room.
    high = min(0.47, 0.5 / count**0.5 * (long / small) ** 0.4) * small
    low = 0.115 * (scene.width * scene.height) ** 0.5
    return rng.uniform(low, max(low * 1.1, high))


def add_number(rng, scene, held_out, alone, length=None):
    length = length or rng.choices([1, 2, 3, 4, 5, 6], [3, 3, 3, 3, 2, 1])[0]
    text = "".join(rng.choice("0123456789") for _ in range(length))
    colour, rgb = _colour_pair(rng, scene, {}, 150.0)
    by_hand = rng.random() < (0.28 if not held_out else 0.05)
    names = fonts.HELD_OUT if held_out else fonts.TRAIN
    plain = ["DejaVuSans", "LiberationSans-Regular", fonts.BUILTIN, fonts.BUILTIN]
    font = None if by_hand else rng.choice(plain if rng.random() < 0.2 else names)
    # Legible after shrinking: a line of text has about a seventh of the side.
    unit = (scene.width * scene.height) ** 0.5 / 224
    low = max(32.0 * unit, 12.0)
    high = min(scene.height * 0.8, scene.width * 0.92 / (0.62 * length))
    if not alone:
        high = min(high, scene.height * 0.35)
    height = low if high <= low else low * (high / low) ** rng.random()
    width = min(scene.width - 6, height * 0.75 * length + height * 0.4)
    taken = [t.box for t in scene.things]
    for _ in range(40):
        x = rng.uniform(2, max(3, scene.width - 2 - width))
        y = rng.uniform(2, max(3, scene.height - 2 - height))
        if rng.random() < 0.3 and alone:
            x, y = (scene.width - width) / 2, (scene.height - height) / 2
        box = (x, y, x + width, y + height)
        if _free(box, taken, 2):
            scene.number = Number(text, colour, rgb, box, font, rng.randrange(1 << 30), rng.random() < 0.85)
            # Bent type looks a little like handwriting, of which there are few fonts. The test has none of it.
            if font and not held_out and rng.random() < 0.2:
                scene.number.warp = rng.uniform(0.02, 0.07)
            if not held_out and rng.random() < 0.12:
                scene.number.outline = rng.uniform(0.02, 0.06)
            if by_hand and not held_out and rng.random() < 0.6:
                scene.number.font = fonts.PEOPLE
            return True
    return False


def invent(rng, width, height, kind="shapes", held_out=False, ease=0.0):
    """kind: shapes, count (several of few sorts), number, mixed, empty. ease: 1 = only easy ones."""
    name, ground = _ground(rng, held_out)
    scene = Scene(width, height, name, ground, style=_style(rng, held_out))
    if kind in ("shapes", "count", "mixed"):
        if kind == "count":
            count = rng.choices(range(1, 7), [1, 2, 3, 3, 2.5, 2])[0]
        elif kind == "mixed":
            count = rng.choices([1, 2, 3], [3, 2, 1])[0]
        else:
            count = rng.choices(range(1, 6), [5, 4, 4, 2.5, 1])[0]
        if ease and rng.random() < ease:
            count = min(count, rng.randint(1, 3))
        sorts = None
        used = {}
        if kind == "count" and rng.random() < 0.75:
            sorts = []
            for _ in range(rng.choice([1, 2, 2, 3])):
                c, rgb = _colour_pair(rng, scene, used)
                used[c] = rgb
                sorts.append((rng.choice(SHAPES), c))
        hollow = rng.uniform(0.15, 0.3) if rng.random() < 0.1 else 0.0
        base = radius_for(rng, scene, count)
        for _ in range(count):
            if sorts:
                shape, colour = rng.choice(sorts)
                rgb = used[colour]
            else:
                shape = rng.choice(SHAPES)
                colour, rgb = _colour_pair(rng, scene, used)
            gap = 2.0 + 0.02 * min(width, height)
            size = max(base * rng.uniform(0.8, 1.15), 0.105 * (width * height) ** 0.5)
            points = place(rng, scene, shape, size, [t.box for t in scene.things], gap=gap)
            if points is None:
                continue
            # One shade per colour name keeps "the red one" meaning one colour.
            used[colour] = rgb
            line = hollow if rng.random() < 0.8 else 0.0
            scene.things.append(Thing(shape, colour, rgb, points, line))
    if kind in ("number", "mixed"):
        length = rng.choice([1, 1, 2, 3]) if kind == "mixed" else None
        add_number(rng, scene, held_out, alone=kind == "number", length=length)
    return scene
