"""Answers on a terminal: the model in this process, messages with media, and printing what comes."""

from __future__ import annotations

import base64
import logging
import mimetypes
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import click

from sensorium.errors import InvalidRequest
from sensorium.settings import EngineSettings

Messages = list[dict[str, Any]]
Attachment = Literal["image", "video", "audio"]

# Of files whose names do not tell.
_MIME: dict[Attachment, str] = {"image": "image/png", "video": "video/mp4", "audio": "audio/wav"}


class Answering(Protocol):
    """Something that continues a conversation."""

    name: str

    def answer(
        self, messages: Messages, *, max_tokens: int | None, temperature: float | None
    ) -> Generator[str, None, None]:
        """Yield the answer in pieces."""


class LocalModel:
    """The model of `settings`, loaded in this process."""

    def __init__(self, settings: EngineSettings) -> None:
        logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
        from sensorium.llm import LLM  # here, because it imports torch

        options = {
            name: getattr(settings, name) for name in settings.__struct_fields__ if name not in ("model", "name")
        }
        self._llm = LLM(settings.model, **options)
        self.name = settings.model

    def __enter__(self) -> LocalModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._llm.close()

    def answer(
        self, messages: Messages, *, max_tokens: int | None, temperature: float | None
    ) -> Generator[str, None, None]:
        """Yield the answer in pieces."""
        from sensorium.types import SamplingParams

        sampling = {"max_tokens": None, **self._llm.info.default_sampling}
        if max_tokens is not None:
            sampling["max_tokens"] = max_tokens
        if temperature is not None:
            sampling["temperature"] = temperature
        return self._llm.stream(messages, SamplingParams(**sampling))


def user_message(question: str, attached: Sequence[tuple[Attachment, str]]) -> dict[str, Any]:
    """Return a message of the user: what is attached, each its kind and a file or an address, then the question."""
    if not attached:
        return {"role": "user", "content": question}
    parts: list[dict[str, Any]] = [
        {"type": f"{kind}_url", f"{kind}_url": {"url": media_url(kind, written)}} for kind, written in attached
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": question}]}


def media_url(kind: Attachment, written: str) -> str:
    """Return the address of a picture, video or sound: a file's bytes as a data: URL, any other address as it is.

    Raises:
        InvalidRequest: there is no such file.
    """
    if written.startswith(("http://", "https://", "data:")):
        return written
    path = local_path(written)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{written!r} cannot be read: {error.strerror}.", param=kind) from None
    except ValueError:  # a NUL
        raise InvalidRequest(f"{written!r} cannot be read: it is no path.", param=kind) from None
    guessed = mimetypes.guess_type(path.name)[0] or ""
    mime = guessed if guessed.startswith(f"{kind}/") else _MIME[kind]
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def local_path(written: str) -> Path:
    """Return the path that is meant, `~` being the home directory where there is one."""
    path = Path(written)
    try:
        return path.expanduser()
    except RuntimeError:  # ~name, and nobody has that name
        return path


def print_answer(pieces: Generator[str, None, None]) -> str:
    """Print pieces as they come, and return them as one text."""
    said: list[str] = []
    with closing(pieces):
        for piece in pieces:
            said.append(piece)
            click.echo(piece, nl=False)
    click.echo()
    return "".join(said)
