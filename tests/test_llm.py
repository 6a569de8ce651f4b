from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sensorium import LLM, SamplingParams
from sensorium.errors import ConfigurationError, InvalidRequest, MediaError, SensoriumError, WorkerDied
from tests.fake_native import FakeModel


@pytest.fixture
def llm() -> Iterator[LLM]:
    with LLM("fake", _loader=FakeModel.load, limit_mm_per_prompt={"image": 2}) as made:
        yield made


LONG = SamplingParams(max_tokens=100)


def test_one_prompt_gives_a_list_of_one(llm: LLM) -> None:
    (output,) = llm.generate("hello", SamplingParams(n=2, max_tokens=4))
    assert output.finished
    assert output.prompt == "hello"
    assert output.prompt_token_ids == [104, 101, 108, 108, 111]
    assert [choice.text for choice in output.outputs] == ["hell", "hell"]
    assert output.outputs[1].token_ids == [104, 101, 108, 108]
    assert output.outputs[0].finish_reason == "length"


def test_outputs_keep_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = [{"prompt": "x" * (30 - number)} for number in range(25)]
    assert [output.outputs[0].text for output in llm.generate(prompts, LONG)] == [item["prompt"] for item in prompts]
    assert llm.generate([], LONG) == []


def test_each_prompt_may_have_its_own_sampling(llm: LLM) -> None:
    outputs = llm.generate(["hello", "hello"], [SamplingParams(max_tokens=1), SamplingParams(max_tokens=2)])
    assert [output.outputs[0].text for output in outputs] == ["h", "he"]
    with pytest.raises(InvalidRequest, match="2 sampling_params for 1 prompts"):
        llm.generate(["hello"], [LONG, LONG])


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (4, 3), "red"),
        Image.new("RGBA", (4, 3)),
        Image.new("P", (4, 3)),
        np.zeros((3, 4, 3), np.uint8),
        [Image.new("L", (4, 3))],
    ],
)
def test_pictures_arrive_as_rgb(llm: LLM, image: object) -> None:
    (output,) = llm.generate({"prompt": "size", "multi_modal_data": {"image": image}}, LONG)
    assert output.outputs[0].text == str(4 * 3 * 3)


def test_pictures_are_turned_as_their_exif_says(llm: LLM) -> None:
    from sensorium.in_memory import to_item

    picture = Image.new("RGB", (4, 2))
    picture.getexif()[0x0112] = 6
    item = to_item("image", picture, "here")
    assert item.size == (4, 2)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({"prompt": "a", "multi_modal_data": {"image": "cat.png"}}, "give a PIL image"),
        ({"prompt": "a", "multi_modal_data": {"image": np.zeros((3, 4))}}, r"shape \(3, 4\) and type float64"),
        ({"prompt": "a", "multi_modal_data": {"smell": 1}}, "'smell'"),
        ({"prompt": "a", "prompt_token_ids": [1]}, "either"),
        ({"propmt": "a"}, "'propmt'"),
        ({"prompt": "a", "multi_modal_data": {"image": [np.zeros((2, 2, 3), np.uint8)] * 3}}, r"At most 2 image"),
    ],
)
def test_wrong_prompts_are_refused_by_name(llm: LLM, prompt: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        llm.generate(prompt)  # type: ignore[arg-type]


def test_chat_orders_pictures_in_memory_and_by_url() -> None:
    from sensorium.inputs import from_messages
    from sensorium.types import MediaSlot, Text

    def picture(value: int) -> dict[str, object]:
        return {"type": "image", "image": Image.new("RGB", (1, 1), (value, 0, 0))}

    content = [
        {"type": "image_url", "image_url": {"url": "http://example.com/0"}},
        picture(1),
        {"type": "text", "text": "and"},
        {"type": "image_url", "image_url": {"url": "http://example.com/2"}},
        picture(3),
    ]
    parsed = from_messages([{"role": "user", "content": content}], "m", "id", SamplingParams())
    assert parsed.request.messages is not None
    after_fetch = [item.data[0] for item in parsed.request.media] + [source.url[-1] for source in parsed.sources]
    order = [
        after_fetch[part.index] if isinstance(part, MediaSlot) else part for part in parsed.request.messages[0].content
    ]
    assert order == ["0", 1, Text("and"), "2", 3]
    assert [source.where.split(".")[1] for source in parsed.sources] == ["content[0]", "content[3]"]


def test_chat_refuses_private_addresses(llm: LLM) -> None:
    content = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/cat.png"}}]
    with pytest.raises(MediaError):
        llm.chat([{"role": "user", "content": content}])


def test_stream_gives_pieces_and_can_be_left(llm: LLM) -> None:
    def counter(name: str) -> float:
        return llm._handle.model.beat()[1][name]

    assert list(llm.stream([{"role": "user", "content": "hello"}], LONG)) == list("hello")
    pieces = llm.stream([{"role": "user", "content": "slow"}], SamplingParams(max_tokens=None))
    assert next(pieces) == "s"
    pieces.close()
    deadline = time.monotonic() + 30
    while counter("running") or counter("aborted") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(InvalidRequest, match="Too late"):
        list(llm.stream([{"role": "user", "content": "late"}], LONG))


def test_chat_takes_one_conversation_or_several(llm: LLM) -> None:
    def conversation(text: str) -> list[dict[str, object]]:
        return [{"role": "user", "content": text}]

    assert llm.chat(conversation("one"), LONG)[0].outputs[0].text == "one"
    outputs = llm.chat([conversation("one"), conversation("two")], LONG)
    assert [output.outputs[0].text for output in outputs] == ["one", "two"]
    with pytest.raises(InvalidRequest, match="roles are"):
        llm.chat([{"role": "king", "content": "one"}])


def test_options() -> None:
    with pytest.raises(TypeError, match="gpu_memory_utilisation, max_length"):
        LLM("fake", _loader=FakeModel.load, max_length=3, gpu_memory_utilisation=0.5)
    with pytest.raises(ConfigurationError, match="max_model_len"):
        LLM("fake", _loader=FakeModel.load, max_model_len="long")
    with pytest.raises(ConfigurationError, match="tensor_parallel_size"):
        LLM("fake", _loader=FakeModel.load, tensor_parallel_size=2)
    with pytest.raises(ConfigurationError, match="no folder"):
        LLM("missing", _loader=FakeModel.load)


def test_limits_as_vllm_writes_them() -> None:
    limits = {"image": 2, "video": {"count": 1, "num_frames": 32}, "audio": {}}
    with LLM("fake", _loader=FakeModel.load, limit_mm_per_prompt=limits) as llm:
        assert llm.info.limit_mm_per_prompt == {"image": 2, "video": 1}
    with pytest.raises(ConfigurationError, match=r"limit_mm_per_prompt: the limit of 'image' is 1\.5"):
        LLM("fake", _loader=FakeModel.load, limit_mm_per_prompt={"image": 1.5})
    with pytest.raises(ConfigurationError, match="limit_mm_per_prompt"):
        LLM("fake", _loader=FakeModel.load, limit_mm_per_prompt=5)


@pytest.mark.parametrize(("name", "value"), [("max_model_len", 0), ("max_model_len", -5), ("max_num_seqs", 0)])
def test_counts_are_at_least_one(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is {value}; it must be 1 or more"):
        LLM("fake", _loader=FakeModel.load, **{name: value})


@pytest.mark.parametrize("prompts", [None, 3])
def test_what_is_no_prompt_is_refused(llm: LLM, prompts: object) -> None:
    with pytest.raises(InvalidRequest, match="prompts"):
        llm.generate(prompts, LONG)  # type: ignore[arg-type]


def test_sampling_params_are_objects(llm: LLM) -> None:
    with pytest.raises(InvalidRequest, match="sampling_params"):
        llm.generate("hello", {"temperature": 0})  # type: ignore[arg-type]


def test_options_without_meaning_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    options = {"trust_remote_code": True, "disable_mm_preprocessor_cache": False, "distributed_executor_backend": "ray"}
    LLM("fake", _loader=FakeModel.load, dtype="half", block_size=128, tensor_parallel_size=1, **options).close()
    lines = [record.getMessage() for record in caplog.records if "no meaning" in record.getMessage()]
    assert len(lines) == 1
    assert all(name in lines[0] for name in options)


def test_media_options_have_the_command_lines_names() -> None:
    from sensorium.llm_options import engine_settings
    from sensorium.settings import MediaLimits

    settings = engine_settings("m", {"allowed_local_media_path": "/data", "allow_private_media": True})
    assert settings.media == MediaLimits(allowed_local_path="/data", allow_private=True)
    settings = engine_settings("m", {"media": MediaLimits(max_bytes=5), "allowed_local_media_path": "/data"})
    assert settings.media == MediaLimits(max_bytes=5, allowed_local_path="/data")
    settings = engine_settings("m", {"allowed_local_media_path": Path("docs")})
    assert settings.media.allowed_local_path == str(Path.cwd() / "docs")
    with pytest.raises(ConfigurationError, match="allowed_local_path"):
        engine_settings("m", {"allowed_local_media_path": 3})


def test_options_that_cannot_be_served_are_refused_by_name(llm: LLM) -> None:
    with pytest.raises(InvalidRequest, match=r"LLM\.stream"):
        SamplingParams(stream=True)
    assert SamplingParams(stream=False) == SamplingParams()
    with pytest.raises(InvalidRequest, match="chat_template_content_format"):
        llm.chat([{"role": "user", "content": "one"}], chat_template_content_format="string")


def test_a_failure_of_one_prompt_is_raised_and_the_model_goes_on(llm: LLM) -> None:
    with pytest.raises(InvalidRequest, match="Too late"):
        llm.generate(["fine", "too late", "fine"], LONG)
    assert llm.generate("again", LONG)[0].outputs[0].text == "again"


def test_an_engine_that_ends_fails_its_requests_but_not_the_process(llm: LLM) -> None:
    with pytest.raises(WorkerDied):
        llm.generate("poison", LONG)


def test_it_can_be_used_from_several_threads(llm: LLM) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = llm.generate(f"thread {number}", LONG, use_tqdm=False)[0].outputs[0].text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"thread {number}" for number in range(8)}


def test_a_closed_llm_says_so() -> None:
    llm = LLM("fake", _loader=FakeModel.load)
    llm.close()
    llm.close()
    with pytest.raises(SensoriumError, match="closed"):
        llm.generate("hello")
    with pytest.raises(SensoriumError, match="closed"):
        list(llm.stream([{"role": "user", "content": "hello"}]))


def test_the_interpreter_ends_without_close() -> None:
    code = (
        "from sensorium import LLM; from fake_native import FakeModel; llm = LLM('fake', _loader=FakeModel.load); "
        "print(llm.generate('bye')[0].outputs[0].text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bye\n", "")


def test_closing_ends_what_still_waits_for_a_picture() -> None:
    """Such a request is not the engine's yet, so the engine's end does not end it."""
    failed: list[BaseException] = []

    def ask(answer: Callable[[], object]) -> None:
        try:
            answer()
        except BaseException as error:
            failed.append(error)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
        llm = LLM("fake", _loader=FakeModel.load, limit_mm_per_prompt={"image": 2}, allow_private_media=True)
        ways = (lambda: llm.chat(messages, LONG, use_tqdm=False), lambda: list(llm.stream(messages, LONG)))
        threads = [threading.Thread(target=ask, args=(way,), daemon=True) for way in ways]
        for thread in threads:
            thread.start()
        kept = [silent.accept() for _ in threads]
        llm.close()
        for thread in threads:
            thread.join(10)
        assert [str(error) for error in failed] == ["The LLM was closed."] * 2
        assert all(type(error) is SensoriumError for error in failed)
        for connection, _ in kept:
            connection.close()


def test_sampling_params_may_be_changed_and_are_checked_again(llm: LLM) -> None:
    params = llm.get_default_sampling_params()
    other = params.clone()
    params.max_tokens, params.stop = 2, "never"
    assert (params.max_tokens, params.stop, other.max_tokens) == (2, ("never",), 16)
    (output,) = llm.generate("hello", params)
    assert len(output.outputs[0].token_ids) == 2
    with pytest.raises(InvalidRequest, match="top_p is 3"):
        params.top_p = 3
    assert params.top_p == other.top_p
    with pytest.raises(AttributeError, match="best_off"):
        params.best_off = 3  # type: ignore[attr-defined]
