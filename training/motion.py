"""Short videos: one thing moves, or turns to another colour, or nothing happens."""

import copy
import random
from dataclasses import dataclass

from . import answers as say
from . import wordings_en as en
from . import wordings_zh as zh
from .palette import COLOURS, ZH_COLOUR, distance, shade
from .questions import the, wording
from .scenes import Scene, invent

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TO_EN = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
TO_ZH = {"left": "左", "right": "右", "up": "上", "down": "下"}
FRAMES = 4, 6  # fewest and most that tiny-vl is shown
TASKS = {"happens": 3, "moves": 3, "turns": 3, "shown": 1}


@dataclass
class Film:
    frames: list[Scene]
    thing: int  # which one something happens to; its place in every frame's list of things
    how: str  # "moves", "turns" or "still"
    what: str | None = None  # the direction or the colour


def film(rng: random.Random, width: int, height: int, held_out: bool = False, frames: int | None = None) -> Film:
    """A video of so many frames, at equal distances in time."""
    frames = frames or rng.randint(*FRAMES)
    while True:
        scene = invent(rng, width, height, "shapes", held_out)
        names = [(t.colour, t.shape) for t in scene.things]
        if not 1 <= len(names) <= rng.choice([1, 2, 2, 3, 3]) or len(set(names)) < len(names):
            continue
        how = rng.choices(["moves", "turns", "still"], [6, 5, 1.5])[0]
        made = {"moves": _moves, "turns": _turns, "still": _still}[how](rng, scene, frames)
        if made:
            return made


def _still(rng, scene, frames):
    return Film([copy.deepcopy(scene) for _ in range(frames)], rng.randrange(len(scene.things)), "still")


def _moves(rng, scene, frames):
    index = rng.randrange(len(scene.things))
    thing = scene.things[index]
    others = [t.box for i, t in enumerate(scene.things) if i != index]
    x1, y1, x2, y2 = thing.box
    room = scene.width - 4 - (x2 - x1), scene.height - 4 - (y2 - y1)
    for _ in range(20):
        name = rng.choice(list(DIRECTIONS))
        along = 0 if DIRECTIONS[name][0] else 1
        side = (scene.width, scene.height)[along]
        if room[along] < 0.25 * side:
            continue
        far = rng.uniform(0.25 * side, min(0.7 * side, room[along]))
        drift = rng.choice([0.0, rng.uniform(-0.15, 0.15)]) * far
        step = [0.0, 0.0]
        step[along], step[1 - along] = far * DIRECTIONS[name][along], drift
        start = [_start(rng, r, s) for r, s in zip(room, step, strict=True)]
        if None in start:
            continue
        ends = [(start[0] + step[0] * f, start[1] + step[1] * f) for f in (0, 1)]
        low, high = ([pick(p[k] for p in ends) for k in (0, 1)] for pick in (min, max))
        path = low[0], low[1], high[0] + x2 - x1, high[1] + y2 - y1
        if any(path[0] < b[2] and b[0] < path[2] and path[1] < b[3] and b[1] < path[3] for b in others):
            continue
        out = [copy.deepcopy(scene) for _ in range(frames)]
        for k, frame in enumerate(out):
            share = k / (frames - 1)
            dx, dy = start[0] + step[0] * share - x1, start[1] + step[1] * share - y1
            frame.things[index].points = [(x + dx, y + dy) for x, y in thing.points]
        return Film(out, index, "moves", name)
    return None


def _start(rng, room, step):
    """Where to begin on one axis so that all of the way is in the picture."""
    low, high = 2 + max(0.0, -step), 2 + room - max(0.0, step)
    return rng.uniform(low, high) if low <= high else None


def _turns(rng, scene, frames):
    index = rng.randrange(len(scene.things))
    thing = scene.things[index]
    taken = {(t.colour, t.shape) for t in scene.things}
    for _ in range(30):
        colour = rng.choice(COLOURS)
        rgb = shade(rng, colour)
        if colour == scene.background or (colour, thing.shape) in taken or distance(rgb, thing.rgb) < 120:
            continue
        if distance(rgb, scene.ground["rgb"]) < 75 + scene.ground["amount"]:
            continue
        last = rng.uniform(0.15, 0.85)  # when it has the new colour
        first = last if rng.random() < 0.65 else rng.uniform(0.05, last)
        out = [copy.deepcopy(scene) for _ in range(frames)]
        for k, frame in enumerate(out):
            share = k / (frames - 1)
            new = 1.0 if share >= last else max(0.0, (share - first) / (last - first)) if first < last else 0.0
            here = frame.things[index]
            here.rgb = tuple(round(a + (b - a) * new) for a, b in zip(thing.rgb, rgb, strict=True))
            here.colour = colour if new > 0.5 else thing.colour
        return Film(out, index, "turns", colour)
    return None


def ask(rng: random.Random, made: Film, task: str, lang: str, held: bool | None = None) -> tuple[str, str] | None:
    """A question about a film and its answer."""
    first = made.frames[0]
    thing = first.things[made.thing]
    words = en if lang == "en" else zh
    slots = {"v": rng.choice(words.VIDEO)}
    if task == "shown":
        if made.how == "turns":
            return None
        inside = say.contents(first, lang)
        answer = f"The video shows {inside}." if lang == "en" else f"视频中有{inside}。"
        return wording(rng, lang, task, held, **slots), answer
    if task == "happens":
        return wording(rng, lang, task, held, **slots), happened(made, made.how, thing, lang)
    slots["the"] = the(rng, first, thing, lang)
    if len(first.things) == 1 and rng.random() < 0.4:
        slots["the"] = "it" if lang == "en" else "它"
    return wording(rng, lang, task, held, **slots), happened(made, task, thing, lang)


def happened(made: Film, asked: str, thing, lang: str) -> str:
    """`asked`: what the question is about, "moves" or "turns"; "still" if all that happened was nothing."""
    name = say.name(thing.colour, thing.shape, lang)
    if asked == "still":
        return "Nothing changes in the video." if lang == "en" else "视频中没有变化。"
    if asked == "moves":
        if made.how != "moves":
            return f"The {name} does not move." if lang == "en" else f"{name}没有移动。"
        return f"The {name} moves {TO_EN[made.what]}." if lang == "en" else f"{name}向{TO_ZH[made.what]}移动。"
    if made.how != "turns":
        return f"The {name} stays {thing.colour}." if lang == "en" else f"{name}没有变色。"
    return f"The {name} turns {made.what}." if lang == "en" else f"{name}变成了{ZH_COLOUR[made.what]}。"
