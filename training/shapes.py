"""Outlines of the shapes as polygons, so that drawing and boxes come from the same points."""

import math


def _regular(n, start=-90.0):
    return [
        (math.cos(math.radians(start + 360 * i / n)), math.sin(math.radians(start + 360 * i / n))) for i in range(n)
    ]


def _star(inner):
    outer, inside = _regular(5), _regular(5, -54)
    return [(x * r, y * r) for a, b in zip(outer, inside, strict=True) for (x, y), r in ((a, 1), (b, inner))]


def _heart():
    points = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16, -(y + 2.5) / 14.5))
    return points


def _simple_heart():
    """Two half discs over a triangle: how a heart is drawn by hand with simple tools."""
    points = [(0, 1)]
    for i in range(13):
        a = math.pi + math.pi * i / 12
        points.append((-0.5 + 0.5 * math.cos(a), -0.4 + 0.5 * math.sin(a)))
    for i in range(13):
        a = math.pi + math.pi * i / 12
        points.append((0.5 + 0.5 * math.cos(a), -0.4 + 0.5 * math.sin(a)))
    return points


def _cross(w):
    return [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)]


def outline(rng, shape: str, radius: float) -> list[tuple[float, float]]:
    """Points around (0, 0); the longer half axis is about `radius`."""
    tilt = rng.choice([0.0, 0.0, rng.uniform(-14, 14)])
    if shape in ("circle", "ellipse"):
        ratio = 1.0 if shape == "circle" else rng.uniform(0.42, 0.7)
        points = [(x, y * ratio) for x, y in _regular(40)]
        if shape == "ellipse":
            tilt = rng.choice([0, 0, 0, 90, 90, 90, rng.uniform(0, 180)])
    elif shape == "square":
        points = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    elif shape == "rectangle":
        b = rng.uniform(0.35, 0.66)
        points = [(-1, -b), (1, -b), (1, b), (-1, b)]
        tilt += rng.choice([0, 0, 90])
    elif shape == "triangle":
        kind = rng.random()
        if kind < 0.7:
            h = rng.uniform(0.75, 1.0)
            points = [(0, -h), (rng.uniform(0.8, 1), h * 0.8), (-rng.uniform(0.8, 1), h * 0.8)]
        else:
            side = rng.choice([-1, 1])
            points = [(-0.9 * side, -0.9), (0.9 * side, 0.9), (-0.9 * side, 0.9)]
        tilt += rng.choice([0, 0, 0, 0, 180, 90, 270])
    elif shape == "star":
        points = _star(rng.uniform(0.38, 0.5))
        tilt += rng.choice([0, 0, 0, rng.uniform(0, 72)])
    elif shape == "diamond":
        points = [(0, -1), (rng.choice([1, rng.uniform(0.6, 1)]), 0), (0, 1)]
        points.append((-points[1][0], 0))
        tilt = tilt * 0.6 + rng.choice([0, 0, 90])
    elif shape == "hexagon":
        points = _regular(6, rng.choice([-90, 0]))
    elif shape == "heart":
        points = _heart() if rng.random() < 0.7 else _simple_heart()
    else:
        points = _cross(rng.uniform(0.2, 0.4))
    c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return [((x * c - y * s) * radius, (x * s + y * c) * radius) for x, y in points]


def box(points) -> tuple[float, float, float, float]:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)
