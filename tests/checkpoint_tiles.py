"""The parts of tiny checkpoints whose towers see square tiles: LLaVA and InternVL."""

from __future__ import annotations

from typing import Any

Shapes = dict[str, tuple[int, ...]]

WIDTH, MIDDLE, SIDE = 32, 48, 56  # of the towers: 16 patches a tile
_DEPTH = {"llava": 3, "internvl": 2}
_CLIP_STATISTICS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGE: dict[str, dict[str, Any]] = {
    "llava": _CLIP_STATISTICS | {
        "image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}, "resample": 3,
    },
    "internvl": {
        "image_processor_type": "GotOcr2ImageProcessor", "crop_to_patches": False, "min_patches": 1, "max_patches": 12,
        "size": {"height": SIDE, "width": SIDE}, "resample": 3,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    },
}  # fmt: skip

# config.json: key and literal of the placeholder, model_type of text_config, and the rest.
OUTER: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "llava": ("image_token_index", "<image>", "llama", {
        "projector_hidden_act": "gelu", "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "image_seq_length": 16,
        "vision_config": {
            "hidden_size": WIDTH, "image_size": SIDE, "intermediate_size": MIDDLE, "model_type": "clip_vision_model",
            "num_attention_heads": 2, "num_hidden_layers": _DEPTH["llava"], "patch_size": 14, "projection_dim": 24,
            "vocab_size": 600,
        },
    }),
    "internvl": ("image_token_id", "<IMG_CONTEXT>", "qwen2", {
        "projector_hidden_act": "gelu", "vision_feature_layer": -1, "vision_feature_select_strategy": "default",
        "downsample_ratio": 0.5, "image_seq_length": 4,
        "vision_config": {
            "hidden_size": WIDTH, "image_size": [SIDE, SIDE], "intermediate_size": MIDDLE, "attention_bias": True,
            "model_type": "internvl_vision", "num_attention_heads": 2, "num_hidden_layers": _DEPTH["internvl"],
            "patch_size": [14, 14], "hidden_act": "gelu", "layer_norm_eps": 1e-6, "norm_type": "layer_norm",
            "use_qk_norm": False, "use_mean_pooling": True, "use_absolute_position_embeddings": True,
        },
    }),
}  # fmt: skip


def tile_shapes(family: str, out: int) -> Shapes:
    """Return names and shapes of tower and projector; `out` is the decoder's width."""
    return _clip(out) if family == "llava" else _intern(out)


def _affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _clip(out: int) -> Shapes:
    tower = "vision_tower.vision_model."
    shapes: Shapes = {
        f"{tower}embeddings.class_embedding": (WIDTH,),
        f"{tower}embeddings.patch_embedding.weight": (WIDTH, 3, 14, 14),
        f"{tower}embeddings.position_embedding.weight": (17, WIDTH),
    }
    for index in range(_DEPTH["llava"]):
        layer = f"{tower}encoder.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _affine(f"{layer}self_attn.{name}", WIDTH, WIDTH)
        shapes |= _affine(f"{layer}layer_norm1", WIDTH) | _affine(f"{layer}layer_norm2", WIDTH)
        shapes |= _affine(f"{layer}mlp.fc1", MIDDLE, WIDTH) | _affine(f"{layer}mlp.fc2", WIDTH, MIDDLE)
    shapes |= _affine(f"{tower}pre_layrnorm", WIDTH) | _affine(f"{tower}post_layernorm", WIDTH)
    projector = "multi_modal_projector.linear_"
    return shapes | _affine(projector + "1", out, WIDTH) | _affine(projector + "2", out, out)


def _intern(out: int) -> Shapes:
    shapes: Shapes = {
        "vision_tower.embeddings.cls_token": (1, 1, WIDTH),
        "vision_tower.embeddings.position_embeddings": (1, 17, WIDTH),
        **_affine("vision_tower.embeddings.patch_embeddings.projection", WIDTH, 3, 14, 14),
    }
    for index in range(_DEPTH["internvl"]):
        layer = f"vision_tower.encoder.layer.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "projection_layer"):
            shapes |= _affine(f"{layer}attention.{name}", WIDTH, WIDTH)
        shapes |= _affine(f"{layer}layernorm_before", WIDTH) | _affine(f"{layer}layernorm_after", WIDTH)
        shapes |= _affine(f"{layer}mlp.fc1", MIDDLE, WIDTH) | _affine(f"{layer}mlp.fc2", WIDTH, MIDDLE)
        shapes |= {f"{layer}lambda_1": (WIDTH,), f"{layer}lambda_2": (WIDTH,)}
    projector = "multi_modal_projector."
    shapes |= _affine(projector + "layer_norm", 4 * WIDTH)
    return shapes | _affine(projector + "linear_1", out, 4 * WIDTH) | _affine(projector + "linear_2", out, out)
