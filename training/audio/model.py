"""The shape of tiny-audio: a Qwen2-Audio small enough to be trained on one CPU core."""

import torch
from torch.nn import functional as F
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

MELS = 128
SECONDS = 10  # the longest clip
ROWS = 50 * SECONDS  # of the tower
FOCUS = 2.0  # how sharply a head looks at one moment at first
LOOKS = (-7.0, 0.0, 7.0)  # rows of 20 ms between a moment and where each head looks at first


def build_config(vocab_size: int, ids: dict[str, int]) -> Qwen2AudioConfig:
    text = {
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        # A low theta: sequences are short, so slow frequencies would carry nothing.
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    audio = {
        "model_type": "qwen2_audio_encoder",
        "d_model": 192,
        "encoder_layers": 4,
        "encoder_attention_heads": 3,
        "encoder_ffn_dim": 512,
        "num_mel_bins": MELS,
        "max_source_positions": ROWS,
        "activation_function": "gelu",
        "dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "initializer_range": 0.02,
    }
    return Qwen2AudioConfig(text_config=text, audio_config=audio, audio_token_index=ids["<|AUDIO|>"])


def _sines(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whisper's positions, (ROWS, width): sines, then cosines; and their turns per row, (width / 2,)."""
    turns = torch.exp(-torch.arange(width // 2) * (torch.log(torch.tensor(10000.0)) / (width // 2 - 1)))
    angle = torch.arange(ROWS)[:, None] * turns
    return torch.cat([angle.sin(), angle.cos()], -1), turns


def _look_aside(layer, width: int, turns: torch.Tensor) -> None:
    """Add to queries and keys what makes each head look a fixed way off: a token's neighbours make a word.

    A query is its own position turned by that way, a key its position as it is.
    """
    heads = len(LOOKS)
    size, half = width // heads, width // 2
    chosen = torch.arange(half)[::3][: size // 2]  # frequencies from all over the scale
    for head, way in enumerate(LOOKS):
        angle = turns[chosen] * way
        rows = head * size + torch.arange(len(chosen))
        q, k = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        q[rows, chosen] += FOCUS * angle.cos()
        q[rows, half + chosen] += FOCUS * angle.sin()
        q[rows + size // 2, chosen] -= FOCUS * angle.sin()
        q[rows + size // 2, half + chosen] += FOCUS * angle.cos()
        k[rows, chosen] += FOCUS
        k[rows + size // 2, half + chosen] += FOCUS


def build_model(vocab_size: int, ids: dict[str, int]) -> Qwen2AudioForConditionalGeneration:
    net = Qwen2AudioForConditionalGeneration(build_config(vocab_size, ids))
    tower = net.model.audio_tower
    with torch.no_grad():
        width = tower.config.d_model
        sines, turns = _sines(width)
        # Half their usual height, which would drown the sound at first.
        tower.embed_positions.weight.copy_(0.5 * sines)
        tower.embed_positions.requires_grad_(True)
        for conv in (tower.conv1, tower.conv2):
            torch.nn.init.kaiming_normal_(conv.weight)
        for layer in tower.layers:
            _look_aside(layer, width, turns)
    return net


def hear(tower, projector, mel: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The audio tokens of all clips one after the other, (tokens, width).

    The same numbers as transformers' tower, without the silence that fills each clip up to the longest.

    Args:
        mel: (clips, MELS, frames), 2 * rows + 1 frames of each clip, then anything.
        rows: (clips,) of the tower for each clip.
    """
    longest = int(rows.max())
    x = F.gelu(tower.conv1(mel[:, :, : 2 * longest + 1]))[:, :, : 2 * longest]
    x = F.gelu(tower.conv2(x)).transpose(1, 2) + tower.embed_positions.weight[:longest]
    there = torch.arange(longest) < rows[:, None]  # (clips, rows)
    mask = torch.zeros(there.shape, dtype=torch.bfloat16).masked_fill(~there, -1e4)[:, None, None]
    for layer in tower.layers:
        y = layer.self_attn_layer_norm(x)
        x = x + _attend(layer.self_attn, y, mask)
        y = layer.final_layer_norm(x)
        x = x + layer.fc2(F.gelu(layer.fc1(y)))
    clips, _, width = x.shape
    x = x[:, : longest // 2 * 2].reshape(clips, longest // 2, 2, width).mean(2)
    x = x[torch.arange(longest // 2) < (rows // 2)[:, None]]
    return projector.linear(tower.layer_norm(x))


def _attend(attention, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    shape = (*x.shape[:2], attention.num_heads, -1)
    q, k, v = (p(x).view(shape).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    scores = torch.softmax(torch.matmul(q * attention.head_dim**-0.5, k.mT) + mask, -1)
    out = torch.matmul(scores.to(v.dtype), v).transpose(1, 2).flatten(2)
    return attention.out_proj(out)
