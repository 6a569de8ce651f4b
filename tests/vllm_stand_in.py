"""An interpreter that has the vLLM of tests/fake_vllm_packages, and a checkpoint for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sensorium.settings import EngineSettings

PACKAGES = Path(__file__).parent / "fake_vllm_packages"


def interpreter(folder: Path) -> str:
    """Write a command that starts Python with the fake vLLM."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={PACKAGES} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def checkpoint(folder: Path) -> str:
    """Write the files of a checkpoint that are read on this side."""
    found = folder / "model"
    found.mkdir()
    config = {"architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "image_token_id": 5}
    (found / "config.json").write_text(json.dumps(config))
    (found / "generation_config.json").write_text(json.dumps({"temperature": 0.25, "max_new_tokens": 12}))
    return str(found)


def settings(folder: Path, **more: Any) -> EngineSettings:
    """Return settings that run the fake vLLM."""
    return EngineSettings(checkpoint(folder), name="fake", engine="vllm", engine_python=interpreter(folder), **more)
