"""What `sensorium serve` says when it is ready: where, which models, and a request that works."""

from __future__ import annotations

import base64
import json
import shlex
import struct
import zlib
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

_SIZE = 224


def show_banner(console: Console, url: str, names: Sequence[str], *, sees: bool, api_key: str | None) -> None:
    """Print URL, models and a curl line. The key itself is shown on a terminal only, not in a log file."""
    key = api_key if api_key is None or console.is_terminal else "$SENSORIUM_API_KEY"
    console.print(Text.assemble(("Sensorium", "bold"), " is ready: ", (f"{url}/v1", "bold cyan")), soft_wrap=True)
    shown = ", ".join(names) or "none yet; `sensorium models register ALIAS MODEL` adds one"
    console.print(Text(f"Models: {shown}"), soft_wrap=True)
    console.print(Text(f"API page: {url}/docs"), soft_wrap=True)
    if not names:
        return
    console.print(Text("Try:"), soft_wrap=True)
    console.print(Text(curl_line(url, names[0], sees=sees, api_key=key)), soft_wrap=True)


def curl_line(url: str, model: str, *, sees: bool, api_key: str | None) -> str:
    """Return a shell line that asks `model` something: about a red circle, if it sees."""
    question = "Which shape do you see, and in which colour?" if sees else "Hello! What are you?"
    content: object = question
    if sees:
        picture = "data:image/png;base64," + base64.b64encode(circle_png()).decode()
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 64})
    authorization = f' -H "Authorization: Bearer {api_key}"' if api_key else ""
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{authorization} -d {shlex.quote(body)}"


def circle_png() -> bytes:
    """Return a red circle on white: one bit a pixel, two colours, under 400 bytes."""
    centre, radius = _SIZE / 2 - 0.5, _SIZE * 0.3
    rows = bytearray()
    for y in range(_SIZE):
        rows.append(0)  # no filter
        inside = [(x - centre) ** 2 + (y - centre) ** 2 < radius**2 for x in range(_SIZE)]
        rows += int("".join("1" if bit else "0" for bit in inside), 2).to_bytes(_SIZE // 8, "big")
    header = struct.pack(">IIBBBBB", _SIZE, _SIZE, 1, 3, 0, 0, 0)  # 1 bit, palette
    chunks = (
        (b"IHDR", header),
        (b"PLTE", b"\xff\xff\xff\xdc\x14\x14"),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
