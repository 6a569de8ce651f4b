"""Faster attention for training on a CPU; the numbers stay the same.

transformers runs one attention call per image; pictures of equal size can share one. And at these
short lengths plain matrix products beat the fused kernel, whose backward pass is slow on CPUs.
"""

import torch
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen

# (layer, head) that is told where to look; heads 0 and 1 share their keys, as do 2 and 3.
LOOKING = {"question": (1, 0), "place": (1, 2), "picture": (2, 0), "other": (2, 2)}
LAYERS = {layer for layer, _ in LOOKING.values()}


def _attend(q, k, v, scale):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    scores = torch.softmax(torch.matmul(q * scale, k.mT), -1)
    return torch.matmul(scores, v).transpose(1, 2)


def _text_attention(module, query, key, value, attention_mask, scaling, **kwargs):
    """attention_mask: 0 where a token may look, very negative elsewhere."""
    repeat = module.num_key_value_groups
    dtype = attention_mask.dtype
    key, value = (qwen.repeat_kv(x.to(dtype), repeat) for x in (key, value))
    scores = torch.softmax(torch.matmul(query.to(dtype) * scaling, key.mT) + attention_mask, -1)
    if module.layer_idx in LAYERS:
        module.looks = scores  # [rows, heads, length, length]
    out = torch.matmul(scores, value)
    return out.transpose(1, 2).contiguous(), None


def _forward(self, hidden_states, cu_seqlens, position_embeddings=None, max_seqlen=None, **kwargs):
    n = hidden_states.shape[0]
    qkv = self.qkv(hidden_states).view(n, 3, self.num_heads, self.head_dim)
    q, k, v = qkv.unbind(1)
    cos, sin = position_embeddings
    cos, sin = cos.unsqueeze(-2).to(q.dtype), sin.unsqueeze(-2).to(q.dtype)
    q = q * cos + qwen.rotate_half(q) * sin
    k = k * cos + qwen.rotate_half(k) * sin
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
    shape = (self.num_heads, self.head_dim)
    if len(set(lengths)) == 1:
        size = (len(lengths), lengths[0], *shape)
        out = _attend(q.reshape(size), k.reshape(size), v.reshape(size), self.scaling)
        out = out.reshape(n, self.dim)
    else:
        out = torch.empty_like(q)
        starts = cu_seqlens[:-1].tolist()
        for length in sorted(set(lengths)):
            rows = [s for s, m in zip(starts, lengths, strict=True) if m == length]
            index = (torch.tensor(rows)[:, None] + torch.arange(length)).flatten()
            size = (len(rows), length, *shape)
            part = _attend(q[index].view(size), k[index].view(size), v[index].view(size), self.scaling)
            out = out.index_copy(0, index, part.reshape(-1, *shape).to(out.dtype))
        out = out.reshape(n, self.dim)
    return self.proj(out)


def _embed(self, hidden_states):
    # The convolution's stride equals its kernel, so it is one matrix product; and both frames are the same.
    weight = self.proj.weight.sum(2).view(self.embed_dim, -1)
    return F.linear(hidden_states, weight, self.proj.bias)


def enable() -> None:
    AttentionInterface.register("plain", _text_attention)
    qwen.Qwen3VLVisionPatchEmbed.forward = _embed
    qwen.Qwen3VLVisionAttention.forward = _forward
