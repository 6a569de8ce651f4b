"""Files of this machine -> base64, so that a server elsewhere can be sent them. Everything else stays as it is."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TAG = re.compile(r"(<(img|audio|video)>)(.+?)(</\2>)", re.DOTALL)
_OF_USERS = ("system", "user", "tool", "function")


def convert_to_base64(
    *, messages: Sequence[dict[str, Any]] | None = None, prompt: str | None = None, images: Sequence[Any] | None = None
) -> dict[str, Any]:
    """Return what is given with its files as base64.

    Args:
        messages: files are looked for in `<img>`, `<audio>` and `<video>` tags. What the model said is left alone: an
            answer must not make this machine send a file.
        prompt: the same, one text.
        images: paths, addresses, base64, bytes or PIL images; sounds and videos as well.

    Raises:
        OSError: a file cannot be read.
    """
    converted: dict[str, Any] = {}
    if messages is not None:
        converted["messages"] = [_message(message) for message in messages]
    if prompt is not None:
        converted["prompt"] = _text(prompt)
    if images is not None:
        converted["images"] = [as_base64(image) for image in images]
    return converted


def as_base64(item: Any) -> str:
    """Return a file's content, bytes or a PIL image as base64; any other string is an address or base64 already.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(item, bytes):
        return base64.b64encode(item).decode()
    if isinstance(item, (str, os.PathLike)):
        path = os.fspath(item)
        return as_base64(Path(path).read_bytes()) if os.path.isfile(path) else path
    buffer = io.BytesIO()
    item.save(buffer, format="png")
    return as_base64(buffer.getvalue())


def _message(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if message.get("role") not in _OF_USERS or not isinstance(content, str):
        return dict(message)
    return {**message, "content": _text(content)}


def _text(text: str) -> str:
    return _TAG.sub(lambda found: found[1] + as_base64(found[3]) + found[4], text)
