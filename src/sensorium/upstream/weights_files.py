"""Are a checkpoint's weights whole, as far as their headers tell? Asked before another program spends a minute on them.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from pathlib import Path

from sensorium.errors import ConfigurationError

_INDEX = "model.safetensors.index.json"
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit


def check_weights(folder: Path) -> None:
    """Read the header of every safetensors file; files of other formats are not looked at.

    Raises:
        ConfigurationError: a file is missing, truncated or damaged; the message names it and the numbers.
    """
    files = set(folder.glob("*.safetensors"))
    index = folder / _INDEX
    if index.is_file():
        try:
            listed = {folder / name for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ConfigurationError(f"{index} is damaged; download it again.") from None
        if missing := sorted(path.name for path in listed - files):
            raise ConfigurationError(
                f"{folder} lacks {missing[0]} ({len(missing)} of {len(listed)} files of weights are missing); "
                "download the model again."
            )
    for file in sorted(files):
        _check(file)


def _check(file: Path) -> None:
    there = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if there < 8 or length > min(_MOST_HEADER_BYTES, there - 8):
            raise ConfigurationError(
                f"{file} is damaged: its header says it is {length} bytes long, and the file has {there}. "
                "Download it again."
            )
        head = opened.read(length)
    try:
        tensors = [entry["data_offsets"] for name, entry in json.loads(head).items() if name != "__metadata__"]
        needed = 8 + length + max((int(end) for _, end in tensors), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{file} is damaged: its header cannot be read. Download it again.") from None
    if needed > there:
        raise ConfigurationError(
            f"{file} is truncated: its tensors need {needed} bytes, and the file has {there}. Download it again."
        )
