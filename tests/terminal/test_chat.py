from __future__ import annotations

import copy
import io
from collections.abc import Generator
from pathlib import Path

import pytest

from sensorium.errors import SensoriumError
from sensorium.terminal.answer import Messages
from sensorium.terminal.chat import Conversation


class Parrot:
    """Repeats the question; keeps what it was sent."""

    name = "parrot"

    def __init__(self) -> None:
        self.sent: list[Messages] = []

    def answer(
        self, messages: Messages, *, max_tokens: int | None, temperature: float | None
    ) -> Generator[str, None, None]:
        self.sent.append(copy.deepcopy(messages))
        content = messages[-1]["content"]
        question = content if isinstance(content, str) else content[-1]["text"]
        if question == "fail":
            raise SensoriumError("It failed.")
        yield from question


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a cat.png"
    path.write_bytes(b"png")
    return path


def test_history_is_kept_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    parrot = Parrot()
    talk = Conversation(parrot, "Be brief.")
    for line in ("one", "two", "/clear", "three"):
        talk.say(line)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    roles = [[message["role"] for message in messages] for messages in parrot.sent]
    assert roles == [["system", "user"], ["system", "user", "assistant", "user"], ["system", "user"]]


@pytest.mark.parametrize("form", ["/image {path}", "/image '{path}'", "{path}", "'{path}'", "{escaped}"])
def test_pictures_go_with_the_next_question_only(picture: Path, form: str) -> None:
    parrot = Parrot()
    talk = Conversation(parrot, None)
    talk.say(form.format(path=picture, escaped=str(picture).replace(" ", "\\ ")))
    talk.say("what?")
    talk.say("and now?")
    content = parrot.sent[0][0]["content"]
    assert content[0]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert content[1] == {"type": "text", "text": "what?"}
    assert parrot.sent[1][0]["content"] == content
    assert parrot.sent[1][-1] == {"role": "user", "content": "and now?"}


@pytest.mark.parametrize("form", ["/{kind} {path}", "{path}"])
@pytest.mark.parametrize(("kind", "name"), [("audio", "digits.wav"), ("video", "clip.mp4"), ("video", "clip.mkv")])
def test_files_are_attached_as_what_they_are(tmp_path: Path, form: str, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"wav")
    parrot = Parrot()
    talk = Conversation(parrot, None)
    talk.say(form.format(kind=kind, path=path))
    talk.say("what?")
    start, _, data = parrot.sent[0][0]["content"][0][f"{kind}_url"]["url"].partition(";base64,")
    assert (start.startswith(f"data:{kind}/"), data) == (True, "d2F2")


def test_an_address_is_attached_as_it_is() -> None:
    parrot = Parrot()
    talk = Conversation(parrot, None)
    talk.say("/image https://example.com/cat.png")
    talk.say("what?")
    assert parrot.sent[0][0]["content"][0]["image_url"]["url"] == "https://example.com/cat.png"


def test_a_failure_is_told_and_leaves_the_history_as_it_was(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parrot = Parrot()
    talk = Conversation(parrot, None)
    talk.say("one")
    talk.say(str(picture))
    talk.say("fail")
    assert "It failed." in capsys.readouterr().err
    assert [message["content"] for message in talk.messages] == ["one", "one"]
    assert len(talk.attached) == 1


def test_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Conversation(Parrot(), None)
    talk.say("/image no/such.png")
    assert "'no/such.png' cannot be read" in capsys.readouterr().err
    talk.say("/fly")
    assert "/image FILE" in capsys.readouterr().err
    assert talk.messages == []


@pytest.mark.parametrize("line", ["why " * 100, "~nobody-of-that-name is who?", "x" * 300 + ".png"])
def test_lines_that_can_be_no_path_are_questions(line: str) -> None:
    parrot = Parrot()
    Conversation(parrot, None).say(line)
    assert parrot.sent[0][-1]["content"] == line


@pytest.mark.parametrize("line", ["/image " + "y" * 300, "/image ~nobody-of-that-name/x.png", "/image a\0b"])
def test_paths_that_can_be_none_are_named(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = Conversation(Parrot(), None)
    conversation.say(line)
    assert "cannot be read" in capsys.readouterr().err
    assert conversation.attached == []


def test_an_unknown_command_may_be_long(capsys: pytest.CaptureFixture[str]) -> None:
    Conversation(Parrot(), None).say("/" + "x" * 300)
    assert "Commands:" in capsys.readouterr().err


def test_a_line_that_is_not_utf_8_is_a_question_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parrot = Parrot()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\ncaf\xe9\nthree\n"), encoding="utf-8"))
    Conversation(parrot, None).run()
    assert capsys.readouterr().out == "one\ncaf\ufffd\nthree\n"
