"""The smallest request: no client library, no model's name. The server takes its first model.

sensorium serve
python examples/plain_request.py docs/shapes.png "What is in this picture?" --port 8000
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

import httpx


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a server about a picture.")
    parser.add_argument("image", help="A file, or an http(s) URL that the server fetches.")
    parser.add_argument("question")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()

    url = arguments.image
    if not url.startswith(("http://", "https://")):
        url = f"data:image/png;base64,{base64.b64encode(Path(url).read_bytes()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": arguments.question}]
    body = {
        "temperature": 0.0,
        "top_p": 0.1,
        "messages": [{"role": "user", "content": content, "name": None}],
    }
    response = httpx.post(f"http://127.0.0.1:{arguments.port}/v1/chat/completions", json=body, timeout=600)
    print(response.json())
    raise SystemExit(response.status_code != httpx.codes.OK)


if __name__ == "__main__":
    main()
