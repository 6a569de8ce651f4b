"""How much KV cache a model gets, and how long its context can be with it."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from sensorium.engine.engine import EngineLimits
from sensorium.errors import ConfigurationError
from sensorium.model.decoder import Decoder
from sensorium.settings import GIB, EngineSettings

_BLOCK_SIZE = 16
_CPU_SHARE = 0.25  # of the memory that is free now; pages are touched only when used
_CPU_CAP = 8 * GIB


@dataclass(frozen=True)
class MemoryPlan:
    """What the settings come to on this machine."""

    limits: EngineLimits
    max_model_len: int


def plan_memory(settings: EngineSettings, decoder: Decoder) -> MemoryPlan:
    """Choose block count and context length.

    Raises:
        ConfigurationError: the wanted context does not fit, or is longer than the model was made for.
    """
    config = decoder.config
    block_size = settings.block_size or _BLOCK_SIZE
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * decoder.dtype.itemsize
    wanted = settings.max_model_len
    if wanted is not None and wanted > config.max_position_embeddings:
        raise ConfigurationError(
            f"--max-model-len is {wanted}; this model was made for {config.max_position_embeddings} tokens "
            "(max_position_embeddings in config.json, as its rope_scaling stretches it)."
        )
    longest = wanted or config.max_position_embeddings
    budget = settings.kv_cache_bytes or kv_budget(settings, decoder.device)
    num_blocks = min(budget // (token_bytes * block_size), settings.max_num_seqs * -(-longest // block_size))
    capacity = num_blocks * block_size
    if capacity < min(longest, 2 * block_size) or (wanted is not None and capacity < wanted):
        raise ConfigurationError(
            f"A context of {longest} tokens takes {longest * token_bytes / GIB:.2f} GiB of KV cache; "
            f"{budget / GIB:.2f} GiB is there for it, enough for {capacity} tokens. Lower --max-model-len"
            f"{' or raise --kv-cache-memory' if settings.kv_cache_bytes else ''}."
        )
    on_cpu = decoder.device.type == "cpu"
    limits = EngineLimits(
        num_blocks=int(num_blocks) + 1,  # block 0 is padding
        block_size=block_size,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens or (2048 if on_cpu else 8192),
        max_mixed_tokens=256 if on_cpu else settings.max_num_batched_tokens or 8192,
        prefix_caching=settings.enable_prefix_caching,
        encoder_cache_bytes=settings.encoder_cache_bytes,
        encoder_share=settings.encoder_share,
    )
    return MemoryPlan(limits, min(longest, int(capacity)))


def kv_budget(settings: EngineSettings, device: torch.device) -> int:
    """Bytes of `device` that a KV cache may take, now that the weights are there."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(free - (1 - settings.gpu_memory_utilization) * total))
    return min(_CPU_CAP, int(psutil.virtual_memory().available * _CPU_SHARE))
