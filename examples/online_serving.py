"""Ask a server about one picture, with plain HTTP.

    sensorium serve
    python examples/online_serving.py --model-path tiny-vl --image-path docs/shapes.png \\
        --docker-ip 127.0.0.1 --served-port 8000 --text "What is in this picture?"
"""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any

import httpx

INTERNVL_STOPS = [0, 92543, 92542]  # of InternLM2's vocabulary: the unknown token, <|im_start|>, <|im_end|>


def stop_token_ids(model_path: str) -> list[int] | None:
    """What InternVL with InternLM2 has to be told; others stop by themselves."""
    config = Path(model_path) / "config.json"
    if not config.is_file():
        return None
    content = json.loads(config.read_text())
    is_internlm2 = content.get("llm_config", {}).get("model_type") == "internlm2"
    return INTERNVL_STOPS if content.get("architectures") == ["InternVLChatModel"] and is_internlm2 else None


def payload(arguments: argparse.Namespace) -> dict[str, Any]:
    encoded = base64.b64encode(Path(arguments.image_path).read_bytes()).decode()
    stops = arguments.stop_token_ids
    return {
        "model": arguments.model_path,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": arguments.text},
                    # The server looks at the bytes, not at this label.
                    {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}},
                ],
            }
        ],
        "max_tokens": arguments.max_tokens,
        "temperature": arguments.temperature,
        "ignore_eos": arguments.ignore_eos,
        "stream": arguments.stream,
        "top_k": arguments.top_k,
        "top_p": arguments.top_p,
        "stop_token_ids": stop_token_ids(arguments.model_path) if stops is None else stops,
        "repetition_penalty": arguments.repetition_penalty,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask a server about one picture.")
    parser.add_argument("--model-path", required=True, help="The model's name on the server.")
    parser.add_argument("--image-path", required=True)
    parser.add_argument("--docker-ip", required=True, help="The server's address.")
    parser.add_argument("--served-port", required=True)
    parser.add_argument("--text", required=True, help="The question.")
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--ignore-eos", action="store_true", help="Go on until --max-tokens.")
    parser.add_argument("--top-k", type=int, default=-1)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--stream", type=int, default=0, help="1: print the answer as it comes.")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--stop-token-ids", nargs="+", type=int)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    url = f"http://{arguments.docker_ip}:{arguments.served_port}/v1/chat/completions"
    with httpx.stream("POST", url, json=payload(arguments), timeout=600) as response:
        if not arguments.stream or response.status_code != httpx.codes.OK:
            print(json.dumps(json.loads(response.read()), ensure_ascii=False))
            raise SystemExit(response.status_code != httpx.codes.OK)
        for line in response.iter_lines():
            data = line.removeprefix("data:").strip()
            if data and data != "[DONE]":
                print(json.loads(data)["choices"][0]["delta"]["content"], end="", flush=True)
        print()


if __name__ == "__main__":
    main()
