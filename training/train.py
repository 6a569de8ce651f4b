"""Trains tiny-vl from nothing: python -m training.train"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from . import export, fastvision, fonts, model, pixels, sequences, tokenizer
from .collate import collate, visibility
from .muon import Muon

WORK = Path(__file__).parent / "work"
SEED = 2026
WORLD = 2  # processes, one per core


def make_tokenizer() -> Tokenizer:
    """Learned from the text of generated sequences alone."""
    rng = random.Random(SEED)
    from . import corpus

    return tokenizer.train(corpus.texts(rng, 30_000))


class Steps(torch.utils.data.Dataset):
    def __init__(self, tok_path, rank, steps, first):
        self.tok_path, self.rank, self.steps, self.first = tok_path, rank, steps, first
        self.builder = None

    def __len__(self):
        return self.steps - self.first

    def __getitem__(self, index):
        if self.builder is None:
            self.builder = sequences.Builder(Tokenizer.from_file(self.tok_path))
        step = self.first + index
        # Dropout in the tokenizer draws from its own generator; everything else is seeded.
        made = sequences.batch(self.builder, SEED, step * WORLD + self.rank, step)
        return collate(made, pad_id=0)


def loss_of(net, data):
    pixel_values = None
    if data["images"]:
        pixel_values = torch.cat([pixels.patchify(im) for im in data["images"]])
    mask = torch.zeros(1, dtype=torch.bfloat16).masked_fill(~visibility(data["segment"]), -1e4)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        hidden = net.model(
            input_ids=data["ids"], attention_mask=mask,
            position_ids=data["positions"], pixel_values=pixel_values,
            image_grid_thw=data["grids"], use_cache=False,
        ).last_hidden_state
        chosen = data["labels"] != -100
        logits = net.lm_head(hidden[chosen])
    return F.cross_entropy(logits.float(), data["labels"][chosen])


def optimizers(net, lr, decay):
    matrices, rest, plain = [], [], []
    for name, p in net.named_parameters():
        if "embed" in name:
            rest.append(p)
        elif p.ndim == 2:
            matrices.append(p)
        else:
            plain.append(p)
    adam = torch.optim.AdamW(
        [{"params": rest, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}],
        lr=lr, betas=(0.9, 0.95), fused=True)
    return [Muon(matrices, lr=lr, weight_decay=decay), adam]


def rate(step, steps, warmup=100, decay=0.3):
    """Warm up, stay, then fall in a line to zero."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / (steps * decay)))


def average_gradients(net):
    """One exchange per step. Two processes with one thread each lose less time to other programs
    on the machine than one process with two threads, which must wait for each other all the time."""
    grads = [p.grad for p in net.parameters()]
    flat = torch.cat([g.flatten() for g in grads])
    torch.distributed.all_reduce(flat)
    flat /= WORLD
    for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))


def work(rank, args):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{args.work.resolve()}/meet-{args.run}", rank=rank,
        world_size=WORLD)
    fastvision.enable()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tok_path = args.work / "tokenizer.json"
    tok = Tokenizer.from_file(str(tok_path))
    net = model.build_model(tok.get_vocab_size(), tokenizer.ids(tok))
    net.model.language_model.config._attn_implementation = "plain"
    optims = optimizers(net, args.lr, 0.05)
    saved = args.work / "last.pt"
    first, seconds = 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=False)
        net.load_state_dict(state["net"])
        for o, s in zip(optims, state["optims"], strict=True):
            o.load_state_dict(s)
        first, seconds = state["step"], state["seconds"]
    torch.distributed.barrier()  # both have read it before it is written again
    data = torch.utils.data.DataLoader(
        Steps(str(tok_path), rank, args.steps, first), batch_size=None, num_workers=1,
        prefetch_factor=4)
    net.train()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    start = time.time() - seconds
    recent, saved_at = [], time.time()
    for step, item in enumerate(data, first):
        factor = rate(step, args.steps)
        for o in optims:
            for group in o.param_groups:
                group["lr"] = args.lr * factor
        loss = loss_of(net, item)
        loss.backward()
        average_gradients(net)
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for o in optims:
            o.step()
        net.zero_grad(set_to_none=False)
        recent.append(loss.item())
        if rank:
            continue
        if (step + 1) % 20 == 0:
            seconds = time.time() - start
            line = {"step": step + 1, "loss": round(sum(recent) / len(recent), 4),
                    "norm": round(float(norm), 2), "lr": round(args.lr * factor, 6),
                    "seconds": round(seconds)}
            print(json.dumps(line), flush=True)
            recent = []
        if step + 1 == args.steps or time.time() - saved_at > 180:
            saved_at = time.time()
            torch.save({"net": net.state_dict(), "optims": [o.state_dict() for o in optims],
                        "step": step + 1, "seconds": time.time() - start}, args.work / "new.pt")
            (args.work / "new.pt").replace(saved)
    if args.out and rank == 0:
        export.export(net, tok, args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=None, help="where the finished model goes")
    args = parser.parse_args()
    fonts.require()
    args.work.mkdir(parents=True, exist_ok=True)
    args.run = time.time_ns()
    if not (args.work / "tokenizer.json").exists():
        make_tokenizer().save(str(args.work / "tokenizer.json"))
    torch.multiprocessing.spawn(work, (args,), nprocs=WORLD)


if __name__ == "__main__":
    main()
