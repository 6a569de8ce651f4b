from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.terminal.remote import RemoteModel

KEY = "Bearer k"


class OpenAI(BaseHTTPRequestHandler):
    """Answers like an OpenAI server; the question says how."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != KEY:
            self._reply(401, json.dumps({"error": {"message": "Who are you?"}}))
        else:
            self._reply(200, json.dumps({"data": [{"id": "m1"}, {"id": "m2"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        if question == "refuse":
            self._reply(400, json.dumps({"error": {"message": "Not that."}}))
            return
        deltas: list[Any] = [{"choices": [{"delta": {"content": text}}]} for text in ("", body["model"], " says ")]
        lines = [*deltas, {"choices": [{"delta": {}}]}, {"choices": [], "usage": {}}]
        if question == "break":
            lines.append({"error": {"message": "It died."}})
        if question == "number":
            lines.append(5)
        if question == "tight":  # a space behind the colon is optional in server-sent events
            self._reply(200, "".join(f"data:{json.dumps(line)}\n\n" for line in lines) + "data:[DONE]\n\n")
            return
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
        self._reply(200, text if question in ("break", "cut") else f"{text}data: [DONE]\n\n")

    def _reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), OpenAI) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(url: str, question: str) -> list[str]:
    with RemoteModel(url, "k") as model:
        return list(model.answer([{"role": "user", "content": question}], max_tokens=5, temperature=0))


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_it_streams_from_the_first_model(url: str, ending: str) -> None:
    assert ask(url + ending, "hello") == ["m1", " says "]


def test_refusals_and_breaks_are_told_in_the_servers_words(url: str) -> None:
    with pytest.raises(SensoriumError, match=r"answered 400: Not that\."):
        ask(url, "refuse")
    with pytest.raises(SensoriumError, match=r"It died\."):
        ask(url, "break")
    with pytest.raises(SensoriumError, match="ended the stream before the answer was complete"):
        ask(url, "cut")
    with pytest.raises(ConfigurationError, match=r"answered 401: Who are you\?"):
        RemoteModel(url, None)


@pytest.mark.parametrize("wrong", ["http://[::1", "http://", "http://127.0.0.1:port"])
def test_what_is_no_url_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError):
        RemoteModel(wrong, None)


def test_a_key_that_no_header_can_hold_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="api-key"):
        RemoteModel(url, "ké")


def test_the_space_of_an_event_is_optional(url: str) -> None:
    assert "".join(ask(url, "tight")) == "m1 says "


def test_an_event_that_is_no_object_is_no_answer(url: str) -> None:
    with pytest.raises(SensoriumError, match="something that is not an answer"):
        ask(url, "number")


def test_half_a_character_in_a_question_is_told(url: str) -> None:
    """As a terminal's line or argument has it where it is not UTF-8."""
    with pytest.raises(SensoriumError, match="not valid Unicode"):
        ask(url, "caf\udce9")


def test_a_server_that_lists_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.terminal.remote._LIST_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConfigurationError, match=r"No server answers at .* \(ReadTimeout\)"),
    ):
        RemoteModel(f"http://127.0.0.1:{silent.getsockname()[1]}", None)
