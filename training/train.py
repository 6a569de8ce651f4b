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


def make_tokenizer() -> Tokenizer:
    """Learned from the text of generated sequences alone."""
    rng = random.Random(SEED)
    from . import corpus

    return tokenizer.train(corpus.texts(rng, 30_000))


class Steps(torch.utils.data.Dataset):
    def __init__(self, tok_path, rows, steps, first):
        self.tok_path, self.rows, self.steps, self.first = tok_path, rows, steps, first
        self.builder = None

    def __len__(self):
        return self.steps - self.first

    def __getitem__(self, index):
        if self.builder is None:
            self.builder = sequences.Builder(Tokenizer.from_file(self.tok_path))
        step = self.first + index
        # Dropout in the tokenizer draws from its own generator; everything else is seeded.
        made = sequences.batch(self.builder, SEED, step, self.rows, step / self.steps)
        return collate(made, pad_id=0)


def loss_of(net, data):
    pixel_values = None
    if data["images"]:
        pixel_values = torch.cat([pixels.patchify(im) for im in data["images"]])
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net.model(
            input_ids=data["ids"], attention_mask=visibility(data["segment"]),
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=None, help="where the finished model goes")
    args = parser.parse_args()
    fonts.require()
    fastvision.enable()
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    args.work.mkdir(parents=True, exist_ok=True)
    tok_path = args.work / "tokenizer.json"
    if not tok_path.exists():
        make_tokenizer().save(str(tok_path))
    tok = Tokenizer.from_file(str(tok_path))
    net = model.build_model(tok.get_vocab_size(), tokenizer.ids(tok))
    optims = optimizers(net, args.lr, 0.05)
    saved = args.work / "last.pt"
    first, seconds = 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=False)
        net.load_state_dict(state["net"])
        for o, s in zip(optims, state["optims"], strict=True):
            o.load_state_dict(s)
        first, seconds = state["step"], state["seconds"]
    data = torch.utils.data.DataLoader(
        Steps(str(tok_path), args.rows, args.steps, first), batch_size=None, num_workers=2,
        prefetch_factor=3)
    net.train()
    start = time.time() - seconds
    recent, saved_at = [], time.time()
    for step, item in enumerate(data, first):
        factor = rate(step, args.steps)
        for o in optims:
            for group in o.param_groups:
                group["lr"] = args.lr * factor
        loss = loss_of(net, item)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for o in optims:
            o.step()
        net.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if (step + 1) % 20 == 0:
            seconds = time.time() - start
            line = {"step": step + 1, "loss": round(sum(recent) / len(recent), 4),
                    "norm": round(float(norm), 2), "lr": round(args.lr * factor, 6),
                    "seconds": round(seconds)}
            print(json.dumps(line), flush=True)
            recent = []
        if step + 1 == args.steps or time.time() - saved_at > 240:
            saved_at = time.time()
            torch.save({"net": net.state_dict(), "optims": [o.state_dict() for o in optims],
                        "step": step + 1, "seconds": time.time() - start}, args.work / "new.pt")
            (args.work / "new.pt").replace(saved)
    if args.out:
        export.export(net, tok, args.out)


if __name__ == "__main__":
    main()
