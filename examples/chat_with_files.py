"""A conversation with a server, in which pictures, videos and sounds can be sent. Needs `pip install openai`.

sensorium serve --limit-mm-per-prompt '{"image": 5, "video": 2}'
python examples/chat_with_files.py
"""

from __future__ import annotations

import argparse
import base64
import mimetypes
from pathlib import Path
from typing import Any

from openai import APIError, OpenAI


def file_part(path: Path) -> dict[str, Any] | None:
    """Return the content part for a file; None, and a word about it, where the kind is not known."""
    mime = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind = mime.partition("/")[0]
    if kind not in ("image", "video", "audio"):
        print(f"{path} is {mime}, which cannot be sent; pictures, videos and sounds can.")
        return None
    url = f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def ask_for_file() -> dict[str, Any] | None:
    if input("Send a file? (y/n) ").strip().lower() != "y":
        return None
    path = Path(input("Path: ").strip()).expanduser()
    if not path.is_file():
        print(f"There is no file {path}; the question goes without it.")
        return None
    return file_part(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Talk with a server's model about files.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    parser.add_argument("--model", help="Default: the server's first.")
    parser.add_argument("--system", default="You are a helpful assistant.")
    parser.add_argument("--stop-token-ids", nargs="*", type=int, help="Tokens that end an answer, beside the model's.")
    arguments = parser.parse_args()

    client = OpenAI(base_url=arguments.base_url, api_key=arguments.api_key)
    model = arguments.model or client.models.list().data[0].id
    messages: list[Any] = [{"role": "system", "content": arguments.system}]
    while (text := input("You (exit ends): ")).strip().lower() != "exit":
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if (part := ask_for_file()) is not None:
            content.append(part)
        messages.append({"role": "user", "content": content})
        try:
            answer = client.chat.completions.create(
                model=model, messages=messages, extra_body={"stop_token_ids": arguments.stop_token_ids}
            )
        except APIError as error:
            print(f"The server refused: {error.message}")
            messages.pop()  # the conversation goes on without what it could not take
            continue
        said = answer.choices[0].message.content
        print(f"{model}: {said}")
        messages.append({"role": "assistant", "content": said})


if __name__ == "__main__":
    main()
