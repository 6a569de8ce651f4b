"""Turns a scene into a picture."""

import io
import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import digits, fonts, handwriting


def _background(scene):
    g = scene.ground
    w, h = scene.width, scene.height
    if g["kind"] == "plain":
        return Image.new("RGB", (w, h), g["rgb"])
    rs = np.random.RandomState(g["seed"])
    amount = g["amount"]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    if g["kind"] == "gradient":
        a = rs.uniform(0, 2 * np.pi)
        v = (np.cos(a) * x / w + np.sin(a) * y / h) * 2 * amount
    elif g["kind"] == "noise":
        v = rs.standard_normal((h, w)).astype(np.float32) * amount * 0.6
    elif g["kind"] == "stripes":
        a, p = rs.uniform(0, np.pi), rs.uniform(5, 40)
        v = (((np.cos(a) * x + np.sin(a) * y) // p) % 2) * amount
    elif g["kind"] == "checker":
        p = rs.uniform(8, 50)
        v = ((x // p + y // p) % 2) * amount
    elif g["kind"] == "dots":
        p = rs.uniform(12, 30)
        v = (((x % p - p / 2) ** 2 + (y % p - p / 2) ** 2) < (p * 0.2) ** 2) * amount
    elif g["kind"] == "rings":
        d = np.hypot(x - w * rs.uniform(0, 1), y - h * rs.uniform(0, 1))
        v = ((d // rs.uniform(8, 30)) % 2) * amount
    else:  # blobs: soft clouds
        small = Image.fromarray((rs.rand(5, 5) * 255).astype(np.uint8))
        v = (np.asarray(small.resize((w, h), Image.BICUBIC), np.float32) / 255 - 0.5) * 2 * amount
    mean = sum(g["rgb"]) / 3
    v = -v if mean > 128 else v
    out = np.clip(np.array(g["rgb"], np.float32) + v[..., None], 0, 255)
    return Image.fromarray(out.astype(np.uint8))


def _shade_edge(rgb):
    return tuple(int(c * 0.55) for c in rgb)


def _things(image, scene, edge):
    draw = ImageDraw.Draw(image)
    for t in scene.things:
        x1, y1, x2, y2 = t.box
        round_one = t.shape == "circle" or (t.shape == "ellipse" and _upright(t))
        if t.hollow:
            line = max(2, round(t.hollow * min(x2 - x1, y2 - y1) / 2))
            if round_one:
                draw.ellipse(t.box, outline=t.rgb, width=line)
            else:
                draw.line([*t.points, *t.points[:2]], fill=t.rgb, width=line, joint="curve")
        else:
            outline = _shade_edge(t.rgb) if edge else None
            if round_one:
                draw.ellipse(t.box, fill=t.rgb, outline=outline, width=2)
            else:
                draw.polygon(t.points, fill=t.rgb, outline=outline)


def _upright(t):
    """Ellipses along the axes have a point at the top of their box exactly in the middle."""
    x1, _, x2, _ = t.box
    top = min(t.points, key=lambda p: p[1])
    return abs(top[0] - (x1 + x2) / 2) < 0.02 * (x2 - x1)


def _number(image, scene):
    n = scene.number
    rng = random.Random(n.seed)
    x1, y1, x2, y2 = n.box
    if n.font is None:
        mask, middles = digits.handwritten(rng, n.text, y2 - y1)
    elif n.font == fonts.PEOPLE:
        mask, middles = handwriting.written(rng, n.text, y2 - y1)
    else:
        mask, middles = digits.printed(rng, n.text, y2 - y1, n.font, n.antialias)
        if n.warp:
            mask, middles = digits.bent(rng, mask, middles, n.warp)
    if n.outline:
        mask, middles = digits.outlined(mask, middles, n.outline)
    centres = [(m, mask.height / 2) for m in middles]
    if rng.random() < 0.15:
        angle = rng.uniform(-10, 10)
        w, h = mask.size
        mask = mask.rotate(angle, Image.BICUBIC, expand=True)
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        centres = [
            (mask.width / 2 + (x - w / 2) * c + (y - h / 2) * s, mask.height / 2 - (x - w / 2) * s + (y - h / 2) * c)
            for x, y in centres
        ]
    scale = min(1.0, (x2 - x1) / mask.width, max((y2 - y1) * 1.3, 1) / mask.height)
    if scale < 1:
        size = max(1, int(mask.width * scale)), max(1, int(mask.height * scale))
        mask = mask.resize(size, Image.BICUBIC)
    x = min(int(x1), image.width - mask.width)
    y = min(int(y1), image.height - mask.height)
    x, y = max(0, x), max(0, y)
    image.paste(n.rgb, (x, y), mask)
    n.centres = [(x + cx * min(scale, 1), y + cy * min(scale, 1)) for cx, cy in centres]


def render(scene) -> Image.Image:
    style = scene.style
    image = _background(scene)
    if scene.things:
        if style["antialias"] and scene.width * scene.height < 500_000:
            # Drawing twice as large and mixing by area gives smooth edges.
            big = image.resize((scene.width * 2, scene.height * 2), Image.NEAREST)
            twice = [(t, t.points) for t in scene.things]
            for t, points in twice:
                t.points = [(x * 2, y * 2) for x, y in points]
            _things(big, scene, style["edge"])
            for t, points in twice:
                t.points = points
            image = big.reduce(2)
        else:
            _things(image, scene, style["edge"])
    if scene.number:
        _number(image, scene)
    if style["blur"]:
        image = image.filter(ImageFilter.GaussianBlur(style["blur"]))
    if style["noise"]:
        rs = np.random.RandomState(scene.ground["seed"] ^ 1)
        # A tile of noise is enough and keeps large pictures cheap.
        tile = rs.standard_normal((64, 64, 3)) * style["noise"]
        reps = (scene.height // 64 + 1, scene.width // 64 + 1, 1)
        noise = np.tile(tile, reps)[: scene.height, : scene.width]
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    if style["jpeg"]:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=style["jpeg"])
        image = Image.open(buffer).convert("RGB")
    return image
