"""The arms: which program, in which virtual environment, with which command, environment variables and model."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from measure import CONTEXT

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
CHECKPOINTS = WORK / "checkpoints"
TEXT_MODEL, GGUF_MODEL, VISION_MODEL = CHECKPOINTS / "text", CHECKPOINTS / "text.gguf", CHECKPOINTS / "vision"
VLLM_PYTHON = WORK / "vllm" / "bin" / "python"
LLAMA_PYTHON = WORK / "llamacpp" / "bin" / "python"

NUM_CONCURRENT = 16  # image requests at once
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
OURS = OFFLINE | {"PYTHONPATH": str(HERE.parent / "src")}
VLLM = OFFLINE | {
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # else one core of two is kept free of arithmetic
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Program:
    """A command to run; `env` is added to the environment."""

    name: str  # for --arms and file names
    title: str  # for the table
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)


def offline_arms() -> list[Program]:
    """The text arms, ours first."""
    return [
        Program("ours", "sensorium", [sys.executable, _arm("ours"), str(TEXT_MODEL)], OURS),
        Program(
            "transformers",
            "transformers generate",
            [sys.executable, _arm("transformers"), str(TEXT_MODEL)],
            OFFLINE,
        ),
        Program("vllm", "vllm-cpu eager", [str(VLLM_PYTHON), _arm("vllm"), str(TEXT_MODEL)], VLLM),
        Program("llamacpp", "llama.cpp bf16", [str(LLAMA_PYTHON), _arm("llamacpp"), str(GGUF_MODEL)]),
    ]


def servers(port: int) -> list[Program]:
    """The HTTP servers of the image requests, ours first. Each listens on 127.0.0.1:`port`."""
    ours = [
        *(sys.executable, "-c", "from sensorium.cli import main; main()", "serve", str(VISION_MODEL)),
        *("--port", str(port), "--dtype", "bfloat16"),
        *("--max-model-len", str(CONTEXT), "--max-num-seqs", str(NUM_CONCURRENT)),
    ]
    vllm = [
        # Its own `vllm serve` fails: the distribution is called vllm-cpu and it asks for the metadata of vllm.
        *(str(VLLM_PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(VISION_MODEL)),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16", "--enforce-eager"),
        *("--max-model-len", str(CONTEXT), "--max-num-seqs", str(NUM_CONCURRENT)),
        *("--limit-mm-per-prompt", '{"image": 1, "video": 0}'),
    ]
    return [Program("ours", "sensorium", ours, OURS), Program("vllm", "vllm-cpu eager", vllm, VLLM)]


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def _arm(name: str) -> str:
    return str(HERE / f"arm_{name}.py")
