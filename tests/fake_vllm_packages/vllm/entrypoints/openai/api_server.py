"""A server with the face of vLLM's: its command line, log, child processes, HTTP and refusals.

The answer repeats the last text of the prompt, a character a token (its id is the character's number). `slow` goes on
for ever, `crash` kills the server after three tokens, `stop` stops it. `--fake=corrupt` fails like a broken checkpoint;
`--fake=dies` ends while it loads.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

OPTIONS: dict[str, str] = {}
ADAPTERS: dict[str, str] = {}
VOCABULARY = 0x110000
MAX_LEN = 200
# Of vllm/entrypoints/openai/{chat_completion,completion}/protocol.py, those that Sensorium may send.
BOTH = {
    *("model", "n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "seed", "stop", "stop_token_ids", "bad_words", "logit_bias", "ignore_eos", "min_tokens"),
    *("max_tokens", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output", "stream"),
    *("stream_options", "return_token_ids", "add_special_tokens", "cache_salt", "logprobs"),
}
CHAT = BOTH | {
    *("messages", "top_logprobs", "add_generation_prompt", "continue_final_message", "chat_template"),
    *("chat_template_kwargs", "tools", "tool_choice"),
}
TEXT = BOTH | {"prompt"}


class Refused(Exception):
    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            return self._send(200, b"")
        if self.path == "/v1/models" and self._allowed():
            return self._json({"object": "list", "data": [self._card()]})
        return self._send(404, b'{"detail":"Not Found"}')

    def do_POST(self) -> None:  # noqa: C901
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"null")
        if self.path.startswith("/v1/") and not self._allowed():
            return None
        try:
            match self.path:
                case "/v1/chat/completions":
                    known, text, chat = CHAT, chat_text(body), True
                case "/v1/completions":
                    known, text, chat = TEXT, body["prompt"], False
                    text = "".join(map(chr, text)) if isinstance(text, list) else text
                case "/tokenize":
                    text = chat_text(body) if "messages" in body else body["prompt"]
                    return self._json({"count": len(text), "max_model_len": MAX_LEN, "tokens": [ord(c) for c in text]})
                case "/detokenize":
                    return self._json({"prompt": "".join(map(chr, body["tokens"]))})
                case "/v1/load_lora_adapter":
                    if not os.path.isfile(os.path.join(body["lora_path"], "adapter_config.json")):
                        raise Refused(f"No adapter found for {body['lora_path']}", "lora_path", 404)
                    ADAPTERS[body["lora_name"]] = body["lora_path"]
                    return self._send(200, b"Success")
                case "/v1/unload_lora_adapter":
                    del ADAPTERS[body["lora_name"]]
                    return self._send(200, b"Success")
                case _:
                    return self._send(404, b'{"detail":"Not Found"}')
            if unknown := sorted(set(body) - known):
                raise Refused(f"unknown field {unknown[0]}", unknown[0])
            if body["model"] not in (OPTIONS["served-model-name"], *ADAPTERS):
                raise Refused(f"The model `{body['model']}` does not exist.", "model", 404)
            if len(text) + (body.get("max_tokens") or 0) > MAX_LEN:
                raise Refused(
                    f"This model's maximum context length is {MAX_LEN} tokens. (parameter=max_tokens, value=9)",
                    "max_tokens",
                )
            if body.get("n", 1) > 1 and body["temperature"] == 0:
                raise Refused(f"n must be 1 when using greedy sampling, got {body['n']}.")
            return self._stream(body, text, chat)
        except Refused as error:
            said = {"message": str(error), "type": "BadRequestError", "param": error.param, "code": error.status}
            return self._json({"error": said}, error.status)

    def _stream(self, body: dict[str, Any], text: str, chat: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        n, ids = body.get("n", 1), [ord(character) for character in text]
        said = 0
        if ADAPTERS.get(body["model"]):
            text += "+" + os.path.basename(ADAPTERS[body["model"]])

        def send(choices: list[dict[str, Any]], **more: Any) -> None:
            usage = {"prompt_tokens": len(ids), "completion_tokens": said, "total_tokens": len(ids) + said}
            self._event({"id": "x", "object": "chunk", "choices": choices, "usage": usage, **more})

        if chat:
            for index in range(n):
                role = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                send([role], prompt_token_ids=ids)
        most, stops = body.get("max_tokens") or MAX_LEN - len(text), body.get("stop") or []
        for index in range(n):
            done, place = False, 0
            while not done:
                character = text[place % len(text)] if "slow" in text else text[place]
                place, said = place + 1, said + 1
                stop = character if character in stops else None
                done = place == most or stop is not None or ("slow" not in text and place == len(text))
                choice: dict[str, Any] = {"index": index, "token_ids": [ord(character)], "finish_reason": None}
                shown = "" if stop else character
                choice |= {"delta": {"content": shown}} if chat else {"text": shown, "prompt_token_ids": ids}
                if body.get("logprobs") is not None and body["logprobs"] is not False:
                    choice["logprobs"] = logprobs(character, body, chat)
                if done:
                    reason = "stop" if stop or place < most else "length"
                    choice |= {"finish_reason": reason, "stop_reason": stop}
                send([choice])
                if place == 3 and "crash" in text:
                    os.kill(os.getpid(), signal.SIGKILL)
                if place == 3 and "stopped" in text:
                    os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(0.01)
        send([])
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _allowed(self) -> bool:
        allowed = self.headers.get("authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"
        if not allowed:
            self._json({"error": "Unauthorized"}, 401)
        return allowed

    def _card(self) -> dict[str, Any]:
        return {"id": OPTIONS["served-model-name"], "owned_by": "vllm", "max_model_len": MAX_LEN}

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def chat_text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    text = ""
    for part in content:
        if part["type"] == "text":
            text += part["text"]
            continue
        url = part[part["type"]]["url"]
        if not url.startswith("data:"):
            raise Refused("not inline")
        text += f"[{part['type']} {len(base64.b64decode(url.split(',')[1]))}]"
    return text


def logprobs(character: str, body: dict[str, Any], chat: bool) -> dict[str, Any]:
    if not chat:
        top = {character: -0.5, "?": -1.5}
        return {"text_offset": [0], "token_logprobs": [-0.5], "tokens": [character], "top_logprobs": [top]}
    entry = {"token": character, "logprob": -0.5, "bytes": list(character.encode())}
    top_entries = [entry, {"token": "?", "logprob": -1.5, "bytes": [63]}][: body.get("top_logprobs", 0)]
    return {"content": [{**entry, "top_logprobs": top_entries}]}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def say(text: str) -> None:
    print(f"(APIServer pid={os.getpid()}) INFO 11-21 21:17:19 [model.py:733] {text}", flush=True)


def main() -> None:
    for word in sys.argv[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        OPTIONS[name] = value
    say("non-default args: {}")
    # As vLLM's engine does, it runs in a process of its own; and as none of vLLM's does, in its own session.
    engine = [sys.executable, "-c", "import time; time.sleep(600)", "EngineCore"]
    subprocess.Popen(engine, start_new_session=True)
    say("Starting to load model x...")
    print("Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  4.33it/s]", flush=True)
    if OPTIONS.get("fake") == "corrupt":
        print("Traceback (most recent call last):", flush=True)
        print("safetensors_rust.SafetensorError: Error while deserializing header: header too large", flush=True)
        print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
        sys.exit(1)
    if OPTIONS.get("fake") == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    say("CPU KV cache size: 209,664 tokens, Maximum concurrency for 2,048 tokens per request: 102.38x")
    say("Starting vLLM server on unix:x")
    Server(OPTIONS["uds"], Handler).serve_forever()


if __name__ == "__main__":
    main()
