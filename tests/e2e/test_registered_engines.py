"""Models of other servers are registered, asked, and gone again while a server runs."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.e2e.running import Running, ask, serve
from tests.upstream.strict_openai import KEY, strict_server
from tests.vllm_stand_in import checkpoint, interpreter

SAY = {"messages": ask("Hello"), "max_tokens": 4, "temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    python = interpreter(tmp_path_factory.mktemp("vllm"))
    variables = {"SENSORIUM_VLLM_PYTHON": python}
    with serve(("tiny-vl", "--no-preload"), tmp_path_factory.mktemp("home"), variables=variables) as running:
        yield running


def vllm_processes(server: Running) -> list[psutil.Process]:
    below = psutil.Process(server.process.pid).children(recursive=True)
    return [process for process in below if process.status() != psutil.STATUS_ZOMBIE and "-m" in process.cmdline()[:3]]


def register(server: Running, **body: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/models/register", json=body, timeout=60)


def chat(server: Running, model: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json={"model": model, **SAY}, timeout=60)


def test_vllm(server: Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = checkpoint(tmp_path_factory.mktemp("checkpoint"))
    answer = register(server, alias="v", model_name=folder, engine="vllm", max_model_len=100)
    assert answer.status_code == 200, answer.text
    assert chat(server, "v").json()["choices"][0]["message"]["content"] == "Hell"
    shown = httpx.get(f"{server.url}/v1/models/v").json()
    assert (shown["engine"], shown["state"]) == ("vllm", "ready")
    found = [process for process in vllm_processes(server) if "vllm.entrypoints.openai.api_server" in process.cmdline()]
    assert found
    assert httpx.delete(f"{server.url}/v1/models/v", timeout=60).status_code == 200
    server.until("the end of vLLM", lambda: not any(process.is_running() for process in found))
    assert chat(server, "v").status_code == 404


def test_remote(server: Running) -> None:
    with strict_server() as other:
        body = {"alias": "r", "model_name": "gpt", "engine": "remote", "base_url": other.url}
        refused = register(server, **body, api_key="env:HOME")
        assert refused.status_code == 403
        assert "variable of the server's environment" in refused.text
        assert register(server, **body, api_key=KEY).status_code == 200
        answer = chat(server, "r").json()
        assert answer["choices"][0]["message"]["content"] == "Hello\u2028!"
        assert answer["usage"] == {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        assert KEY not in httpx.get(f"{server.url}/v1/models/r").text
        other.script = "status 429"
        busy = chat(server, "r")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "7")
