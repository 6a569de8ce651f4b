"""Four requests that show what a server takes: a picture by URL, two of them, text only, a file.

Needs `pip install openai`.

sensorium serve --allow-private-media     # the pictures are served by this program, from this machine
python examples/multimodal_cases.py
python examples/multimodal_cases.py --image-url https://example.com/one.jpg --image-url https://example.com/two.jpg
"""

from __future__ import annotations

import argparse
import base64
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from openai import APIError, OpenAI

DOCS = Path(__file__).parents[1] / "docs"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def cases(urls: list[str], file: Path) -> dict[str, list[dict[str, Any]]]:
    """Name -> content of the user's message."""
    data = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    return {
        "one picture by URL": [image(urls[0]), text("What is in this picture?")],
        "two pictures by URL": [image(urls[0]), image(urls[-1]), text("What is in the second picture?")],
        "text only": [text("Who are you?")],
        "a file as base64": [image(data), text("这张图里有什么？")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Four requests to a server.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="EMPTY")
    parser.add_argument("--model", help="Default: the server's first.")
    parser.add_argument("--image-url", action="append", help="One or two; default: pictures from docs/.")
    arguments = parser.parse_args()

    client = OpenAI(base_url=arguments.base_url, api_key=arguments.api_key)
    model = arguments.model or client.models.list().data[0].id
    failed = 0
    with served(DOCS) as here:
        urls = arguments.image_url or [f"{here}/shapes.png", f"{here}/star.png"]
        for number, (name, content) in enumerate(cases(urls, DOCS / "shapes.png").items(), 1):
            messages: Any = [{"role": "user", "content": content}]
            try:
                answer = client.chat.completions.create(model=model, messages=messages, max_tokens=512)
                print(f"{number}. {name}: {answer.choices[0].message.content}")
            except APIError as error:
                print(f"{number}. {name}: FAILED: {error.message}")
                failed += 1
    print(f"{4 - failed} of 4 passed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
