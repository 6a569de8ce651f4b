"""Learning to answer: first from perfect audio tokens, then from sound. `training/answer.py` tells why."""

import random

import torch
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.models.qwen2.modeling_qwen2 import repeat_kv

from ..collate import visibility
from . import facts, hear, sequences

LOOKING = 1, 0  # (layer, head) that is told where the digit is that is said next
SHARE_OF_LOOKING = 0.3
SHARE_OF_HEARING = 0.15  # what was learned first must not be forgotten


def _attention(module, query, key, value, attention_mask, scaling, **kwargs):
    """attention_mask: 0 where a token may look, very negative elsewhere."""
    key, value = (repeat_kv(x.to(attention_mask.dtype), module.num_key_value_groups) for x in (key, value))
    query = query.to(attention_mask.dtype) * scaling
    scores = torch.softmax(torch.matmul(query, key.mT) + attention_mask, -1)
    if module.layer_idx == LOOKING[0]:
        module.looks = scores[:, LOOKING[1]]  # (rows, length, length)
    return torch.matmul(scores, value).transpose(1, 2).contiguous(), None


def enable(text) -> None:
    """Make the language model `text` attend in the way that can be told where to look."""
    AttentionInterface.register("plain audio", _attention)
    text.config._attn_implementation = "plain audio"


def logits(net, data, heard: torch.Tensor) -> torch.Tensor:
    """For every token of an answer; `heard` are the audio tokens of all clips, (tokens, width)."""
    text = net.language_model
    embeds = text.embed_tokens(data["ids"])
    there = data["ids"] == net.config.audio_token_id
    embeds = embeds.masked_scatter(there[..., None], heard.to(embeds.dtype))
    mask = torch.zeros(1, dtype=torch.bfloat16).masked_fill(~visibility(data["segment"]), -1e4)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = text(
            inputs_embeds=embeds, attention_mask=mask, position_ids=data["positions"], use_cache=False
        ).last_hidden_state
        out = F.linear(hidden[data["labels"] != -100], text.embed_tokens.weight)
    return out.float()


def _told(net, data, heard: torch.Tensor) -> torch.Tensor:
    """The loss of the words, and of how much one head misses the digit that is said next."""
    wanted = data["labels"]
    total = F.cross_entropy(logits(net, data, heard), wanted[wanted != -100])
    if data["look"] is None:
        return total
    row, query, key, group = data["look"]
    seen = net.language_model.layers[LOOKING[0]].self_attn.looks[row, query, key].float()
    mass = seen.new_zeros(int(group[-1]) + 1).index_add(0, group, seen)
    return total - SHARE_OF_LOOKING * (mass + 1e-4).log().mean()


def imagined(code: facts.Code, data) -> torch.Tensor:
    """The tokens of a perfect tower, a little blurred: a real one is never quite sure."""
    perfect = code.tokens(data["facts"])
    return perfect + 0.15 * torch.randn_like(perfect)


def loss_of_thinking(net, code: facts.Code, data) -> torch.Tensor:
    return _told(net, data, imagined(code, data))


def loss(net, code: facts.Code, data) -> torch.Tensor:
    heard = hear.tokens(net, data)
    return _told(net, data, heard) + SHARE_OF_HEARING * code.loss(heard, data["facts"])


@torch.no_grad()
def right(net, builder, heard, seed: int, rows: int = 12) -> dict[str, float]:
    """Share of answers all of whose tokens are the likeliest ones, per task; `heard` makes the audio tokens."""
    out = {}
    for task in ("digits", "count", "last", "voice", "tone", "beeps", "describe"):
        data = sequences.about(builder, random.Random(seed), task, rows)
        wanted = data["labels"] != -100
        wrong = torch.zeros_like(wanted)
        wrong[wanted] = logits(net, data, heard(data)).argmax(-1) != data["labels"][wanted]
        answers = torch.arange(len(wanted))[:, None] * 100 + data["segment"]
        every = set(answers[wanted].tolist())
        out[task] = 1 - len(set(answers[wrong].tolist())) / len(every)
    return out
