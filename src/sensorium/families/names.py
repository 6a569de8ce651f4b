"""Checkpoint tensor names -> ours, for all layouts in which these families were written.

Hub files of Qwen2-VL and Qwen2.5-VL have `visual.*`, `model.*` and `lm_head.weight`, and transformers 5 writes the
same; Qwen3-VL has `model.visual.*` and `model.language_model.*`; transformers 4.52 and its tools also wrote
`language_model.model.*`. Without their prefixes all agree.
"""

from __future__ import annotations

from collections.abc import Iterable

_BUFFERS = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "masked_bias")  # computed, not learned
_CLIP = (
    ("embeddings.class_embedding", "class"),
    ("embeddings.patch_embedding.", "patch."),
    ("embeddings.position_embedding.weight", "positions"),
    ("pre_layrnorm.", "first_norm."),  # so spelt
    ("post_layernorm.", "last_norm."),
    ("encoder.layers.", "layers."),
    ("layer_norm", "norm"),
    ("self_attn.out_proj.", "attn.proj."),
    ("self_attn.q_proj.", "attn.q."),
    ("self_attn.k_proj.", "attn.k."),
    ("self_attn.v_proj.", "attn.v."),
)


def rename_text(name: str) -> tuple[str, str] | None:
    """Name of a text-only model's tensor."""
    if name.endswith(_BUFFERS):
        return None
    return "decoder", name.removeprefix("model.")


def rename_vision(name: str) -> tuple[str, str] | None:
    """Name of a vision-language model's tensor."""
    if name.endswith(_BUFFERS):
        return None
    bare = name.removeprefix("model.")
    if bare.startswith("visual."):
        return "vision", bare.removeprefix("visual.")
    return rename_text_part(name)


def rename_text_part(name: str) -> tuple[str, str] | None:
    """Name of a decoder tensor inside a model of several parts, with or without its prefixes."""
    if name.endswith(_BUFFERS):
        return None
    return "decoder", name.removeprefix("model.").removeprefix("language_model.").removeprefix("model.")


def rename_clip(name: str) -> tuple[str, str] | None:
    """Name of a tensor of a CLIP vision tower, as `CLIPVisionModel` has it, with or without `vision_model.`."""
    if name.endswith("position_ids"):
        return None
    return "vision", replaced(name.removeprefix("vision_model."), _CLIP)


def replaced(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Replace each first by its second, in this order."""
    for theirs, ours in pairs:
        name = name.replace(theirs, ours)
    return name
