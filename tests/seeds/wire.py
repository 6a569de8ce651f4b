"""What the seeds' clients send and how they read what comes back."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from sensorium.llm import XRequestConfig, get_model_list_client, inference_client
from tests.e2e.running import Running
from tests.seeds.serving import FILES

TIMEOUT_S = 120.0
Json = dict[str, Any]


def encoded(name: str) -> str:
    """One of FILES in base64."""
    return base64.b64encode(FILES[name]).decode()


def post(
    running: Running, body: Json | str, path: str = "/v1/chat/completions", status: int = 200, key: str = "EMPTY"
) -> Any:
    """Send a body as `requests.post(url, json=...)` or curl's -d would; return the JSON of the answer."""
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    reply = httpx.post(running.url + path, content=content, headers=headers, timeout=TIMEOUT_S)
    assert reply.status_code == status, reply.text
    return reply.json()


def said(answer: Any) -> str:
    """The text of a chat answer that OpenAI's and swift's clients can read."""
    assert answer["object"] == "chat.completion"
    assert isinstance(answer["created"], int)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] in ("stop", "length")
    text = choice["message"]["content"]
    assert isinstance(text, str)
    assert all(isinstance(answer["usage"][name], int) for name in ("prompt_tokens", "completion_tokens"))
    return text


def stream(running: Running, body: Json) -> str:
    """Read a stream as strictly as swift's client does, and return its text."""
    text = ""
    done = False
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=TIMEOUT_S) as reply:
        for line in reply.iter_lines():
            if not line.strip():
                continue
            assert line.startswith("data:"), line
            data = line[5:].strip()
            if data == "[DONE]":
                done = True
                break
            chunk = json.loads(data)
            assert chunk["object"] == "chat.completion.chunk", chunk
            content = chunk["choices"][0]["delta"]["content"]
            assert isinstance(content, str)
            text += content
    assert done
    return text


def swift(model: str, query: str, history: list[tuple[str, str]] | None = None, **fields: Any) -> Json:
    """The body that swift's `inference_client` makes of its arguments."""
    messages = []
    for asked, answered in history or []:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return {"messages": [*messages, {"role": "user", "content": query}], "model": model, **fields}


def converse(
    running: Running, query: str, follow: str, first: Json | None = None, second: Json | None = None, **config: Any
) -> tuple[str, str, str]:
    """Run the program that seed 004 shows for swift's client.

    Args:
        first, second: media of the two requests, by the names that `inference_client` has for them.

    Returns:
        The model's name, and the answers to `query` and, streamed, to `follow`.
    """
    where = {"port": running.url.rpartition(":")[2]}
    model_type = get_model_list_client(**where).data[0].id
    request_config = XRequestConfig(**config)
    resp = inference_client(model_type, query, **first or {}, request_config=request_config, **where)
    response = resp.choices[0].message.content
    history = [(query, response)]
    request_config = XRequestConfig(stream=True, **config)
    stream_resp = inference_client(model_type, follow, history, **second or {}, request_config=request_config, **where)
    return model_type, response, "".join(chunk.choices[0].delta.content for chunk in stream_resp)


def parts(*content: Any, role: str = "user") -> Json:
    """A message in OpenAI's form: strings are text, (kind, url) pairs media."""
    return {
        "role": role,
        "content": [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": f"{part[0]}_url", f"{part[0]}_url": {"url": part[1]}}
            for part in content
        ],
    }


class Seen:
    """What the model saw, as far as its answer shows it: tokens of the prompt, and probabilities of the answer."""

    def __init__(self, running: Running, body: Json, key: str = "EMPTY") -> None:
        more = {"max_tokens": 3, "temperature": 0, "logprobs": True, "stream": False, "ignore_eos": True}
        answer = post(running, body | more, key=key)
        self.num_tokens = answer["usage"]["prompt_tokens"]
        positions = answer["choices"][0]["logprobs"]["content"]
        self.logprobs = [position["logprob"] for position in positions]
        self.tokens = [position["token"] for position in positions]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Seen)
        same = (self.num_tokens, self.tokens) == (other.num_tokens, other.tokens)
        return same and self.logprobs == pytest.approx(other.logprobs, abs=1e-4)

    __hash__ = None  # type: ignore[assignment]


def seen_as_parts(running: Running, body: Json, *messages: Json) -> Seen:
    """Check that `body` shows the model what the same model sees in OpenAI's form, `messages`; return that."""
    plain = {"model": body.get("model"), "messages": list(messages)}
    seen = Seen(running, body)
    assert seen == Seen(running, plain)
    return seen
