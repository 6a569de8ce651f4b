"""Every field of a registration: where it goes, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensorium.errors import Forbidden, InvalidRequest, SensoriumError
from sensorium.protocol.body import parse_body
from sensorium.protocol.registration import RegisterBody
from sensorium.registry.engine_args import check_engine_args
from sensorium.registry.kept import differences, shown
from sensorium.registry.registration import checked, spec_of
from sensorium.registry.spec import ModelSpec
from sensorium.settings import EngineSettings, Needs


def spec(trusted: bool = False, **fields: Any) -> ModelSpec:
    body = {"alias": "a", "model_name": "tiny-vl", **fields}
    return spec_of(parse_body(RegisterBody, json.dumps(body).encode()), trusted=trusted)


def refusal(**fields: Any) -> SensoriumError:
    with pytest.raises(SensoriumError) as caught:
        checked(spec(**fields))
    return caught.value


def test_nothing_but_a_name() -> None:
    assert spec() == ModelSpec("a", EngineSettings("tiny-vl", name="a"), model_name="tiny-vl")
    nulls = dict.fromkeys(set(RegisterBody.model_fields) - {"alias", "model_name"})
    assert spec(**nulls) == spec()


def test_every_field_arrives() -> None:
    given = spec(
        model_path="/m",
        engine="vllm",
        engine_args={"enforce-eager": True},
        max_model_len=2048,
        gpu_memory_utilization=0.5,
        tensor_parallel_size=2,
        idle_ttl="10m",
        pinned=True,
        preload=1,
        lora_of="base",
        worker_id="w",
        min_replicas=1,
        max_replicas=3,
        num_cpus=2,
        num_gpus=0.5,
        memory="2GiB",
        dtype="half",
        limit_mm_per_prompt={"image": 2, "video": {"count": 1}},
        revision="main",
        hub="modelscope",
        kv_cache_memory="1g",
        encoder_cache_memory=5,
        mm_processor_kwargs={"max_pixels": 9},
        override_generation_config={"temperature": 0.1},
        block_size=16,
        seed=-1,
        system="Be brief.",
        num_threads=2,
    )
    settings = given.settings
    assert (settings.model, settings.engine, settings.engine_args) == ("/m", "vllm", {"enforce-eager": True})
    assert (settings.max_model_len, settings.gpu_memory_utilization, settings.tensor_parallel_size) == (2048, 0.5, 2)
    assert (given.idle_ttl_s, given.pinned, given.preload, given.lora_of) == (600.0, True, True, "base")
    assert (given.min_replicas, given.max_replicas) == (1, 3)
    assert given.needs == Needs(2, 0.5, 2 << 30, "w")
    assert (settings.dtype, settings.limit_mm_per_prompt) == ("float16", {"image": 2, "video": 1})
    assert (settings.revision, settings.hub, settings.kv_cache_bytes) == ("main", "modelscope", 1 << 30)
    assert (settings.encoder_cache_bytes, settings.block_size, settings.seed) == (5, 16, -1)
    assert (settings.system, settings.num_threads) == ("Be brief.", 2)
    remote = spec(engine="remote", base_url="https://h/v1", api_key="k", timeout=5)
    assert (remote.settings.base_url, remote.settings.api_key, remote.settings.timeout_s) == ("https://h/v1", "k", 5.0)
    assert spec(idle_ttl="never").idle_ttl_s == spec(idle_ttl=-1).idle_ttl_s == -1.0


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"alias": None}, "alias", "alias and model_name are required; `alias` is missing."),
        ({"model_name": None}, "model_name", "alias and model_name are required; `model_name` is missing."),
        ({"alias": "x" * 201}, "alias", "`alias` has 201 characters; the limit is 200."),
        ({"alias": "a\nb"}, "alias", "must not hold '\\n'"),
        ({"alias": "a?b"}, "alias", "must not hold '?'"),
        ({"alias": "\u202ea"}, "alias", "must not hold"),
        ({"alias": "events"}, "alias", "are addresses of the registry"),
        ({"alias": "a/load"}, "alias", "are addresses of the registry"),
        ({"alias": "../a"}, "alias", "it stands in addresses"),
        ({"max_model_len": 0}, "max_model_len", "`max_model_len` must be at least 1."),
        ({"max_model_len": "8k"}, "max_model_len", "`max_model_len` must be an integer, not a string."),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization", "must be at most 1"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size", "more than 1 needs `engine` vllm"),
        ({"engine": "llamacpp"}, "engine", "`engine` must be one of 'auto', 'native', 'transformers', 'vllm' or"),
        ({"dtype": "int3"}, "dtype", "`dtype` must be one of auto, bfloat16"),
        ({"device": "tpu"}, "device", "must be auto, cpu, cuda"),
        ({"idle_ttl": "soon"}, "idle_ttl", "`idle_ttl` is wrong: 'soon' is no time"),
        ({"memory": "much"}, "memory", "is not a size"),
        ({"memory": 10**30}, "memory", "must be less than"),
        ({"kv_cache_memory": "9999999999TiB"}, "kv_cache_memory", "must be less than"),
        ({"encoder_cache_memory": "9" * 400}, "encoder_cache_memory", "more than any machine has"),
        ({"limit_mm_per_prompt": {"smell": 1}}, "limit_mm_per_prompt", "'smell' is no kind of media"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas", "is 3, more than `max_replicas`, 2"),
        ({"max_model_length": 5}, "max_model_length", "Did you mean `max_model_len`?"),
        ({"engine_args": {"seed": 1}}, "engine_args", "are for the engine vllm"),
        ({"base_url": "http://h"}, "base_url", "is for the engine remote"),
        ({"engine": "remote"}, "base_url", "must be the address"),
        ({"engine": "remote", "base_url": "file:///etc"}, "base_url", "must be the address"),
        ({"engine": "remote", "base_url": "http://u:p@h/v1"}, "base_url", "must hold no user"),
        ({"engine": "remote", "base_url": "http://h/v1", "api_key": "a\nb"}, "api_key", "a header cannot hold"),
        ({"model_path": "/nowhere/x"}, "model_path", "There is no folder '/nowhere/x'"),
        ({"model_path": "tiny-v"}, "model_path", "Nearest: tiny-vl"),
        ({"model_path": "~nobody-has-this-name/x"}, "model_path", "There is no folder '~nobody-has-this-name/x'"),
        ({"lora_of": "b", "model_path": "~nobody-has-this-name"}, "model_path", "must be the folder of an adapter"),
        ({"lora_of": "b", "model_path": "/nowhere"}, "model_path", "must be the folder of an adapter"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, said: str) -> None:
    error = refusal(**fields)
    assert isinstance(error, InvalidRequest)
    assert said in error.message
    assert error.param == param


def test_what_is_on_this_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no config.json" in refusal(model_path=str(tmp_path)).message
    config = tmp_path / "config.json"
    for text, said in (
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ("{}", "names no architecture"),
    ):
        config.write_text(text)
        assert said in refusal(model_path=str(tmp_path)).message
    config.write_text('{"architectures": ["UnknownForCausalLM"]}')
    assert "'UnknownForCausalLM' is not supported" in refusal(model_path=str(tmp_path), engine="native").message
    config.write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    monkeypatch.chdir(tmp_path.parent)
    assert checked(spec(model_path=f"./{tmp_path.name}")).settings.model == str(tmp_path)
    # What is not here: a hub's model is downloaded later; another machine has its own files.
    assert checked(spec(model_name="some/model")).settings.model == "some/model"
    assert checked(spec(model_path="/elsewhere", worker_id="w")).settings.model == "/elsewhere"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refusal(model_name="some/model").message
    monkeypatch.delenv("SENSORIUM_VLLM_PYTHON", raising=False)
    assert "set SENSORIUM_VLLM_PYTHON" in refusal(engine="vllm").message
    monkeypatch.setenv("SENSORIUM_VLLM_PYTHON", "/nowhere/python")
    assert "there is no program /nowhere/python" in refusal(engine="vllm").message


@pytest.mark.parametrize(
    "name",
    [
        *("trust_remote_code", "trust-remote-code", "--trust-remote-code", "Trust_Remote_Code"),
        *("trust_remote", "trust-r", "t", "tool_parser_plugin", "tool_parser_plug", "reasoning_parser_plugin"),
        *("hf_overrides", "hf-overrides.architectures", "middleware", "mid", "worker_cls", "worker_extension_cls"),
        *(
            "logits_processors",
            "distributed_executor_backend",
            "compilation_config",
            "additional_config",
            "load_format",
        ),
        *("model_loader_extra_config", "kv_transfer_config", "speculative_config", "config", "load_format"),
    ],
)
def test_options_that_could_run_code_are_refused_by_name(name: str) -> None:
    with pytest.raises(Forbidden, match=r"--trust-engine-args") as caught:
        check_engine_args({name: "x"}, trusted=False)
    assert caught.value.param == f"engine_args.{name}"
    check_engine_args({name: "x"}, trusted=True)


def test_other_options() -> None:
    check_engine_args({"enforce_eager": True, "max-num-seqs": 8, "limit_mm_per_prompt": {"image": 3}}, trusted=False)
    with pytest.raises(Forbidden, match="run code"):
        check_engine_args({"mm_processor_kwargs": {"x": [{"trust_remote_code": True}]}}, trusted=False)
    for name in ("host", "port", "api_key", "--model", "allowed-local-media-path", "uds"):
        with pytest.raises(InvalidRequest, match="cannot be given: the gateway"):
            check_engine_args({name: "x"}, trusted=True)
    with pytest.raises(InvalidRequest, match="no name of an option"):
        check_engine_args({"seed 1 --trust-remote-code": 1}, trusted=True)


def test_differences_and_what_is_shown_hold_no_keys() -> None:
    fields: dict[str, Any] = {"engine": "remote", "base_url": "https://h/v1", "api_key": "k1", "idle_ttl": 5}
    one = spec(**fields)
    other = spec(**{**fields, "api_key": "k2", "idle_ttl": 6, "num_cpus": 1})
    assert differences(one, other) == [
        "api_key differs",
        "num_cpus is None there and 1.0 here",
        "idle_ttl is 5.0 there and 6.0 here",
    ]
    assert differences(one, msgspec.structs.replace(one, created=9.0)) == []
    assert shown(one)["api_key"] == "***"
    hidden = spec(trusted=True, engine="vllm", engine_args={"hf_token": "hf_1", "max_num_seqs": 3})
    assert shown(hidden)["engine_args"] == {"hf_token": "***", "max_num_seqs": 3}
    args = {"hf_token": ["hf_1"], "a": [{"password": "p", "b": 1}], "token_ids": [1]}
    listed = {"hf_token": ["***"], "a": [{"password": "***", "b": 1}], "token_ids": [1]}
    assert shown(spec(trusted=True, engine="vllm", engine_args=args))["engine_args"] == listed
    assert "media" not in shown(one)
