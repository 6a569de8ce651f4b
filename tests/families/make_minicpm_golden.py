"""Write minicpm_golden.json from the authors' own image processor: python make_minicpm_golden.py FOLDER_2_5 FOLDER_2_6

The folders hold `image_processing_minicpmv.py` as published beside the checkpoints of MiniCPM-Llama3-V 2.5 and
MiniCPM-V 2.6. It is not part of this project, so the tests read what it gave. Pictures are `picture(...)` of
`test_minicpm_image.py`, seed 0.
"""

from __future__ import annotations

import importlib
import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import transformers
from PIL import Image

from tests.families.test_minicpm_image import picture

SIZES = [  # (width, height)
    (1, 1), (13, 14), (14, 14), (100, 100), (448, 448), (449, 448), (448, 449), (447, 447), (640, 480), (480, 640),
    (600, 599), (800, 600), (1000, 800), (1024, 768), (768, 1024), (1280, 720), (720, 1280), (1344, 1344), (1345, 1344),
    (1920, 1080), (1080, 1920), (2000, 2000), (3000, 500), (500, 3000), (4000, 3000), (3024, 4032), (4000, 200),
    (200, 4000), (5000, 50), (50, 5000), (10000, 20), (20, 10000), (1, 3000), (3000, 1), (1, 30000), (30000, 1),
    (7, 6000), (634, 634), (635, 634), (896, 448), (448, 896), (1792, 112), (897, 450), (3333, 777), (777, 3333),
    (2240, 448),
]  # fmt: skip
PIXELS = [(100, 80, 9), (448, 448, 9), (640, 480, 9), (700, 1500, 9), (1999, 301, 4), (3, 900, 9)]


def main(folders: list[str]) -> None:
    golden: dict[str, Any] = {
        "made_with": {"transformers": transformers.__version__, "pillow": PIL.__version__, "numpy": np.__version__}
    }
    for version, folder in zip(("2.5", "2.6"), folders, strict=True):
        sys.path.insert(0, folder)
        sys.modules.pop("image_processing_minicpmv", None)
        module = importlib.import_module("image_processing_minicpmv")
        sys.path.remove(folder)
        rows = []
        for width, height in SIZES:
            for most in (9, 1, 2, 4):
                processor = module.MiniCPMVImageProcessor(max_slice_nums=most, image_feature_size=1)
                grid = processor.get_sliced_grid((width, height), *([most] if version == "2.6" else []))
                text = processor.get_slice_image_placeholder((width, height))
                rows.append([width, height, most, grid, text])
        processor = module.MiniCPMVImageProcessor(image_feature_size=1)
        numbered = None
        if version == "2.6":
            processor.use_image_id = True
            numbered = [processor.get_slice_image_placeholder((900, 400), number) for number in (0, 1, 12)]
        pixels = []
        for width, height, most in PIXELS:
            processor = module.MiniCPMVImageProcessor(max_slice_nums=most)
            result = processor.preprocess([Image.fromarray(picture(height, width))])
            arrays = [np.asarray(part, np.float32) for part in result["pixel_values"][0]]
            digest = blake2b(b"".join(array.tobytes() for array in arrays), digest_size=16).hexdigest()
            pixels.append([width, height, most, result["tgt_sizes"][0].tolist(), digest])
        golden[version] = {"texts": rows, "numbered": numbered, "pixels": pixels}
    lines = json.dumps(golden, separators=(",", ":")).replace("],[", "],\n[")
    Path(__file__).with_name("minicpm_golden.json").write_text(lines + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
