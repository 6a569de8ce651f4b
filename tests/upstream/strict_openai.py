"""A server that takes what OpenAI's API reference lists and nothing else, in a thread. What it was sent is kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-right"
CHAT = {
    *("model", "messages", "n", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop"),
    *("logit_bias", "max_completion_tokens", "max_tokens", "logprobs", "top_logprobs", "stream", "stream_options"),
}
TEXT = CHAT - {"messages", "max_completion_tokens", "top_logprobs"} | {"prompt"}


class Strict(ThreadingHTTPServer):
    """`owner` is what its model cards say; `script` what it does instead of answering."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner, self.script = "strict", ""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Strict

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.script == "no list":
            return self._json({"error": {"message": "Unknown request URL"}}, 404)
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return self._json({"error": {"message": f"Incorrect API key: {self.headers.get('authorization')}"}}, 401)
        return self._json({"object": "list", "data": [{"id": "gpt", "object": "model", "owned_by": self.server.owner}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        chat = self.path == "/v1/chat/completions"
        unknown = sorted(set(body) - (CHAT if chat else TEXT))
        if unknown:
            error = {"message": f"Unrecognized request argument supplied: {unknown[0]}", "param": unknown[0]}
            return self._json({"error": error}, 400)
        match self.server.script.partition(" ")[::2]:
            case "status", number:
                self.send_response(int(number))
                self.send_header("retry-after", "7")
                self.send_header("location", "http://127.0.0.1:1/")
                self.send_header("content-length", "0")
                return self.end_headers()
            case "refuse", message:
                error = {"message": message, "param": "messages[0].content[1].image_url", "code": "invalid_image"}
                return self._json({"error": error}, 400)
        return self._stream(body, chat)

    def _stream(self, body: dict[str, Any], chat: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        words = ["Hel", "lo\u2028", "!"]  # a separator at which careless readers cut lines
        script = self.server.script
        try:
            self.wfile.write(b": a comment\r\n\r\nevent: chunk\r\n")
            for index in range(body.get("n", 1)):
                for number, word in enumerate(words):
                    if script == "broken" and number == 2:
                        return None
                    if script == "silent" and number == 1:
                        time.sleep(3)
                    if script == "garbage" and number == 1:
                        self.wfile.write(b"data: {]\n\n")
                    if script == "error" and number == 1:
                        return self._event({"error": {"message": "a secret of theirs", "type": "server_error"}})
                    choice: dict[str, Any] = {"index": index, "finish_reason": None}
                    choice |= {"delta": {"content": word}} if chat else {"text": word}
                    if number == 2:
                        choice["finish_reason"] = "content_filter" if script == "filter" else "stop"
                    self._event({"object": "chunk", "choices": [choice]})
                    if script == "slow":
                        time.sleep(0.2)
            if script != "no usage":
                usage = {"prompt_tokens": 9, "completion_tokens": 3 * body.get("n", 1)}
                self._event({"choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 4}}})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.hung_up.set()

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\r\n\r\n")
        self.wfile.flush()

    def _json(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def strict_server() -> Iterator[Strict]:
    with Strict() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
