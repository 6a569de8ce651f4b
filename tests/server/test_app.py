"""Keys, probes, cards, metrics, documentation: what surrounds the answers."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from typing import Any

import httpx
import openai
import pytest
from starlette.routing import Route

from sensorium.server.app import create_app
from sensorium.settings import ServerSettings
from sensorium.types import Outlook
from tests.fakes import EchoModel, FakePool, fetch_data
from tests.server.serving import Served, served

OPEN = {"/health", "/ping"}


def all_routes() -> list[tuple[str, str]]:
    app = create_app(FakePool({"echo": EchoModel()}), ServerSettings(), fetch_data)
    return [
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
    ]


def test_every_route_and_method_asks_for_the_key() -> None:
    routes = all_routes()
    assert len({path for _, path in routes}) == 23
    keys = {"none": {}, "wrong": {"Authorization": "Bearer nope"}, "basic": {"Authorization": "Basic one"}}
    good = [{"Authorization": "Bearer one"}, {"authorization": "bearer two"}]
    with served(ServerSettings(api_keys=("one", "two"))) as server, httpx.Client(base_url=server.url) as client:
        for method, path in routes:
            path = path.replace("{alias:path}", "echo")
            for state, headers in keys.items():
                response = client.request(method, path, headers=headers)
                assert (response.status_code == 401) == (path not in OPEN), (method, path, state)
            if path.endswith("/events") and method == "GET":
                continue  # an answer without an end
            for headers in good:
                assert client.request(method, path, headers=headers).status_code in (200, 400), (method, path)


@pytest.mark.parametrize(
    "path", ["/health/", "//health", "/health/..", "/HEALTH", "/%2e/health", "/health/../v1/models", "/nothing"]
)
def test_no_spelling_of_an_open_path_opens_another(path: str) -> None:
    with served(ServerSettings(api_keys=("one",))) as server:
        response = httpx.get(server.url + path, headers={"Host": "x/health?"})
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "authentication_error"
        assert httpx.options(server.url + "/v1/models").status_code == 405


def test_openai_client_with_and_without_the_key() -> None:
    with served(ServerSettings(api_keys=("one", "two"))) as server:
        assert server.openai.models.list().data[0].id == "echo"
        server.key = "three"
        with pytest.raises(openai.AuthenticationError):
            server.openai.models.list()


def test_cache_salt_follows_from_the_key_and_the_request() -> None:
    with served(ServerSettings(api_keys=("one", "two"))) as server:
        salts = []
        for key, fields in (("one", {}), ("one", {}), ("two", {}), ("one", {"cache_salt": "s"})):
            headers = {"Authorization": f"Bearer {key}"}
            body = {"messages": [{"role": "user", "content": "x"}], **fields}
            assert server.post("/v1/chat/completions", body, headers=headers).status_code == 200
            salts.append(server.model.seen[-1].cache_salt)
        assert salts[0] == salts[1]
        assert len(set(salts)) == 3
        assert all(salts)


def test_probes(server: Served) -> None:
    assert httpx.get(server.url + "/health").json() == {"status": "ok"}
    assert httpx.head(server.url + "/ping").status_code == 200
    assert httpx.get(server.url + "/ready").status_code == 200
    server.pool.fine = (False, "the engine loop of 'echo' has been silent for 31 s")
    try:
        response = httpx.get(server.url + "/ready")
        assert (response.status_code, "31 s" in response.json()["reason"]) == (503, True)
        assert httpx.get(server.url + "/health").status_code == 200
    finally:
        server.pool.fine = (True, "")


def test_cards(server: Served) -> None:
    (card,) = httpx.get(server.url + "/v1/models").json()["data"]
    whole = httpx.get(server.url + "/v1/models/echo").json()
    assert card == {name: whole[name] for name in card}
    assert (card["object"], card["owned_by"], card["root"]) == ("model", "sensorium", "/models/echo")
    assert (card["max_model_len"], card["is_chat"], card["is_multimodal"]) == (4096, True, True)
    assert (card["input_modalities"], card["output_modalities"]) == (["text", "image"], ["text"])
    assert (card["loaded"], card["engine"], card["limit_mm_per_prompt"]) == (True, "native", {})
    assert card["media"] == {
        "image": {
            "refused_above": {"bytes": 20 << 20, "pixels": 64_000_000, "aspect_ratio": 200},
            "reduced_to": {},
        }
    }
    assert httpx.get(server.url + "/v1/models/none/such").status_code == 404


def test_cards_of_models_that_are_not_loaded() -> None:
    names = ("sees", "reads", "unknown")
    with served(models={name: EchoModel() for name in names}) as server:
        server.pool.outlooks = {
            "sees": Outlook("/models/sees", 8192, ("video", "audio"), {"video": 1}),
            "reads": Outlook("/models/reads", 100, ()),
            "unknown": Outlook(),
        }
        sees, reads, unknown = (server.openai.models.retrieve(name).to_dict() for name in names)
        assert [card["is_multimodal"] for card in (sees, reads, unknown)] == [True, False, True]
        assert [card["max_model_len"] for card in (sees, reads, unknown)] == [8192, 100, None]
        assert [card["root"] for card in (sees, reads, unknown)] == ["/models/sees", "/models/reads", "unknown"]
        assert unknown["input_modalities"] is unknown["media"] is unknown["engine"] is None
        assert (reads["input_modalities"], reads["media"]) == (["text"], {})
        assert sees["input_modalities"] == ["text", "video", "audio"]
        assert sees["limit_mm_per_prompt"] == {"video": 1}
        media: Any = sees["media"]
        assert media["audio"] == {"refused_above": {"bytes": 25 << 20, "seconds": 600.0}, "reduced_to": None}
        assert media["video"]["refused_above"]["seconds"] == 3600.0
        assert [card.id for card in server.openai.models.list()] == list(names)
        for card in (sees, reads, unknown):
            # What swift's client insists on.
            assert {name: type(card[name]) for name in SWIFT} == SWIFT


SWIFT = {"id": str, "is_chat": bool, "is_multimodal": bool, "object": str, "created": int, "owned_by": str}


def test_a_loaded_model_tells_what_it_makes_smaller() -> None:
    bounds = {"video": {"max_frames": 40, "max_pixels": 602112}, "audio": {"max_seconds": 30.0}}
    with served(model=EchoModel(modalities=("text", "video", "audio"), media_bounds=bounds)) as server:
        media = httpx.get(server.url + "/v1/models/echo").json()["media"]
    assert media["video"]["reduced_to"] == bounds["video"]
    assert media["audio"] == {"refused_above": {"bytes": 25 << 20, "seconds": 30.0}, "reduced_to": {}}


def test_names_may_hold_slashes() -> None:
    with served(models={"org/model": EchoModel()}) as server:
        assert server.openai.models.retrieve("org/model").id == "org/model"


def test_metrics_and_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sensorium.access")
    with served() as server:
        server.chat("hello")
        server.chat("hello", stream=True)
        httpx.get(server.url + "/made/up/1")
        httpx.get(server.url + "/made/up%0a2")
        text = httpx.get(server.url + "/metrics").text
    assert 'sensorium_requests_total{route="/v1/chat/completions",status="200"} 2.0' in text
    assert 'sensorium_requests_total{route="other",status="404"} 2.0' in text
    assert 'sensorium_prompt_tokens_total{model="echo"} 10.0' in text
    assert 'sensorium_completion_tokens_total{model="echo"} 10.0' in text
    assert 'sensorium_time_to_first_token_seconds_count{model="echo"} 2.0' in text
    assert 'sensorium_inter_token_seconds_count{model="echo"} 8.0' in text
    assert 'sensorium_engine_num_running{model="echo"} 0.0' in text
    assert "sensorium_requests_in_flight 1.0" in text
    lines = [record.getMessage() for record in caplog.records if record.name == "sensorium.access"]
    assert len(lines) == 4  # probes such as /metrics are told at the debug level only
    assert "200 model='echo' prompt_tokens=5 completion_tokens=5" in lines[0]
    assert all("\n" not in line for line in lines)


def test_docs_need_nothing_from_elsewhere(server: Served) -> None:
    page = httpx.get(server.url + "/docs").text
    assert "/v1/chat/completions" in page
    assert "<script" not in page
    assert "http" not in page
    document = httpx.get(server.url + "/openapi.json").json()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    name = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/")[-1]
    schema = document["components"]["schemas"][name]
    assert schema["required"] == ["messages"]
    assert "temperature" in schema["properties"]
    assert "422" not in chat["responses"]


def test_root_and_version(server: Served) -> None:
    assert httpx.get(server.url).json()["name"] == "sensorium"
    assert httpx.get(server.url + "/version").json()["version"]


def test_gateway_imports_no_torch() -> None:
    program = """
        import sys, time
        start = time.perf_counter()
        import sensorium.server.app, sensorium.server.run
        seconds = time.perf_counter() - start
        heavy = {"torch", "transformers", "numpy", "PIL", "av", "tokenizers", "jinja2"} & set(sys.modules)
        assert not heavy, heavy
        status = open("/proc/self/status").read() if sys.platform == "linux" else "VmRSS: 0"
        print(f"{seconds:.2f} s", status.partition("VmRSS:")[2].splitlines()[0].strip())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print("import of the gateway:", done.stdout)
