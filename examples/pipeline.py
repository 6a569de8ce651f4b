"""Continue a raw prompt with pictures in it; the answer so far is printed after every step.

python examples/pipeline.py --url docs/shapes.png
python examples/pipeline.py --model Qwen/Qwen-VL-Chat --prompt "Picture 1:<img/>\\nWhat is this?" --url https://...
python examples/pipeline.py --model Qwen/Qwen-VL-Chat --prompt "Picture 1:<img>https://...</img>\\nWhat is this?"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sensorium.model_factory import ModelConfig, ModelFactory
from sensorium.pipeline import Pipeline

FOLDER = Path(__file__).parents[1]
# A pipeline uses no chat template, so the bundled model's is written out.
PROMPT = "<|im_start|>user\n<img/>What is in this picture?<|im_end|>\n<|im_start|>assistant\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Continue a raw prompt with pictures in it.")
    parser.add_argument("--model", default="tiny-vl", help="A folder or a hub id.")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--url", action="append", default=[], help="A picture's address; also files below --folder.")
    parser.add_argument("--folder", default=str(FOLDER), help="Where pictures may be read from.")
    arguments = parser.parse_args()

    config = ModelConfig(options={"allowed_local_media_path": arguments.folder})
    model = ModelFactory.from_huggingface(arguments.model, model_config=config)
    pipeline = Pipeline(model, model.tokenizer)
    generate_config = {"top_k": 1, "max_new_tokens": 100}
    prompt = arguments.prompt.replace("\\n", "\n")
    for result in pipeline(prompt, urls=arguments.url or None, generate_config=generate_config):
        print(result.batch_response)
    pipeline.stop()


if __name__ == "__main__":
    main()
