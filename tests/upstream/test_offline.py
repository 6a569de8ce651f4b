"""`LLM(...)` with engines that are another server: in this process, without a worker."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from sensorium import LLM, SamplingParams
from sensorium.errors import ConfigurationError, InvalidRequest
from tests.upstream.strict_openai import KEY, strict_server
from tests.vllm_stand_in import checkpoint, interpreter
from tests.workers import process_gone


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return []


def test_a_remote_model() -> None:
    with (
        strict_server() as server,
        LLM("gpt", engine="remote", base_url=server.url, api_key=KEY) as llm,
    ):
        (output,) = llm.chat([{"role": "user", "content": "hi"}], SamplingParams(max_tokens=5), use_tqdm=False)
        assert output.outputs[0].text == "Hello\u2028!"
        with pytest.raises(InvalidRequest, match="top_k"):
            llm.generate("hi", SamplingParams(top_k=3), use_tqdm=False)


def test_a_vllm_of_its_own(tmp_path: Path) -> None:
    with LLM(checkpoint(tmp_path), engine="vllm", engine_python=interpreter(tmp_path)) as llm:
        started = [child for child in psutil.Process().children(recursive=True) if "-I" in words(child)]
        assert started
        outputs = llm.generate(["hello", "you"], SamplingParams(temperature=0, n=2), use_tqdm=False)
        assert [[choice.text for choice in output.outputs] for output in outputs] == [["hello"] * 2, ["you"] * 2]
        assert outputs[0].prompt_token_ids == [104, 101, 108, 108, 111]
        assert outputs[0].outputs[0].token_ids == [104, 101, 108, 108, 111]
        with pytest.raises(InvalidRequest, match="raw prompt with media"):
            llm.generate({"prompt": "x", "multi_modal_data": {"image": Image.new("RGB", (4, 4))}}, use_tqdm=False)
        with pytest.raises(InvalidRequest, match="tokenizer"):
            llm.get_tokenizer()
    # The guardian ends what it started, and itself.
    deadline = time.monotonic() + 30
    while not all(process_gone(process.pid) for process in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_settings_of_other_engines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="base_url belongs to the engine remote"):
        LLM("tiny-vl", base_url="https://example.com")
    with pytest.raises(ConfigurationError, match="engine_args has 'enforce_eager'"):
        LLM("tiny-vl", engine_args={"enforce_eager": True})
    with pytest.raises(ConfigurationError, match="tensor_parallel_size"):
        LLM("tiny-vl", tensor_parallel_size=2)


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("sensorium.worker.engines", {"httpx"}),  # workers of the native engine start without it
        ("sensorium.upstream.vllm", {"torch", "tokenizers", "transformers"}),
        ("sensorium.upstream.remote", {"torch", "tokenizers", "transformers"}),
    ],
)
def test_no_engine_imports_what_only_others_need(module: str, without: set[str]) -> None:
    code = f"import sys, {module}; print(*(set(sys.modules) & {without!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
