"""Ask a server about a file with OpenAI's client, once whole and once streamed. Needs `pip install openai`.

sensorium serve
python examples/openai_client.py docs/shapes.png "What is in this picture?" "How many shapes are there?"
python examples/openai_client.py clip.mp4 "What happens?" "How does it end?"
python examples/openai_client.py weather.wav "What is said?" "Is it a man?"
"""

from __future__ import annotations

import argparse
import base64
import mimetypes
from pathlib import Path
from typing import Any

from openai import OpenAI


def file_part(path: Path) -> dict[str, Any]:
    mime = mimetypes.guess_type(path.name)[0] or "image/png"
    kind = mime.partition("/")[0]
    url = f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a server about a file, and then once more.")
    parser.add_argument("file", type=Path)
    parser.add_argument("question")
    parser.add_argument("follow_up")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    parser.add_argument("--stop-token-ids", nargs="*", type=int)
    parser.add_argument("--max-tokens", type=int, help="Longest answer; default: what the context leaves.")
    arguments = parser.parse_args()

    client = OpenAI(base_url=arguments.base_url, api_key=arguments.api_key)
    model = client.models.list().data[0].id
    content = [file_part(arguments.file), {"type": "text", "text": arguments.question}]
    messages: list[Any] = [{"role": "user", "content": content}]
    extra = {"stop_token_ids": arguments.stop_token_ids, "max_tokens": arguments.max_tokens}
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, extra_body=extra)
    response = answer.choices[0].message.content
    print(f"query: {arguments.question}\nresponse: {response}")

    messages += [{"role": "assistant", "content": response}, {"role": "user", "content": arguments.follow_up}]
    print(f"query: {arguments.follow_up}\nresponse: ", end="")
    for chunk in client.chat.completions.create(
        model=model, messages=messages, temperature=0, stream=True, extra_body=extra
    ):
        print(chunk.choices[0].delta.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
