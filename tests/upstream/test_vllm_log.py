"""Lines are those of vLLM 0.32, shortened where they are long."""

from __future__ import annotations

import pytest

from sensorium.upstream.vllm_log import VllmLog

START = """\
(APIServer pid=1) INFO 11-21 21:17:19 [api_utils.py:286] non-default args: {'uds': '/tmp/x/v.sock'}
(APIServer pid=1) INFO 11-21 21:17:19 [model.py:733] Resolved architecture: Qwen3VLForConditionalGeneration
(APIServer pid=1) WARNING 11-21 21:17:21 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs
(Worker pid=3) INFO 11-21 21:18:10 [cpu_model_runner.py:68] Starting to load model /m...
Loading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  4.33it/s]
(EngineCore pid=2) INFO 11-21 21:18:14 [kv_cache_utils.py:2327] GPU KV cache size: 209,664 tokens, Maximum concurrency
Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  30%|███       | 20/67 [00:01<00:02, 17.1it/s]
(APIServer pid=1) INFO 11-21 21:18:19 [entry.py:140] Starting vLLM server on unix:/tmp/x/v.sock
"""


def read(text: str) -> tuple[VllmLog, list[tuple[str, float]]]:
    seen: list[tuple[str, float]] = []
    log = VllmLog(lambda phase, fraction: seen.append((phase, fraction)))
    for line in text.splitlines():
        log.read(line)
    return log, seen


def test_phases_and_the_size_of_the_cache() -> None:
    log, seen = read(START)
    assert seen == [
        ("starting vLLM", 0.0),
        ("starting its engine", 0.0),
        ("loading weights", 0.0),
        ("loading weights", 0.0),
        ("loading weights", 0.5),
        ("measuring memory", 0.0),
        ("capturing graphs", 0.3),
        ("starting to listen", 0.0),
    ]
    assert log.kv_cache_tokens == 209_664


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "(Worker pid=3) ERROR 11-21 21:18:10 [core.py:1] Traceback (most recent call last):\n"
            "(Worker pid=3) ERROR 11-21 21:18:10 [core.py:1]   File x\n"
            "(Worker pid=3) ERROR 11-21 21:18:10 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.\n"
            "(APIServer pid=1) Traceback (most recent call last):\n"
            "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.\n",
            "OutOfMemoryError: CUDA out of memory. Tried 2 GiB",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, User-specified max_model_len (9) is greater than the derived [type=value_error, input=1]\n"
            "    For further information visit https://errors.pydantic.dev\n",
            "ValidationError: Value error, User-specified max_model_len (9) is greater than the derived",
        ),
        (
            "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --enforce-eagre\n",
            "api_server.py: error: unrecognized arguments: --enforce-eagre",
        ),
        ("Killed\n", "Killed"),
        ("", "it said nothing"),
    ],
)
def test_the_line_that_says_why(text: str, reason: str) -> None:
    assert read(text)[0].reason() == reason
