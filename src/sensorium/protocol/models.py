"""Model cards of /v1/models, readable for clients of OpenAI, vLLM and swift."""

from __future__ import annotations

from typing import Any

from sensorium.types import Adapter, ModelInfo


def model_card(
    name: str, info: ModelInfo | None, created: int, adapter: Adapter | None = None, base: str | None = None
) -> dict[str, Any]:
    """Return the card of `name`; what only a loaded model knows is null while `info` is None.

    Args:
        adapter: what `name` stands for, where that is no model; `base` is the served name of its model.
    """
    root = info.adapter or info.path if info else name
    parent = info.path if info and info.adapter else None
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "sensorium",
        "root": adapter.path if adapter else root,
        "parent": base if adapter else parent,
        "max_model_len": info.max_model_len if info else None,
        "permission": [_permission(name, created)],
        "is_chat": True,
        "is_multimodal": len(info.modalities) > 1
        if info
        else True,  # a bool, or swift's client fails; true lets it send files
        "modalities": list(info.modalities) if info else None,
        "limit_mm_per_prompt": info.limit_mm_per_prompt if info else None,
        "loaded": info is not None,
    }


def model_list(cards: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the body of GET /v1/models."""
    return {"object": "list", "data": cards}


def _permission(name: str, created: int) -> dict[str, Any]:
    return {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
