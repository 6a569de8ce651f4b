"""Learning to answer: first from perfect visual tokens, then from pictures."""

import random

import torch
from torch.nn import functional as F

from . import dense, fastvision, see, sequences
from .collate import collate, visibility

SHARE_OF_SEEING = 0.15  # what was learned first must not be forgotten
SHARE_OF_LOOKING = 0.3


def batch(builder, seed: int, number: int, step: int):
    """The same seed and number give the same questions."""
    return collate(sequences.batch(builder, seed, number, step), pad_id=0)


def _logits(net, data, visual: torch.Tensor | None) -> torch.Tensor:
    """For every token of an answer; `visual` are the visual tokens of all pictures, [cells, width]."""
    embeds = net.model.language_model.embed_tokens(data["ids"])
    if visual is not None:
        there = (data["ids"] == net.config.image_token_id) | (data["ids"] == net.config.video_token_id)
        embeds = embeds.masked_scatter(there[..., None], visual.to(embeds.dtype))
    mask = torch.zeros(1, dtype=torch.bfloat16).masked_fill(~visibility(data["segment"]), -1e4)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net.model.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=data["positions"], use_cache=False
        ).last_hidden_state
        logits = F.linear(hidden[data["labels"] != -100], net.model.language_model.embed_tokens.weight)
    return logits.float()


def _cross_entropy(logits, data):
    wanted = data["labels"]
    there = wanted != -100
    each = F.cross_entropy(logits, wanted[there], reduction="none")
    return (each * data["weights"][there]).sum() / len(each)


def _looking(net, data) -> torch.Tensor:
    """How much of some heads' attention misses the places that hold what is said next."""
    total = torch.zeros(())
    for what, (row, query, key, group) in data["look"].items():
        layer, head = fastvision.LOOKING[what]
        attention = net.model.language_model.layers[layer].self_attn.looks
        seen = attention[row, head, query, key].float()
        mass = seen.new_zeros(int(group[-1]) + 1).index_add(0, group, seen)
        total = total - (mass + 1e-4).log().mean()
    return total


def imagined(code: dense.Code, data) -> torch.Tensor | None:
    """The tokens of a perfect visual tower, a little blurred: a real one is never quite sure."""
    if data["cells"] is None:
        return None
    visual = code.tokens(data["cells"])
    return visual + 0.1 * torch.randn_like(visual)


def loss_of_thinking(net, code: dense.Code, data) -> torch.Tensor:
    logits = _logits(net, data, imagined(code, data))
    return _cross_entropy(logits, data) + SHARE_OF_LOOKING * _looking(net, data)


def loss_of_practising(net, data) -> torch.Tensor:
    visual = None
    if data["cells"] is not None:
        with torch.no_grad():
            visual = see.features(net, data)
    return _cross_entropy(_logits(net, data, visual), data) + SHARE_OF_LOOKING * _looking(net, data)


def loss(net, code: dense.Code, data) -> torch.Tensor:
    if data["cells"] is None:
        return _cross_entropy(_logits(net, data, None), data)
    visual = see.features(net, data)
    answers = _cross_entropy(_logits(net, data, visual), data)
    return answers + SHARE_OF_LOOKING * _looking(net, data) + SHARE_OF_SEEING * code.loss(visual, data["cells"])


TASKS = [
    "what",
    "count",
    "where",
    "relation",
    "is_relation",
    "box",
    "digits",
    "is_there",
    "shape_of",
    "difference",
    "film",
]


@torch.no_grad()
def right(net, builder, visual, seed: int, rows: int = 12) -> dict[str, float]:
    """Share of answers all of whose tokens are the likeliest ones, per task; `visual` makes the visual tokens."""
    out = {}
    for task in TASKS:
        data = collate(sequences.about(builder, random.Random(seed), task, rows), pad_id=0)
        wanted = data["labels"] != -100
        wrong = torch.zeros_like(wanted)
        wrong[wanted] = _logits(net, data, visual(data)).argmax(-1) != data["labels"][wanted]
        answers = torch.arange(len(wanted))[:, None] * 100 + data["segment"]
        every = set(answers[wanted].tolist())
        out[task] = 1 - len(set(answers[wrong].tolist())) / len(every)
    return out
