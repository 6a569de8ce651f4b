"""Ask a vision model offline, in this process, with the prompt form of its family.

python examples/vision_language.py                                   # the bundled model
python examples/vision_language.py --model-type qwen2_5_vl --model /models/Qwen2.5-VL-3B-Instruct
python examples/vision_language.py --model-type qwen2_5_vl --modality video --num-frames 16 --video clip.mp4
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sensorium import LLM, AutoTokenizer, SamplingParams

PICTURE = Path(__file__).parents[1] / "docs" / "shapes.png"
QUESTIONS = {
    "image": ["What is in this picture?", "How many shapes are there?", "Where is the circle?", "What shape is blue?"],
    "video": ["Which way does the circle move?", "What is in this video?"],
}


@dataclass(frozen=True)
class ModelType:
    """How one family is loaded and asked. `prompt` takes question, modality and tokenizer."""

    model: str
    prompt: Callable[[str, str, AutoTokenizer], str]
    options: dict[str, Any] = field(default_factory=dict)
    stop_tokens: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("image", "video")


def chatml(question: str, modality: str, tokenizer: AutoTokenizer, system: str = "") -> str:
    """The Qwen-VL families since 2."""
    marker = f"<|vision_start|><|{modality}_pad|><|vision_end|>"
    return f"{system}<|im_start|>user\n{marker}{question}<|im_end|>\n<|im_start|>assistant\n"


def chatml_with_system(question: str, modality: str, tokenizer: AutoTokenizer) -> str:
    return chatml(question, modality, tokenizer, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")


def from_template(placeholder: str) -> Callable[[str, str, AutoTokenizer], str]:
    """The checkpoint's own chat template, over a text that holds the placeholder."""

    def prompt(question: str, modality: str, tokenizer: AutoTokenizer) -> str:
        content = f"{placeholder.format(modality)}\n{question}"
        messages = [{"role": "user", "content": content}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    return prompt


def llava(question: str, modality: str, tokenizer: AutoTokenizer) -> str:
    return f"USER: <image>\n{question}\nASSISTANT:"


QWEN = {"max_model_len": 4096, "max_num_seqs": 5}
QWEN2_5 = {**QWEN, "mm_processor_kwargs": {"min_pixels": 28 * 28, "max_pixels": 1280 * 28 * 28, "fps": 1}}
MODEL_TYPES = {
    "tiny-vl": ModelType("tiny-vl", chatml, QWEN),
    "qwen2_vl": ModelType("Qwen/Qwen2-VL-2B-Instruct", chatml_with_system, QWEN),
    "qwen2_5_vl": ModelType("Qwen/Qwen2.5-VL-3B-Instruct", chatml_with_system, QWEN2_5),
    "qwen3_vl": ModelType("Qwen/Qwen3-VL-2B-Instruct", chatml, QWEN),
    "internvl_chat": ModelType(
        "OpenGVLab/InternVL2-2B",
        from_template("<{0}>"),
        {"max_model_len": 4096},
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|end|>"),
    ),
    "minicpmv": ModelType(
        "openbmb/MiniCPM-V-2_6",
        from_template("(<{0}>./</{0}>)"),
        {"max_model_len": 4096, "max_num_seqs": 2},
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "llava": ModelType("llava-hf/llava-1.5-7b-hf", llava, {"max_model_len": 4096}, modalities=("image",)),
}


def moving_circle(num_frames: int, size: int = 224) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A red circle on its way from left to right: (num_frames, size, size, 3)."""
    frames = []
    for number in range(num_frames):
        frame = Image.new("RGB", (size, size), "white")
        left = 10 + (size - 80) * number // max(num_frames - 1, 1)
        ImageDraw.Draw(frame).ellipse((left, 80, left + 60, 140), fill="red")
        frames.append(np.asarray(frame))
    return np.stack(frames)


def read_video(path: str, num_frames: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frames of a file at equal distances: (num_frames or fewer, height, width, 3)."""
    import av

    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = np.linspace(0, len(frames) - 1, min(num_frames, len(frames))).astype(int)
    return np.stack([frames[index] for index in chosen])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask a vision model offline.")
    parser.add_argument("--model-type", "-m", choices=MODEL_TYPES, default="tiny-vl", help="Prompt form and settings.")
    parser.add_argument("--model", help="A folder or a hub id; default: that of the type.")
    parser.add_argument("--num-prompts", type=int, default=4, help="How many are answered together.")
    parser.add_argument("--modality", choices=("image", "video"), default="image")
    parser.add_argument("--num-frames", type=int, default=16, help="Frames taken from the video.")
    parser.add_argument("--image", default=str(PICTURE), help="A picture's file.")
    parser.add_argument("--video", help="A video's file; default: a circle that moves.")
    parser.add_argument("--question", action="append", help="May be given more than once.")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.2)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    chosen = MODEL_TYPES[arguments.model_type]
    modality = arguments.modality
    if modality not in chosen.modalities:
        raise SystemExit(f"{arguments.model_type} takes {', '.join(chosen.modalities)}, not {modality}.")
    if modality == "image":
        media: Any = Image.open(arguments.image).convert("RGB")
    elif arguments.video:
        media = read_video(arguments.video, arguments.num_frames)
    else:
        media = moving_circle(arguments.num_frames)

    questions = list(
        itertools.islice(itertools.cycle(arguments.question or QUESTIONS[modality]), arguments.num_prompts)
    )
    with LLM(arguments.model or chosen.model, limit_mm_per_prompt={modality: 1}, **chosen.options) as llm:
        tokenizer = llm.get_tokenizer()
        stops = [tokenizer.convert_tokens_to_ids(token) for token in chosen.stop_tokens]
        sampling = SamplingParams(
            temperature=arguments.temperature,
            max_tokens=arguments.max_tokens,
            stop_token_ids=[token_id for token_id in stops if token_id is not None],
        )
        inputs: Any = [
            {"prompt": chosen.prompt(question, modality, tokenizer), "multi_modal_data": {modality: media}}
            for question in questions
        ]
        for question, output in zip(questions, llm.generate(inputs, sampling), strict=True):
            print(f"{question}\n    {output.outputs[0].text}")


if __name__ == "__main__":
    main()
