"""A server that keeps what it is asked and answers what it was told, for clients under test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "x", "is_chat": True, "is_multimodal": True}
CHUNKS = ("a pic", "ture")


class Recorder:
    """`bodies` are those of POST requests; `answer` overrides the canned answer, `cut` ends streams early."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.cards: list[dict[str, Any]] = [MODEL]
        self.answer: tuple[int, Any] | None = None
        self.cut = False
        self.port = 0

    @property
    def where(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port}

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if self.answer is not None:
            return self.answer[0], json.dumps(self.answer[1]).encode()
        chat = path.endswith("/chat/completions")
        if body.get("stream"):
            return 200, self._stream(chat)
        choice = {"message": {"role": "assistant", "content": "a picture"}} if chat else {"text": "a picture"}
        return 200, json.dumps(
            {
                "id": "1",
                "object": "chat.completion" if chat else "text_completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, **choice}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            }
        ).encode()

    def _stream(self, chat: bool) -> bytes:
        events = []
        for text in CHUNKS:
            choice = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices = [{"index": 0, "finish_reason": None, **choice}]
            events.append(
                {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
            )
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        return "".join([*lines, *([] if self.cut else ["data: [DONE]\n\n"])]).encode()


@contextmanager
def recording() -> Iterator[Recorder]:
    """Run a Recorder on a free port."""
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, json.dumps({"object": "list", "data": recorder.cards}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            recorder.paths.append(self.path)
            recorder.bodies.append(body)
            recorder.keys.append(self.headers.get("Authorization"))
            self._send(*recorder.reply(self.path, body))

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
