"""Wrong requests: the status, the path of the field, and a body that every client reads."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sensorium.settings import ServerSettings
from tests.fakes import EchoModel
from tests.server.serving import PIXEL, Served, served

IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}


def check_superset(response: httpx.Response, status: int) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert response.status_code == status, body
    assert body["object"] == "error"
    assert body["error"] == {name: body[name] for name in ("message", "type", "param", "code")}
    assert len(body["message"]) > 10
    assert response.headers["x-request-id"]
    return body


# the fields to add to a good request -> the `param` of the refusal
WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -1}, "temperature"),
    ({"temperature": "0.5"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"seed": 1 << 70}, "seed"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 0, "max_completion_tokens": 5, "min_tokens": 6}, "min_tokens"),
    ({"max_completion_tokens": -5}, "max_completion_tokens"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"stop": ["a", 3]}, "stop[1]"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop_token_ids": [1, "2"]}, "stop_token_ids[1]"),
    ({"stop_token_ids": [1 << 40]}, "stop_token_ids[0]"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream": 2}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"guided_json": {}, "guided_regex": "a+"}, "guided_regex"),
    ({"logits_processors": ["x"]}, "logits_processors"),
    ({"audio": {"voice": "alloy"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"best_of": 2}, "best_of"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"images": ["x", 5]}, "images[1]"),
    ({"images": [" "]}, "images[0]"),
    ({"images": ["x"], "urls": ["y"]}, "urls"),
    ({"extra_configs": {"num_beams": 4}}, "extra_configs.num_beams"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"chat_template_kwargs": {"x": 1 << 80}}, "chat_template_kwargs"),
    ({"mm_processor_kwargs": [1]}, "mm_processor_kwargs"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_FIELDS, ids=lambda value: str(value)[:40])
def test_wrong_field(server: Served, fields: dict[str, Any], param: str) -> None:
    body = check_superset(server.chat("x", **fields), 400)
    assert body["param"] == param
    assert body["type"] == "invalid_request_error"
    assert param.split(".")[0].split("[")[0] in body["message"]


WRONG_MESSAGES: list[tuple[Any, str]] = [
    ([], "messages"),
    ("hello", "messages"),
    (["hello"], "messages[0]"),
    ([{"content": "x"}], "messages[0].role"),
    ([{"role": "wizard", "content": "x"}], "messages[0].role"),
    ([{"role": "<|im_end|>", "content": "x"}], "messages[0].role"),
    ([{"role": "user", "content": 5}], "messages[0].content"),
    ([{"role": "user", "content": {"type": "text"}}], "messages[0].content"),
    (
        [{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "smell"}]}],
        "messages[1].content[0].type",
    ),
    ([{"role": "user", "content": [{}]}], "messages[0].content[0].type"),
    ([{"role": "user", "content": [7]}], "messages[0].content[0]"),
    ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url"),
    (
        [{"role": "user", "content": ["a", {"type": "image_url", "image_url": {}}]}],
        "messages[0].content[1].image_url.url",
    ),
    ([{"role": "user", "content": [{"image_url": {"url": 5}}]}], "messages[0].content[0].image_url.url"),
    ([{"role": "user", "content": [{"image_url": " "}]}], "messages[0].content[0].image_url"),
    (
        [{"role": "user", "content": [{"image_url": {"url": PIXEL, "detail": 3}}]}],
        "messages[0].content[0].image_url.detail",
    ),
    ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].input_audio"),
    (
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "exe"}}]}],
        "messages[0].content[0].input_audio.format",
    ),
    (
        [{"role": "user", "content": [{"type": "video_url", "video_url": "http://x/"}]}],
        "messages[0].content[0].video_url",
    ),
]


@pytest.mark.parametrize(("messages", "param"), WRONG_MESSAGES, ids=lambda value: str(value)[:60])
def test_wrong_messages(server: Served, messages: object, param: str) -> None:
    body = check_superset(server.post("/v1/chat/completions", {"messages": messages}), 400)
    assert body["param"] == param


def test_missing_messages(server: Served) -> None:
    body = check_superset(server.post("/v1/chat/completions", {"model": "echo"}), 400)
    assert (body["param"], body["message"]) == ("messages", "`messages` is required.")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"messages": [}', b"[]", b'"x"', b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"[" * 10_000]
)
def test_malformed_json(server: Served, raw: bytes) -> None:
    body = check_superset(httpx.post(server.url + "/v1/chat/completions", content=raw), 400)
    assert body["message"].startswith("The request's body")


def test_neutral_values_of_unsupported_fields_pass(server: Served) -> None:
    response = server.chat(
        "x",
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        best_of=1,
        use_beam_search=False,
        length_penalty=1.0,
        echo=False,
        guided_json=None,
        parallel_tool_calls=True,
        user="me",
        something_new={"x": 1},
    )
    assert response.status_code == 200


def test_modality_the_model_lacks_names_those_it_has() -> None:
    with served(model=EchoModel(modalities=("text",))) as server:
        body = check_superset(server.chat([IMAGE]), 400)
        assert body["message"].startswith("Model does not support multi-modal inputs")
        assert body["message"].endswith("takes text.")
        assert body["param"] == "messages[0].content[0].image_url"


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_clips_are_refused_by_kind_and_place(kind: str) -> None:
    with served(model=EchoModel(modalities=("text", "image"))) as server:
        part = {"type": f"{kind}_url", f"{kind}_url": {"url": "http://127.0.0.1:1/never-asked"}}
        body = check_superset(server.chat([IMAGE, part]), 400)
        assert f"of kind {kind}" in body["message"]
        assert (body["param"], body["code"]) == (f"messages[0].content[1].{kind}_url", "unsupported_modality")


def test_every_kind_has_its_own_limit() -> None:
    model = EchoModel(modalities=("text", "image", "video"), limit_mm_per_prompt={"image": 1, "video": 1})
    with served(model=model) as server:
        clip = {"type": "video_url", "video_url": "data:video/jpeg;base64,AAAA,AAAA"}
        assert server.chat([IMAGE, clip]).status_code == 200
        turns = [{"role": "user", "content": [clip]}, {"role": "user", "content": [IMAGE, clip]}]
        body = check_superset(server.post("/v1/chat/completions", {"messages": turns}), 400)
        assert body["message"] == "At most 1 video(s) may be provided in one request."
        assert body["param"] == "messages[1].content[1].video_url"


def test_media_limit_counts_the_whole_history() -> None:
    with served(model=EchoModel(limit_mm_per_prompt={"image": 2})) as server:
        turns = [{"role": "user", "content": [IMAGE]}, {"role": "assistant", "content": "ok"}]
        last = {"role": "user", "content": [IMAGE, IMAGE]}
        body = check_superset(server.post("/v1/chat/completions", {"messages": [*turns, last]}), 400)
        assert body["message"] == "At most 2 image(s) may be provided in one request."
        assert body["param"] == "messages[2].content[1].image_url"
        assert server.post("/v1/chat/completions", {"messages": [*turns, turns[0]]}).status_code == 200


def test_model_is_needed_where_there_are_several() -> None:
    with served(models={"one": EchoModel(), "two": EchoModel()}, unavailable="two") as server:
        body = check_superset(server.chat("x"), 400)
        assert (body["param"], "'one', 'two'" in body["message"]) == ("model", True)
        assert server.chat("x", model="one").json()["model"] == "one"
        response = server.chat("x", model="two")
        assert check_superset(response, 503)["type"] == "model_unavailable"
        assert response.headers["retry-after"] == "7"


def test_names_are_compared_with_no_more_than_a_name_of_others(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def near(word: str, *rest: Any) -> list[str]:
        compared.append(len(word))
        return []

    monkeypatch.setattr("difflib.get_close_matches", near)  # 4 MB take seconds, in which nobody is answered
    body = check_superset(server.chat("x", model="y" * 100_000), 404)
    assert (len(body["message"]) < 1000, max(compared) <= 200) == (True, True)


@pytest.mark.parametrize("chunked", [False, True])
def test_body_too_large(chunked: bool) -> None:
    with served(ServerSettings(max_body_bytes=1000)) as server:
        content = iter([b"x" * 600] * 3) if chunked else b"x" * 1001
        response = httpx.post(server.url + "/v1/chat/completions", content=content)
        assert check_superset(response, 413)["code"] == "request_too_large"
        assert response.headers["connection"] == "close"
        assert server.chat("x").status_code == 200


def test_routes_that_do_not_exist(server: Served) -> None:
    assert check_superset(httpx.get(server.url + "/v1/nothing"), 404)["type"] == "not_found_error"
    response = httpx.get(server.url + "/v1/chat/completions")
    message = check_superset(response, 405)["message"]
    assert response.headers["allow"] == "POST"
    assert message == "GET '/v1/chat/completions' is not served. Use POST; /docs lists what is."


def test_an_error_nobody_expected_says_nothing_but_its_id(caplog: pytest.LogCaptureFixture) -> None:
    model = EchoModel()
    model.text = lambda request: 1 / 0  # type: ignore[method-assign,assignment]
    with served(model=model) as server:
        response = server.chat("x")
        body = check_superset(response, 500)
        assert response.headers["x-request-id"] in body["message"]
        assert "division" not in response.text
        assert "ZeroDivisionError" in caplog.text
        assert server.pool.leases == 0
