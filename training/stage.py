"""One stage of the training: a loop over batches that can be stopped and goes on where it was."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .muon import Muon


@dataclass
class Stage:
    name: str
    net: nn.Module  # what is trained, and kept
    loss: Callable  # of one batch
    batch: Callable  # (step) -> batch; called in a process of its own
    steps: int
    lr: float
    world: int = 1  # processes that share the work, each with batches of its own
    rank: int = 0
    matrix_scale: float = 1.0  # how much faster matrices learn than all else
    decay: float = 0.3  # share of the steps in which the learning rate falls to zero
    warmup: int = 100
    measure: Callable | None = None  # (batch) -> figures, now and then


class _Batches(torch.utils.data.Dataset):
    def __init__(self, make, first, steps):
        self.make, self.first, self.steps = make, first, steps

    def __len__(self):
        return self.steps - self.first

    def __getitem__(self, index):
        return self.make(self.first + index)


def optimizers(
    net: nn.Module, lr: float, matrix_scale: float = 1.0, world: int = 1, rank: int = 0
) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for all else."""
    matrices, embeddings, plain, pixels_in, sound_in = [], [], [], [], []
    for name, p in net.named_parameters():
        if "patch_embed.proj.weight" in name:
            pixels_in.append(p)
        elif "conv" in name and p.ndim == 3:
            sound_in.append(p)
        elif "embed" in name:
            embeddings.append(p)
        elif p.ndim == 2:
            matrices.append(p)
        else:
            plain.append(p)
    groups = [
        {"params": embeddings, "weight_decay": 0.05},
        {"params": plain, "weight_decay": 0.0},
        # 1536 pixels that all go up and down together: small steps add up.
        {"params": pixels_in, "weight_decay": 0.05, "scale": 0.06},
        # 384 inputs, loud and silent together.
        {"params": sound_in, "weight_decay": 0.05, "scale": 0.2},
    ]
    adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.95), fused=True)
    muon = Muon([{"params": matrices, "scale": matrix_scale}], lr=lr, weight_decay=0.05, world=world, rank=rank)
    return [muon, adam]


def rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Warm up, stay, then fall in a line to zero."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / (steps * decay)))


def exchange(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Average the gradients of all processes. Two processes with one thread each lose less time to other
    programs on the machine than one process with two threads, which must wait for each other all the time."""
    grads = [p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in grads])
    torch.distributed.all_reduce(flat)
    flat /= world
    for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))


def run(stage: Stage, work: Path) -> None:
    """Train to the end, writing the state to `work`/NAME.pt every three minutes."""
    optims = optimizers(stage.net, stage.lr, stage.matrix_scale, stage.world, stage.rank)
    parameters = [p for o in optims for group in o.param_groups for p in group["params"]]
    saved, first, seconds = work / f"{stage.name}.pt", 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=False)
        stage.net.load_state_dict(state["net"])
        for o, s in zip(optims, state["optims"], strict=True):
            o.load_state_dict(s)
        first, seconds = state["step"], state["seconds"]
    if stage.world > 1:
        torch.distributed.barrier()  # all have read it before it is written again
    batches = _Batches(stage.batch, first, stage.steps)
    data = torch.utils.data.DataLoader(
        batches, batch_size=None, num_workers=1, prefetch_factor=4, multiprocessing_context="fork"
    )
    for p in parameters:
        p.grad = torch.zeros_like(p)
    start, recent, saved_at = time.time() - seconds, [], time.time()
    for step, item in enumerate(data, first):
        factor = rate(step, stage.steps, stage.warmup, stage.decay)
        for o in optims:
            for group in o.param_groups:
                group["lr"] = stage.lr * factor * group.get("scale", 1.0)
        loss = stage.loss(item)
        loss.backward()
        if stage.world > 1:
            exchange(parameters, stage.world)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for o in optims:
            o.step()
            o.zero_grad(set_to_none=False)
        recent.append(loss.item())
        if stage.rank:
            continue
        if (step + 1) % 20 == 0:
            line = {"stage": stage.name, "step": step + 1, "loss": round(sum(recent) / len(recent), 4)}
            line |= {"norm": round(float(norm), 2), "lr": round(stage.lr * factor, 6)}
            line["seconds"] = round(time.time() - start)
            if stage.measure and (step + 1) % 100 == 0:
                line |= {k: round(v, 3) for k, v in stage.measure(item).items()}
            print(json.dumps(line), flush=True)
            recent = []
        if step + 1 == stage.steps or time.time() - saved_at > 180:
            saved_at = time.time()
            new = work / f"{stage.name}.new"
            state = {"net": stage.net.state_dict(), "optims": [o.state_dict() for o in optims]}
            torch.save(state | {"step": step + 1, "seconds": time.time() - start}, new)
            new.replace(saved)
