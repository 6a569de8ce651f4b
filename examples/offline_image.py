"""Offline, with a prompt rendered by the tokenizer's chat template: one prompt, several pictures, or a batch.

python examples/offline_image.py --image docs/shapes.png
python examples/offline_image.py --model openbmb/MiniCPM-V-2_6 --placeholder "(<image>./</image>)" --image a.jpg b.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image

from sensorium import LLM, AutoTokenizer, SamplingParams

PICTURE = Path(__file__).parents[1] / "docs" / "shapes.png"
QWEN = "<|vision_start|><|image_pad|><|vision_end|>"  # also the bundled model's


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask about pictures offline.")
    parser.add_argument("--model", default="tiny-vl", help="A folder or a hub id.")
    parser.add_argument("--placeholder", default=QWEN, help="What stands for a picture in the model's prompts.")
    parser.add_argument("--image", nargs="+", default=[str(PICTURE)], help="Pictures of one prompt.")
    parser.add_argument("--question", default="What is in this picture?")
    parser.add_argument("--batch", type=int, default=1, help="How often the prompt is asked, all at once.")
    parser.add_argument("--stop", nargs="*", default=["<|im_end|>", "<|endoftext|>"], help="Tokens that end an answer.")
    parser.add_argument("--temperature", type=float, default=0.7)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    images = [Image.open(path).convert("RGB") for path in arguments.image]
    markers = "".join(f"{arguments.placeholder}\n" for _ in images)
    messages = [{"role": "user", "content": markers + arguments.question}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs: Any = {"prompt": prompt, "multi_modal_data": {"image": images[0] if len(images) == 1 else images}}
    if arguments.batch > 1:
        inputs = [inputs] * arguments.batch

    stops = [tokenizer.convert_tokens_to_ids(token) for token in arguments.stop]
    sampling = SamplingParams(
        stop_token_ids=[token_id for token_id in stops if token_id is not None],
        temperature=arguments.temperature,
        top_p=0.7,
        max_tokens=1024,
    )
    with LLM(
        model=arguments.model,
        max_model_len=2048,
        trust_remote_code=True,
        disable_mm_preprocessor_cache=True,
        limit_mm_per_prompt={"image": 5},
    ) as llm:
        for output in llm.generate(inputs, sampling_params=sampling):
            print(output.outputs[0].text)


if __name__ == "__main__":
    main()
