"""Model cards of /v1/models, readable for clients of OpenAI, vLLM, swift and OpenRouter."""

from __future__ import annotations

from typing import Any

from sensorium.settings import MediaLimits
from sensorium.types import Adapter, ModelInfo, Outlook


def model_card(
    name: str,
    known: ModelInfo | Outlook,
    limits: MediaLimits,
    created: int,
    adapter: Adapter | None = None,
    base: str | None = None,
    state: str | None = None,
) -> dict[str, Any]:
    """Return the card of `name`; null is what only a loaded model knows.

    Args:
        adapter: what `name` stands for, where that is no model; `base` is the served name of its model.
    """
    info = known if isinstance(known, ModelInfo) else None
    media = known.modalities[1:] if isinstance(known, ModelInfo) else known.media
    root = (info and info.adapter) or known.path or name
    parent = info.path if info and info.adapter else None
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "sensorium",
        "root": adapter.path if adapter else root,
        "parent": base if adapter else parent,
        "max_model_len": known.max_model_len,
        "permission": [_permission(name, created)],
        "is_chat": True,
        "is_multimodal": bool(media) or media is None,  # a bool, or swift's client fails; true lets it send files
        "input_modalities": None if media is None else ["text", *media],
        "output_modalities": ["text"],
        "limit_mm_per_prompt": known.limit_mm_per_prompt,  # a kind that is not named has no limit
        "media": None if media is None else {kind: _bounds(kind, info, limits) for kind in media},
        "max_request_media_bytes": limits.max_request_bytes,
        "loaded": info is not None if state is None else state in ("ready", "draining"),
        "state": state,
        "engine": info.engine if info else None,
        "default_sampling": info.default_sampling if info else None,  # of requests that say nothing else
    }


def model_list(cards: list[dict[str, Any]], routings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the body of GET /v1/models: OpenAI's, and beside it that of the serverless service."""
    return {"object": "list", "data": cards, "models": routings}


def _bounds(kind: str, info: ModelInfo | None, limits: MediaLimits) -> dict[str, Any]:
    """What one item may be: over `refused_above` it is an error; what is over `reduced_to` is made smaller.

    `reduced_to` has the names of `mm_processor_kwargs`, in which a request may ask for less.
    """
    own = dict(info.media_bounds.get(kind, {})) if info else {}
    refused: dict[str, float] = {}
    if kind == "image":
        refused = {"bytes": limits.max_bytes, "pixels": limits.max_pixels, "aspect_ratio": limits.max_aspect_ratio}
    elif kind == "video":
        refused = {
            "bytes": limits.max_video_bytes,
            "seconds": limits.max_video_s,
            "frame_pixels": limits.max_frame_pixels,
            "frames": limits.max_video_frames,
        }
    elif kind == "audio":
        seconds = min(limits.max_audio_s, own.pop("max_seconds", limits.max_audio_s))
        refused = {"bytes": limits.max_audio_bytes, "seconds": seconds}
    return {"refused_above": refused, "reduced_to": own if info else None}


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
