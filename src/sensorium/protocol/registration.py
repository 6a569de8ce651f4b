"""/v1/models/register: its body, which is also a table of models.toml; and what registering answers.

The first fields are those of the serverless service on Ray; the others have the names of vLLM's flags, as in
`sensorium serve`.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import check_plain
from sensorium.protocol.fields import Bool
from sensorium.settings import Engine, Hub, media_counts, parse_bytes, parse_idle_ttl

_MOST = 1 << 40


def _size(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return parse_bytes(value)
        except OverflowError:
            raise ValueError("is more than any machine has") from None
        except ValueError as error:
            raise ValueError(f"is wrong: {str(error).rstrip('.')}") from None
    return value


def _idle(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return parse_idle_ttl(value)
        except ValueError as error:
            raise ValueError(f"is wrong: {str(error).rstrip('.')}") from None
    return value


def _counts(value: Any) -> Any:
    if isinstance(value, dict):
        try:
            return media_counts(value)
        except ValueError as error:
            raise ValueError(f"is wrong: {str(error).rstrip('.')}") from None
    return value


Text = Annotated[str, Field(strict=True, min_length=1, max_length=4096)]
Positive = Annotated[int, Field(strict=True, ge=1, le=_MOST)]
Count = Annotated[int, Field(strict=True, ge=0, le=1024)]
Amount = Annotated[float, Field(strict=True, ge=0, le=4096, allow_inf_nan=False)]
Size = Annotated[int, BeforeValidator(_size), Field(strict=True, ge=1, lt=1 << 63)]  # what a database takes


class RegisterBody(pydantic.BaseModel):
    """The body of POST /v1/models/register. A null counts as absent."""

    model_config = ConfigDict(extra="allow")

    alias: Text | None = None
    model_name: Text | None = None
    model_path: Text | None = None
    max_model_len: Positive | None = None
    gpu_memory_utilization: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    tensor_parallel_size: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    worker_id: Text | None = None

    engine: Engine | None = None
    engine_args: dict[str, Any] | None = None
    engine_python: Text | None = None
    base_url: Text | None = None
    api_key: Text | None = None
    timeout: Annotated[float, Field(strict=True, gt=0, le=86400)] | None = None

    idle_ttl: Annotated[float, BeforeValidator(_idle), Field(strict=True, ge=-1, le=1e9)] | None = None
    pinned: Bool | None = None
    preload: Bool | None = None
    lora_of: Text | None = None
    min_replicas: Count | None = None
    max_replicas: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    num_cpus: Amount | None = None
    num_gpus: Amount | None = None
    memory: Size | None = None

    dtype: Text | None = None
    device: Text | None = None
    revision: Text | None = None
    hub: Hub | None = None
    tokenizer: Text | None = None
    limit_mm_per_prompt: Annotated[dict[str, int], BeforeValidator(_counts)] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    chat_template: Annotated[str, Field(strict=True, min_length=1, max_length=1 << 20)] | None = None
    system: Annotated[str, Field(strict=True, max_length=1 << 16)] | None = None
    generation_config: Text | None = None
    override_generation_config: dict[str, Any] | None = None
    seed: Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 63)] | None = None
    max_num_seqs: Positive | None = None
    max_num_batched_tokens: Positive | None = None
    block_size: Literal[8, 16, 32, 64, 128] | None = None
    kv_cache_memory: Size | None = None
    encoder_cache_memory: Size | None = None
    enable_prefix_caching: Bool | None = None
    num_threads: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    lora_modules: dict[str, Text] | None = None
    max_loras: Positive | None = None
    max_lora_rank: Positive | None = None

    trust_remote_code: Bool | None = None
    replace: Bool | None = None


def check_registration(body: RegisterBody) -> None:
    """Refuse what is missing, and fields that nobody knows: unlike a request's, they would be kept.

    Raises:
        InvalidRequest: `param` is the field.
    """
    for name in body.model_extra or ():
        near = difflib.get_close_matches(name[:100], RegisterBody.model_fields, 1, 0.6)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise InvalidRequest(f"`{name[:100]}` is no field of a registration.{hint}", param=name[:100])
    if not body.alias or not (body.model_name or body.model_path):
        missing = "model_name" if body.alias else "alias"
        raise InvalidRequest(f"alias and model_name are required; `{missing}` is missing.", param=missing)
    for name in ("engine_args", "mm_processor_kwargs", "override_generation_config"):
        check_plain(getattr(body, name), name)


def routing(
    alias: str,
    model_name: str,
    url: str,
    *,
    worker_id: str | None,
    created: float,
    **more: Any,
) -> dict[str, Any]:
    """Return where a model is answered, in the form of the serverless service: its `ModelRouting`, and `more`.

    `url` is the gateway's own: it passes requests on, whichever process or machine has the model.
    """
    port = url.rpartition(":")[2]
    return {
        "alias": alias,
        "model_name": model_name,
        "worker_id": worker_id or "local",
        "worker_url": url,
        "vllm_port": int(port) if port.isdigit() else None,
        "created_at": created,
        **more,
    }
