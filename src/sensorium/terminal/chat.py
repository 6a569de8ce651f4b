"""`sensorium chat`: a conversation whose history, media included, is kept."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys

import click

from sensorium.errors import SensoriumError
from sensorium.terminal.answer import Answering, Attachment, Messages, local_path, media_url, print_answer, user_message

_HELP = "/image FILE or URL attaches a picture, /video a video, /audio a sound, /clear forgets everything, /exit ends."
_ENDINGS: dict[Attachment, tuple[str, ...]] = {
    "image": (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"),
    "video": (".mp4", ".mov", ".mkv", ".webm", ".avi"),
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a"),
}
_COMMANDS: dict[str, Attachment] = {f"/{kind}": kind for kind in _ENDINGS}


class Conversation:
    """Reads lines, sends what was said so far, prints the answers."""

    def __init__(
        self, model: Answering, system: str | None, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> None:
        self._model = model
        self._start: Messages = [{"role": "system", "content": system}] if system else []
        self._max_tokens, self._temperature = max_tokens, temperature
        self.messages = list(self._start)
        self.attached: list[tuple[Attachment, str]] = []  # to the next question

    def run(self) -> None:
        """Read lines until /exit or the end of the input."""
        asks = sys.stdin.isatty()
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # a line that is not UTF-8 must not end the conversation
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
        """Take one line: a command, the path of a file (as a terminal writes a dragged one), or a question."""
        command, _, rest = line.partition(" ")
        if line == "/clear":
            self.messages, self.attached = list(self._start), []
        elif kind := _COMMANDS.get(command):
            self._attach(kind, rest.strip())
        elif kind := _kind(line):
            self._attach(kind, line)
        elif line.startswith("/") and not _exists(line):
            click.echo(f"Commands: {_HELP}", err=True)
        else:
            self._ask(line)

    def _attach(self, kind: Attachment, written: str) -> None:
        try:
            self.attached.append((kind, media_url(kind, _path(written))))
        except SensoriumError as error:
            click.echo(error.message, err=True)
        else:
            click.echo(f"[{len(self.attached)} file(s) attached to your next question]", err=True)

    def _ask(self, question: str) -> None:
        before = list(self.messages)
        self.messages.append(user_message(question, self.attached))
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
            self.attached = []


def _kind(line: str) -> Attachment | None:
    """The kind of the file whose path this line is, if it is one."""
    path = local_path(_path(line))
    found = next((kind for kind, endings in _ENDINGS.items() if path.suffix.lower() in endings), None)
    return found if os.path.isfile(path) else None


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
