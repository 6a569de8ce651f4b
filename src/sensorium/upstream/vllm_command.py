"""Our settings -> the command line of vLLM's server.

Names and meanings: vllm/engine/arg_utils.py and vllm/entrypoints/**/cli_args.py of vLLM 0.32; older ones have the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium.settings import EngineSettings

MODULE = "vllm.entrypoints.openai.api_server"
SERVED = "model"  # what the model is called between the two processes
DEFAULT = EngineSettings("")

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those vLLM takes
# What would break the talk between the two servers. What runs code from elsewhere is met where options come in.
_OURS = {
    **dict.fromkeys(
        ("host", "port", "uds", "api_key", "root_path", "headless", "grpc", "ssl_keyfile", "ssl_certfile"),
        "only this server talks to it",
    ),
    **dict.fromkeys(("allowed_local_media_path", "allowed_media_domains"), "media are fetched by this server"),
    **dict.fromkeys(("tool_call_parser", "enable_auto_tool_choice"), "tools are read by this server"),
    "reasoning_parser": "reasoning is read by this server",
    "model": "give the model as MODEL",
    "served_model_name": "give --served-model-name",
}


def arguments(settings: EngineSettings, *, cpu: bool) -> list[str]:
    """Return vLLM's options for `settings`, in which `model` is a folder.

    Args:
        cpu: it runs on a CPU, where memory for the KV cache comes from the environment.

    Raises:
        ConfigurationError: an entry of engine_args is ours to set, or a setting has no meaning for vLLM.
    """
    extra = _checked(settings.engine_args)
    if settings.num_threads is not None and not cpu:
        raise ConfigurationError("num_threads has no meaning for vLLM on a GPU; leave it out.")
    given: dict[str, Any] = {
        "model": settings.model,
        "served_model_name": SERVED,
        "dtype": settings.dtype,
        "tokenizer": settings.tokenizer,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "block_size": settings.block_size,
        "tensor_parallel_size": settings.tensor_parallel_size if settings.tensor_parallel_size > 1 else None,
        "limit_mm_per_prompt": settings.limit_mm_per_prompt or None,
        "mm_processor_kwargs": settings.mm_processor_kwargs or None,
        "chat_template": settings.chat_template,
        "seed": settings.seed,
        # Sampling defaults are ours to fill in. The ids that end an answer still come from the checkpoint's file.
        "override_generation_config": {"max_new_tokens": None},
    }
    if not cpu:
        given["gpu_memory_utilization"] = settings.gpu_memory_utilization
        given["kv_cache_memory_bytes"] = settings.kv_cache_bytes
    words = [word for name, value in (given | extra).items() for word in _option(name, value)]
    if not settings.enable_prefix_caching and "enable_prefix_caching" not in extra:
        words.append("--no-enable-prefix-caching")
    return words + _lora(settings, extra)


def environment(settings: EngineSettings, *, cpu: bool, key: str, folder: Path) -> dict[str, str]:
    """Return the variables for vLLM beside those of this process.

    Args:
        key: what it asks for with every request; here rather than among the arguments, which everybody can read.
        folder: where it puts its sockets and temporary files.
    """
    found = {
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # else its processes would find each other at this machine's outer address
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1" if uses_lora(settings) else "0",
        "TMPDIR": str(folder),
        "PYTHONUNBUFFERED": "1",
    }
    if cpu and settings.kv_cache_bytes is not None:
        found["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.kv_cache_bytes / (1 << 30))))  # whole GiB
    if cpu and settings.num_threads is not None:
        found["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{settings.num_threads - 1}"
    return found


def uses_lora(settings: EngineSettings) -> bool:
    """Whether vLLM has to be told to keep room for adapters; unlike our own engine it cannot take that up later."""
    told = settings.enable_lora or settings.engine_args.get("enable_lora") is True
    return told or bool(settings.lora_modules) or bool(settings.lora)


def _lora(settings: EngineSettings, extra: Mapping[str, Any]) -> list[str]:
    if not uses_lora(settings):
        return []
    rank = settings.max_lora_rank
    if rank == DEFAULT.max_lora_rank:  # room for that in every layer is much: what is there says how much is needed
        folders = [*settings.lora_modules.values(), *([settings.lora] if settings.lora else [])]
        rank = max([_rank_of(Path(folder)) for folder in folders], default=64)
    rank = next((known for known in _RANKS if known >= rank), _RANKS[-1])
    wanted = {"enable_lora": True, "max_loras": settings.max_loras, "max_lora_rank": rank}
    return [word for name, value in wanted.items() if name not in extra for word in _option(name, value)]


def _rank_of(folder: Path) -> int:
    try:
        return int(json.loads((folder / "adapter_config.json").read_text("utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError):
        return 16  # vLLM says what is wrong with it


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return engine_args by their names with underscores; they count before what our settings say.

    Raises:
        ConfigurationError: one is ours to set.
    """
    found: dict[str, Any] = {}
    for written, value in given.items():
        name = written.strip().lstrip("-").replace("-", "_")
        if not name.replace("_", "").replace(".", "").isalnum():
            raise ConfigurationError(f"engine_args has {written!r}, which is no name of an option.")
        if name in _OURS:
            raise ConfigurationError(f"engine_args: {written} cannot be set: {_OURS[name]}.")
        found[name] = value
    return found


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return []
    if value is True:
        return [flag]
    if value is False:
        return [f"--no-{flag[2:]}"]
    return [f"{flag}={value if isinstance(value, str) else json.dumps(value)}"]
