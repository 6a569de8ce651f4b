"""`sensorium chat`: a conversation whose history, pictures included, is kept."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys

import click

from sensorium.errors import SensoriumError
from sensorium.terminal.answer import Answering, Messages, local_path, picture_url, print_answer, user_message

_HELP = "/image FILE or URL attaches a picture, /clear forgets everything, /exit ends."
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")


class Conversation:
    """Reads lines, sends what was said so far, prints the answers."""

    def __init__(
        self, model: Answering, system: str | None, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> None:
        self._model = model
        self._start: Messages = [{"role": "system", "content": system}] if system else []
        self._max_tokens, self._temperature = max_tokens, temperature
        self.messages = list(self._start)
        self.pictures: list[str] = []  # for the next question

    def run(self) -> None:
        """Read lines until /exit or the end of the input."""
        asks = sys.stdin.isatty()
        if asks:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  # gives input() a history
            click.echo(f"{self._model.name}. {_HELP}")
        while True:
            try:
                line = input("> " if asks else "").strip()
            except EOFError:
                break
            except KeyboardInterrupt:
                click.echo()
                break
            if line == "/exit":
                break
            if line:
                self.say(line)

    def say(self, line: str) -> None:
        """Take one line: a command, a picture's path (as a terminal writes a dragged file), or a question."""
        if line == "/clear":
            self.messages, self.pictures = list(self._start), []
        elif line.startswith("/image"):
            self._attach(line.removeprefix("/image").strip())
        elif _is_picture(line):
            self._attach(line)
        elif line.startswith("/") and not _exists(line):
            click.echo(f"Commands: {_HELP}", err=True)
        else:
            self._ask(line)

    def _attach(self, written: str) -> None:
        try:
            self.pictures.append(picture_url(_path(written)))
        except SensoriumError as error:
            click.echo(error.message, err=True)
        else:
            click.echo(f"[{len(self.pictures)} picture(s) attached to your next question]", err=True)

    def _ask(self, question: str) -> None:
        before = list(self.messages)
        self.messages.append(user_message(question, self.pictures))
        try:
            pieces = self._model.answer(self.messages, max_tokens=self._max_tokens, temperature=self._temperature)
            said = print_answer(pieces)
        except SensoriumError as error:
            click.echo(f"\n{error.message}", err=True)
            self.messages = before  # the same history again would only fail again
        except KeyboardInterrupt:
            click.echo(" [stopped]", err=True)
            self.messages = before
        else:
            self.messages.append({"role": "assistant", "content": said})
            self.pictures = []


def _is_picture(line: str) -> bool:
    path = local_path(_path(line))
    return path.suffix.lower() in _PICTURES and os.path.isfile(path)


def _exists(line: str) -> bool:
    return os.path.exists(local_path(line))  # unlike Path.exists, False for a line too long to be a path


def _path(written: str) -> str:
    """Undo the quoting that a terminal gives a dragged path."""
    if _exists(written):
        return written
    try:
        words = shlex.split(written)
    except ValueError:
        return written
    return words[0] if len(words) == 1 else written
