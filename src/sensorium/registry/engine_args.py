"""Which of vLLM's own options a registration may carry: those that are known to run no code and to open no door.

A list of what is forbidden would not do: vLLM's parser takes abbreviations (`--trust-remote-c`), and a later version
may have an option that nobody here has heard of.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sensorium.errors import Forbidden, InvalidRequest

FLAG = "--trust-engine-args"
_NAMES = """
    async_scheduling attention_backend block_size calculate_kv_scales cpu_offload_gb data_parallel_size data_type
    disable_cascade_attn disable_custom_all_reduce disable_hybrid_kv_cache_manager disable_log_stats
    disable_mm_preprocessor_cache disable_sliding_window dtype enable_chunked_prefill enable_expert_parallel enable_lora
    enable_prefix_caching enable_sleep_mode enforce_eager fully_sharded_loras generation_config gpu_memory_utilization
    kv_cache_dtype kv_cache_memory_bytes limit_mm_per_prompt long_prefill_token_threshold mamba_cache_dtype
    max_cpu_loras max_long_partial_prefills max_logprobs max_lora_rank max_loras max_model_len max_num_batched_tokens
    max_num_partial_prefills max_num_seqs max_parallel_loading_workers max_seq_len_to_capture
    mm_encoder_attn_backend mm_encoder_tp_mode mm_processor_cache_gb mm_processor_cache_type mm_processor_kwargs
    num_gpu_blocks_override num_scheduler_steps override_generation_config pipeline_parallel_size
    prefix_caching_hash_algo quantization revision rope_scaling rope_theta scheduling_policy seed skip_mm_profiling
    swap_space task tensor_parallel_size tokenizer_revision use_tqdm_on_load video_pruning_rate
"""
ALLOWED = frozenset(_NAMES.split())
OURS = {  # what the gateway says itself
    **dict.fromkeys(("host", "port", "uds", "root_path"), "the gateway chooses where the engine listens"),
    **dict.fromkeys(("api_key", "served_model_name", "model"), "the gateway sets it"),
    **dict.fromkeys(
        ("allowed_local_media_path", "allowed_media_domains", "media_io_kwargs"), "the gateway fetches media"
    ),
}
_CODE = "trust_remote_code"


def check_engine_args(given: Mapping[str, Any], trusted: bool) -> None:
    """Refuse options with which the engine would run code from elsewhere, or listen elsewhere.

    Args:
        given: option -> value, with dashes or underscores.
        trusted: the server was started with `--trust-engine-args`.

    Raises:
        InvalidRequest: the gateway sets this option itself, or it is no option's name.
        Forbidden: it is not known to be harmless, and not `trusted`.
    """
    for name, value in given.items():
        path = f"engine_args.{name[:100]}"
        plain = name.strip().lstrip("-").replace("-", "_").lower()
        if not plain.replace("_", "").replace(".", "").isalnum() or not plain.isascii():
            raise InvalidRequest(f"`{path}` is no name of an option.", param=path)
        if plain.split(".")[0] in OURS:
            raise InvalidRequest(f"`{path}` cannot be given: {OURS[plain.split('.')[0]]}.", param=path)
        if trusted:
            continue
        if plain not in ALLOWED:
            raise Forbidden(_refusal(path, plain), param=path, code="engine_args_forbidden")
        if _holds(value, _CODE):
            raise Forbidden(_refusal(path, _CODE), param=path, code="engine_args_forbidden")


def _refusal(path: str, plain: str) -> str:
    if plain == _CODE or any(word in plain for word in ("plugin", "overrides", "middleware", "cls", "code")):
        return f"`{path}` is refused: with it the engine may run code of a model or from elsewhere ({FLAG} allows it)."
    near = difflib.get_close_matches(plain[:100], ALLOWED, 1, 0.75)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return f"`{path}` is not among the options known to run no code; a server started with {FLAG} takes it.{hint}"


def _holds(value: Any, key: str) -> bool:
    if isinstance(value, Mapping):
        return any(key in str(name).replace("-", "_").lower() or _holds(each, key) for name, each in value.items())
    return isinstance(value, list) and any(_holds(each, key) for each in value)
