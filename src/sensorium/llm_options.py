"""The options of `LLM(...)`: ours, and those of vLLM's LLM that programs written for it pass."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from sensorium.errors import ConfigurationError
from sensorium.settings import EngineSettings, MediaLimits, media_counts

log = logging.getLogger(__name__)

_FIELDS = frozenset(EngineSettings.__struct_fields__) - {"model", "name"}
_NO_MEANING = (
    "tokenizer_mode",
    "trust_remote_code",
    "distributed_executor_backend",
    "disable_mm_preprocessor_cache",
    "mm_processor_cache_gb",
    "enforce_eager",
    "swap_space",
    "cpu_offload_gb",
    "disable_log_stats",
    "enable_chunked_prefill",
    "max_cpu_loras",
    "lora_dtype",
    "fully_sharded_loras",
)
_COUNTS = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "num_threads",
    "kv_cache_bytes",
    "max_loras",
    "max_lora_rank",
)
_MEDIA = {"allowed_local_media_path": "allowed_local_path", "allow_private_media": "allow_private"}
_DTYPES = {"half": "float16", "float": "float32"}


def engine_settings(model: str, options: Mapping[str, Any]) -> EngineSettings:
    """Return the settings that keyword options stand for; what has no meaning here is named in the log.

    Raises:
        TypeError: an option is not known.
        ConfigurationError: one has a wrong type, or asks for more than one device.
    """
    known = {name: value for name, value in options.items() if name in _FIELDS}
    others = {name: value for name, value in options.items() if name not in _FIELDS and value is not None}
    if media := {_MEDIA[name]: others.pop(name) for name in _MEDIA if name in others}:
        known["media"] = _media(known.get("media", MediaLimits()), media)
    if known.get("tensor_parallel_size", 1) != 1 and known.get("engine") != "vllm":
        raise ConfigurationError("tensor_parallel_size must be 1: a model runs on one device, but for the engine vllm.")
    if "trust_remote_code" in str(known.get("engine_args", "")).replace("-", "_"):
        raise ConfigurationError("engine_args: trust_remote_code cannot be set: no code of a checkpoint runs.")
    if unknown := sorted(set(others) - set(_NO_MEANING)):
        raise TypeError(f"LLM() got unknown options: {', '.join(unknown)}")
    if others:
        log.info("LLM: these options have no meaning here and are left out: %s", ", ".join(sorted(others)))
    _mend(known, model)
    try:
        # A round trip, because constructing a struct checks no types.
        return msgspec.convert({**known, "model": str(model), "name": str(model)}, EngineSettings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"LLM() got an option of the wrong type: {error}") from None


def _mend(known: dict[str, Any], model: str) -> None:
    """Write vLLM's forms of values in ours.

    Raises:
        ConfigurationError: a value cannot be.
    """
    for name in ("limit_mm_per_prompt", "mm_processor_kwargs", "override_generation_config"):
        if known.get(name, {}) is None:
            known[name] = {}
    if isinstance(limits := known.get("limit_mm_per_prompt"), Mapping):
        try:
            known["limit_mm_per_prompt"] = media_counts(limits)
        except ValueError as error:
            raise ConfigurationError(f"limit_mm_per_prompt: {error}") from None
    if known.get("generation_config", "") is None:
        known["generation_config"] = "vllm"  # what None meant to vLLM before 0.8
    if str(known.get("tokenizer")) == str(model):
        del known["tokenizer"]
    for name in _COUNTS:
        if isinstance(value := known.get(name), int) and value < 1:
            raise ConfigurationError(f"{name} is {value}; it must be 1 or more.")
    if "dtype" in known:
        dtype = str(known["dtype"]).removeprefix("torch.")
        known["dtype"] = _DTYPES.get(dtype, dtype)


def _media(limits: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return limits with what the two options on media say; a folder is meant from where the program is now."""
    folder = given.get("allowed_local_path")
    absolute = {"allowed_local_path": os.path.abspath(folder)} if isinstance(folder, (str, os.PathLike)) else {}
    return {**msgspec.to_builtins(limits), **given, **absolute}
