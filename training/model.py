"""The shape of tiny-vl: a Qwen3-VL small enough to be trained on two CPU cores."""

import math

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

PATCH = 16
MERGE = 2
FACTOR = PATCH * MERGE
MIN_PIXELS = 160 * 160
MAX_PIXELS = 224 * 224
VIDEO_PIXELS = 6 * MIN_PIXELS, 4 * MAX_PIXELS  # of all frames together: four to six are like pictures
# Queries and keys are normalised, so attention over 150 tokens can hardly point at one of them at first.
SHARPNESS = 2.0


def build_config(vocab_size: int, ids: dict[str, int]) -> Qwen3VLConfig:
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        # A low theta: sequences are short, so slow frequencies would carry nothing.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_interleaved": True,
            "mrope_section": [12, 10, 10],
        },
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 8,
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_heads": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 256,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [],
        "initializer_range": 0.02,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def _waves(side: int, width: int) -> torch.Tensor:
    """Sines and cosines over rows and columns, [side * side, width]."""
    place = torch.linspace(0, 1, side)
    turns = torch.exp2(torch.linspace(-1, 3, width // 8)) * math.pi
    angle = place[:, None] * turns
    axis = torch.cat([angle.sin(), angle.cos()], -1)  # [side, width / 4]
    axis = torch.cat([axis, -axis.flip(0)], -1)
    rows = axis[:, None].expand(side, side, -1)
    cols = axis[None].expand(side, side, -1)
    return torch.cat([rows, cols], -1).reshape(side * side, width)


def _filters(count: int, pictures) -> torch.Tensor:
    """Smooth cosine patterns in brightness and two colour contrasts, [count, 3, 2, 16, 16].

    Each is scaled by how strongly it answers to edges in `pictures` (uint8 [3, h, w]), so that a
    faint edge tells as much as a bright area. From random filters the same takes far more pictures.
    """
    n = torch.arange(PATCH) + 0.5
    wave = torch.cos(math.pi / PATCH * n[None] * torch.arange(PATCH)[:, None])  # [frequency, place]
    order = sorted(((u, v) for u in range(PATCH) for v in range(PATCH)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    mixes = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [-0.5, -0.5, 1.0]])
    shares = [count - 2 * (count // 4), count // 4, count // 4]
    out = [
        mix[:, None, None] * torch.outer(wave[u], wave[v])
        for mix, share in zip(mixes, shares, strict=True)
        for u, v in order[:share]
    ]
    out = torch.stack(out)
    values = []
    for image in pictures:
        x = image.float().div(127.5).sub(1.0)
        _, h, w = x.shape
        x = x.view(3, h // PATCH, PATCH, w // PATCH, PATCH).permute(1, 3, 0, 2, 4).flatten(0, 1)
        x = x[x.flatten(1).std(1) > 0.05]  # flat patches say nothing about edges
        values.append(torch.einsum("pchw,fchw->pf", x, out))
    strength = torch.cat(values).square().mean(0).sqrt()
    return (out / strength[:, None, None, None] / 2).unsqueeze(2).expand(-1, -1, 2, -1, -1)


def build_model(vocab_size: int, ids: dict[str, int], pictures=()) -> Qwen3VLForConditionalGeneration:
    net = Qwen3VLForConditionalGeneration(build_config(vocab_size, ids))
    visual = net.model.visual
    with torch.no_grad():
        # The usual tiny start would drown the position under the brightness of the patch, and
        # attention would begin as a plain mean over the picture.
        side = int(visual.config.num_position_embeddings**0.5)
        visual.pos_embed.weight.copy_(0.4 * _waves(side, visual.config.hidden_size))
        if pictures:
            visual.patch_embed.proj.weight.copy_(0.7 * _filters(visual.config.hidden_size, pictures))
        for block in visual.blocks:
            block.attn.qkv.weight.mul_(3)
    for layer in net.model.language_model.layers:
        torch.nn.init.constant_(layer.self_attn.q_norm.weight, SHARPNESS)
    return net


def grown(state: dict[str, torch.Tensor], net: Qwen3VLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The weights of a model with fewer visual layers for `net`, whose further layers change nothing at first."""
    own = net.state_dict()
    new = {name: value.clone() for name, value in own.items() if name not in state}
    for name, value in new.items():
        if ".attn.proj." in name or ".linear_fc2." in name:
            value.zero_()
    return state | new
