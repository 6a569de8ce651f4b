"""The one decoder: RMSNorm, GQA, SwiGLU, RoPE; what families differ in is in DecoderConfig."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from sensorium.model.attention import AttentionPlan, attend
from sensorium.model.config import DecoderConfig
from sensorium.model.linear import Linear
from sensorium.model.lora import Groups, Lanes
from sensorium.model.rope import Rope, rotate
from sensorium.model.taker import Taker

KVCache = list[torch.Tensor]


@dataclass(frozen=True)
class Step:
    """The input of one forward pass over the tokens of all scheduled sequences, flattened."""

    token_ids: torch.Tensor  # (num_tokens,) int64
    positions: torch.Tensor  # (num_tokens,), or (3, num_tokens) for M-RoPE
    plan: AttentionPlan
    logit_rows: torch.Tensor  # (num_logits,) int64: rows whose next token is wanted
    rope_rows: torch.Tensor | None = None  # (num_tokens,) int64: `prompt_table` of each token's prompt; None: 0
    media_rows: torch.Tensor | None = None  # (num_media_rows,) int64: rows that hold encoder output
    media_features: torch.Tensor | None = None  # (num_media_rows, hidden_size * (1 + num_deepstack_layers))
    adapters: Groups = ()  # whose the rows are
    logit_adapters: Groups = ()  # whose the logit rows are


class Decoder:
    """Weights in, logits out. Holds no state between steps; the KV cache is the caller's.

    Args:
        config: shapes and flags.
        weights: tensors by the names `Family.rename` gives them; already in the wanted dtype, on the device.

    Raises:
        ConfigurationError: tensors are missing, left over, or of a wrong shape.
    """

    def __init__(self, config: DecoderConfig, weights: Mapping[str, torch.Tensor]) -> None:
        self.config = config
        take = Taker(weights, "decoder")
        hidden, vocab = config.hidden_size, config.vocab_size
        # Of tied tensors a file may have only one, by either name.
        only_head = config.tie_word_embeddings and "embed_tokens.weight" not in take
        self.embed = take("lm_head.weight" if only_head else "embed_tokens.weight", vocab, hidden)
        self.dtype, self.device = self.embed.dtype, self.embed.device
        self.rope = Rope(config, self.device, self.dtype)
        self.layers = [_Layer(config, take, f"layers.{index}.") for index in range(config.num_hidden_layers)]
        self.norm = take("norm.weight", hidden)
        tied = config.tie_word_embeddings
        if tied and "lm_head.weight" in take:
            # Some files repeat the tied tensor. Where it is another one, the weights are right and config.json is not.
            head = take("lm_head.weight", vocab, hidden)
            self.head = Linear(self.embed if torch.equal(head, self.embed) else head)
        else:
            self.head = Linear(self.embed if tied else take("lm_head.weight", vocab, hidden))
        take.check_empty()
        self.sites = take.sites
        self.sites.place(self.head, {"lm_head": vocab})
        self.head.lanes = Lanes()  # it sees other rows than the layers

    def new_cache(self, num_blocks: int, block_size: int) -> KVCache:
        """Zeroed keys and values per layer: (2, num_kv_heads, num_blocks, block_size, head_dim)."""
        shape = (2, self.config.num_key_value_heads, num_blocks, block_size, self.config.head_dim)
        return [self._zeros(shape) for _ in self.layers]

    def _zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self.device.type != "cpu":
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        # numpy's zeros come from calloc: memory is taken page by page as the cache fills, not all at start.
        flat = np.zeros(math.prod(shape) * self.dtype.itemsize, dtype=np.uint8)
        return torch.from_numpy(flat).view(self.dtype).view(shape)

    def forward(self, step: Step, cache: KVCache) -> torch.Tensor:
        """Return (num_logits, vocab_size) logits in the model's dtype."""
        self.sites.lanes.groups, self.head.lanes.groups = step.adapters, step.logit_adapters
        x = F.embedding(step.token_ids, self.embed)  # (num_tokens, hidden_size)
        deepstack: tuple[torch.Tensor, ...] = ()
        if step.media_rows is not None and step.media_features is not None:
            features, *deepstack_list = torch.split(step.media_features, self.config.hidden_size, dim=1)
            deepstack = tuple(deepstack_list)
            x[step.media_rows] = features
        cos, sin = self.rope.tables(step.positions, step.rope_rows)
        factors = self.rope.query_factors(step.positions)
        for index, layer in enumerate(self.layers):
            x = layer.forward(x, cos, sin, factors, cache[index], step.plan)
            if index < len(deepstack) and step.media_rows is not None:
                x.index_add_(0, step.media_rows, deepstack[index])
        x = x[step.logit_rows]  # (num_logits, hidden_size)
        return self.head(F.rms_norm(x, (x.shape[-1],), self.norm, self.config.rms_norm_eps))


class _Layer:
    def __init__(self, config: DecoderConfig, take: Taker, prefix: str) -> None:
        hidden, middle, dim = config.hidden_size, config.intermediate_size, config.head_dim
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, dim
        self.eps = config.rms_norm_eps
        widths = {"q": self.heads * dim, "k": self.kv_heads * dim, "v": self.kv_heads * dim}
        attention = prefix + "self_attn."
        qkv = torch.cat([take(f"{attention}{n}_proj.weight", width, hidden) for n, width in widths.items()])
        bias = (
            torch.cat([take(f"{attention}{n}_proj.bias", width) for n, width in widths.items()])
            if config.attention_bias
            else None
        )
        place = take.sites.place
        self.qkv = place(Linear(qkv, bias), {f"{attention}{n}_proj": width for n, width in widths.items()})
        out = take(attention + "o_proj.weight", hidden, self.heads * dim)
        self.out = place(Linear(out, take.optional(attention + "o_proj.bias")), {attention + "o_proj": hidden})
        self.q_norm = take(attention + "q_norm.weight", dim) if config.qk_norm else None
        self.k_norm = take(attention + "k_norm.weight", dim) if config.qk_norm else None
        self.gate, self.up, self.down = (
            place(Linear(take(f"{prefix}mlp.{name}_proj.weight", wide, narrow)), {f"{prefix}mlp.{name}_proj": wide})
            for name, wide, narrow in (("gate", middle, hidden), ("up", middle, hidden), ("down", hidden, middle))
        )
        self.attention_norm = take(prefix + "input_layernorm.weight", hidden)
        self.mlp_norm = take(prefix + "post_attention_layernorm.weight", hidden)

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        factors: torch.Tensor | None,
        cache: torch.Tensor,
        plan: AttentionPlan,
    ) -> torch.Tensor:
        num_tokens, hidden = x.shape
        h = F.rms_norm(x, (hidden,), self.attention_norm, self.eps)
        qkv = self.qkv(h).view(num_tokens, self.heads + 2 * self.kv_heads, self.head_dim)
        qk, v = qkv[:, : self.heads + self.kv_heads], qkv[:, self.heads + self.kv_heads :]
        if self.q_norm is not None and self.k_norm is not None:
            q = F.rms_norm(qk[:, : self.heads], (self.head_dim,), self.q_norm, self.eps)
            k = F.rms_norm(qk[:, self.heads :], (self.head_dim,), self.k_norm, self.eps)
            qk = torch.cat((q, k), 1)
        qk = rotate(qk, cos, sin)  # (num_tokens, heads + kv_heads, head_dim)
        q, k = qk[:, : self.heads], qk[:, self.heads :]
        if factors is not None:
            q = q * factors
        attended = attend(q, k, v, cache, plan)  # (num_tokens, heads * head_dim)
        x = self.out.plus(attended, x)
        h = F.rms_norm(x, (hidden,), self.mlp_norm, self.eps)
        return self.down.plus(self.up.times(h, self.gate.silu(h)), x)
