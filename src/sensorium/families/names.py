"""Checkpoint tensor names -> ours, for all layouts in which these families were written.

Hub files of Qwen2-VL and Qwen2.5-VL have `visual.*`, `model.*` and `lm_head.weight`, and transformers 5 writes the
same; Qwen3-VL has `model.visual.*` and `model.language_model.*`; transformers 4.52 and its tools also wrote
`language_model.model.*`. Without their prefixes all agree.
"""

from __future__ import annotations

_BUFFERS = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "masked_bias")  # computed, not learned


def rename_text(name: str) -> tuple[str, str] | None:
    """Name of a text-only model's tensor."""
    if name.endswith(_BUFFERS):
        return None
    return "decoder", name.removeprefix("model.")


def rename_vision(name: str) -> tuple[str, str] | None:
    """Name of a vision-language model's tensor."""
    if name.endswith(_BUFFERS):
        return None
    name = name.removeprefix("model.")
    if name.startswith("visual."):
        return "vision", name.removeprefix("visual.")
    return "decoder", name.removeprefix("language_model.").removeprefix("model.")
