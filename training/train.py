"""Trains tiny-vl from nothing: python -m training.train"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from . import dense, export, fastvision, fonts, model, pixels, sequences, tokenizer
from .collate import collate, visibility
from .muon import Muon

WORK = Path(__file__).parent / "work"
SEED = 2026
CALMER_FROM = 300  # step of the second stage from which the learning rate is halved
WORLD = 2  # processes, one per core


def make_tokenizer() -> Tokenizer:
    """Learned from the text of generated sequences alone."""
    rng = random.Random(SEED)
    from . import corpus

    return tokenizer.train(corpus.texts(rng, 30_000))


class Steps(torch.utils.data.Dataset):
    def __init__(self, stage, tok_path, rank, steps, first):
        self.stage, self.tok_path, self.rank = stage, tok_path, rank
        self.steps, self.first = steps, first
        self.builder = None

    def __len__(self):
        return self.steps - self.first

    def __getitem__(self, index):
        if self.builder is None:
            self.builder = sequences.Builder(Tokenizer.from_file(self.tok_path))
        step = self.first + index
        # Dropout in the tokenizer draws from its own generator; everything else is seeded.
        make = sequences.pictures if self.stage == "see" else sequences.batch
        return collate(make(self.builder, SEED, step * WORLD + self.rank, step), pad_id=0)


def pixel_values(data):
    return torch.cat([pixels.patchify(im) for im in data["images"]]) if data["images"] else None


def loss_of_seeing(net, heads, data):
    with torch.autocast("cpu", torch.bfloat16):
        features = net.model.visual(pixel_values(data), data["grids"]).pooler_output
    return heads(features, *data["cells"])


def loss_of_answers(net, heads, data):
    """Answers, plus a share of the dense loss: what was learned first must not be forgotten."""
    mask = torch.zeros(1, dtype=torch.bfloat16).masked_fill(~visibility(data["segment"]), -1e4)
    seen = []
    hook = net.model.visual.merger.register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net.model(
            input_ids=data["ids"],
            attention_mask=mask,
            position_ids=data["positions"],
            pixel_values=pixel_values(data),
            image_grid_thw=data["grids"],
            use_cache=False,
        ).last_hidden_state
        chosen = data["labels"] != -100
        logits = net.lm_head(hidden[chosen])
    hook.remove()
    answer = F.cross_entropy(logits.float(), data["labels"][chosen])
    dense_loss = heads(seen[0], *data["cells"]) if seen else torch.zeros(())
    return answer + 0.15 * dense_loss, answer


def optimizers(net, heads, lr, decay):
    matrices, rest, plain, pixels_in = [], [], list(heads.parameters()), []
    for name, p in net.named_parameters():
        if "patch_embed.proj.weight" in name:
            pixels_in.append(p)
        elif "embed" in name:
            rest.append(p)
        elif p.ndim == 2:
            matrices.append(p)
        else:
            plain.append(p)
    adam = torch.optim.AdamW(
        [
            {"params": rest, "weight_decay": decay},
            {"params": plain, "weight_decay": 0.0},
            # 1536 pixels that all go up and down together: small steps add up.
            {"params": pixels_in, "weight_decay": decay, "scale": 0.06},
        ],
        lr=lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    return [Muon(matrices, lr=lr, weight_decay=decay), adam]


def rate(step, steps, warmup=100, decay=0.3):
    """Warm up, stay, then fall in a line to zero."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / (steps * decay)))


def average_gradients(parameters):
    """One exchange per step. Two processes with one thread each lose less time to other programs
    on the machine than one process with two threads, which must wait for each other all the time."""
    grads = [p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in grads])
    torch.distributed.all_reduce(flat)
    flat /= WORLD
    for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))


def run_stage(stage, rank, args, net, heads):
    """`see`: the visual tower alone learns the dense labels. `answer`: everything learns to answer."""
    steps = args.see_steps if stage == "see" else args.steps
    module = net.model.visual if stage == "see" else net
    optims = optimizers(module, heads, args.lr, 0.05)
    parameters = [p for o in optims for group in o.param_groups for p in group["params"]]
    saved = args.work / f"{stage}.pt"
    first, seconds = 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=False)
        net.load_state_dict(state["net"])
        heads.load_state_dict(state["heads"])
        for o, s in zip(optims, state["optims"], strict=True):
            o.load_state_dict(s)
        first, seconds = state["step"], state["seconds"]
    torch.distributed.barrier()  # both have read it before it is written again
    data = torch.utils.data.DataLoader(
        Steps(stage, str(args.work / "tokenizer.json"), rank, steps, first),
        batch_size=None,
        num_workers=1,
        prefetch_factor=4,
    )
    for p in parameters:
        p.grad = torch.zeros_like(p)
    start = time.time() - seconds
    recent, saved_at = [], time.time()
    for step, item in enumerate(data, first):
        factor = rate(step, steps) * (0.5 if stage == "answer" and step >= CALMER_FROM else 1.0)
        for o in optims:
            for group in o.param_groups:
                group["lr"] = args.lr * factor * group.get("scale", 1.0)
        if stage == "see":
            loss = shown = loss_of_seeing(net, heads, item)
        else:
            loss, shown = loss_of_answers(net, heads, item)
        loss.backward()
        average_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for o in optims:
            o.step()
            o.zero_grad(set_to_none=False)
        recent.append((shown.item(), loss.item()))
        if rank:
            continue
        if (step + 1) % 20 == 0:
            seconds = time.time() - start
            shown, loss = (round(sum(r[i] for r in recent) / len(recent), 4) for i in (0, 1))
            line = {
                "stage": stage,
                "step": step + 1,
                "loss": shown,
                "with dense": loss,
                "norm": round(float(norm), 2),
                "lr": round(args.lr * factor, 6),
                "seconds": round(seconds),
            }
            print(json.dumps(line), flush=True)
            recent = []
        if step + 1 == steps or time.time() - saved_at > 180:
            saved_at = time.time()
            new = args.work / "new.pt"
            torch.save(
                {
                    "net": net.state_dict(),
                    "heads": heads.state_dict(),
                    "optims": [o.state_dict() for o in optims],
                    "step": step + 1,
                    "seconds": time.time() - start,
                },
                new,
            )
            new.replace(saved)


def work(rank, args):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{args.work.resolve()}/meet-{args.run}", rank=rank, world_size=WORLD
    )
    fastvision.enable()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tok = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    sample = sequences.pictures(sequences.Builder(tok), SEED, -1, 10_000)
    net = model.build_model(tok.get_vocab_size(), tokenizer.ids(tok), [im for s in sample for im in s.images]).train()
    net.model.language_model.config._attn_implementation = "plain"
    heads = dense.Heads(net.config.text_config.hidden_size)
    if not (args.work / "answer.pt").exists():
        run_stage("see", rank, args, net, heads)
    run_stage("answer", rank, args, net, heads)
    if args.out and rank == 0:
        export.export(net, tok, args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--see-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--lr", type=float, default=3e-3)
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
