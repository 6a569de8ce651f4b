"""Trains tiny-vl from nothing: python -m training.train

Five stages. `see`: the visual tower learns what lies in every cell of a picture. `think`: the language model
learns to answer from perfect visual tokens, for which nothing has to be drawn. The two share nothing and run side
by side, one core each. `sharpen`: the tower goes on, on both cores. `practise`: the language model goes on with what
the visual tower really sees, which stays as it is. `answer`: both learn together. With `--start` the last three go on
from a model that has been trained before.
"""

import argparse
import os
import random
import time
from datetime import timedelta
from pathlib import Path

import torch
from tokenizers import Tokenizer

from . import answer, corpus, dense, export, fastvision, fonts, handwriting, model, see, sequences, stage, tokenizer
from .draw import render
from .pixels import resize
from .scenes import invent

WORK = Path(__file__).parent / "work"
SEED = 2026
WORLD = 2  # processes, one per core
EASE_IS_OVER = 1_000_000
# For glibc: keep freed memory for the next tensor. Pages that come anew are zeroed first, a tenth of a step's time.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def make_tokenizer() -> Tokenizer:
    """Learned from the text of generated sequences alone."""
    return tokenizer.train(corpus.texts(random.Random(SEED), 30_000))


def build(tok: Tokenizer):
    """The untrained model; its first filters fit pictures of the kind it will see."""
    torch.manual_seed(SEED)
    torch._dynamo.config.recompile_limit = 64  # learning and measuring are compiled apart
    rng = random.Random(SEED)
    sample = [resize(render(invent(rng, 224, 224, kind))) for kind in ["shapes", "number"] * 100]
    net = model.build_model(tok.get_vocab_size(), tokenizer.ids(tok), sample).train()
    net.model.language_model.config._attn_implementation = "plain"
    for i, layer in enumerate(net.model.language_model.layers):
        if i not in fastvision.LAYERS:
            layer.compile(dynamic=True)  # a quarter less time; the visual tower gains nothing
    return net


def stages(tok: Tokenizer, args, rank: int) -> dict[str, stage.Stage]:
    net = build(tok)
    code = dense.Code(net.config.text_config.hidden_size)
    drawn, blind = sequences.Builder(tok), sequences.Builder(tok, blind=True)
    return {
        "see": stage.Stage(
            "see",
            net.model.visual,
            lambda data: see.loss(net, code, data),
            lambda step: see.batch(drawn, args.seed, step),
            args.see_steps,
            args.lr,
            measure=lambda data: code.accuracy(see.features(net, data), data["cells"]),
        ),
        "sharpen": stage.Stage(
            "sharpen",
            net.model.visual,
            lambda data: see.loss(net, code, data),
            lambda step: see.batch(drawn, args.seed, EASE_IS_OVER + step * WORLD + rank, 32),
            args.sharpen_steps,
            args.sharpen_lr or args.lr,
            decay=0.7,
            world=WORLD,
            rank=rank,
            measure=lambda data: code.accuracy(see.features(net, data), data["cells"]),
        ),
        "think": stage.Stage(
            "think",
            net.model.language_model,
            lambda data: answer.loss_of_thinking(net, code, data),
            lambda step: answer.batch(blind, args.seed, 1_000_000 + step, step),
            args.think_steps,
            args.lr,
            matrix_scale=0.6,
            decay=0.01,  # `practise` goes on with it
            measure=lambda data: answer.right(net, blind, lambda d: answer.imagined(code, d), data["ids"].sum().item()),
        ),
        "practise": stage.Stage(
            "practise",
            net.model.language_model,
            lambda data: answer.loss_of_practising(net, data),
            lambda step: answer.batch(drawn, args.seed, 2_000_000 + step * WORLD + rank, EASE_IS_OVER),
            args.practise_steps,
            args.lr,
            matrix_scale=0.6,
            decay=0.15,  # `answer` goes on with it
            world=WORLD,
            rank=rank,
            measure=lambda data: answer.right(net, drawn, lambda d: see.features(net, d), data["ids"].sum().item()),
        ),
        "answer": stage.Stage(
            "answer",
            net,
            lambda data: answer.loss(net, code, data),
            lambda step: answer.batch(drawn, args.seed, 3_000_000 + step * WORLD + rank, EASE_IS_OVER),
            args.steps,
            args.lr / 2,
            matrix_scale=0.6,
            warmup=50,
            decay=0.9,
            world=WORLD,
            rank=rank,
            measure=lambda data: answer.right(net, drawn, lambda d: see.features(net, d), data["ids"].sum().item()),
        ),
    }


def work(rank, args):
    torch.set_num_threads(1)
    fastvision.enable()
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{args.work.resolve()}/meet-{args.run}",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(hours=2),  # the first two stages do not take equally long
    )
    tok = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    todo = stages(tok, args, rank)
    if args.start:
        net = todo["answer"].net
        net.load_state_dict(model.grown(torch.load(args.start, weights_only=False)["net"], net))
    else:
        stage.run(todo["see" if rank == 0 else "think"], args.work)
        torch.distributed.barrier()
        for name in ("see", "think"):
            todo[name].net.load_state_dict(torch.load(args.work / f"{name}.pt", weights_only=False)["net"])
    for name in ("sharpen", "practise", "answer"):
        stage.run(todo[name], args.work)
    if args.out and rank == 0:
        export.export(todo["answer"].net, tok, args.out)


def alone(args):
    """One of the first two stages, by itself."""
    torch.set_num_threads(1)
    fastvision.enable()
    tok = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    stage.run(stages(tok, args, 0)[args.only], args.work)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--see-steps", type=int, default=1300)
    parser.add_argument("--think-steps", type=int, default=2250)
    parser.add_argument("--sharpen-steps", type=int, default=1350)
    parser.add_argument("--practise-steps", type=int, default=700)
    parser.add_argument("--steps", type=int, default=750)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--sharpen-lr", type=float, help="of sharpen, if not --lr; less for few steps from --start")
    parser.add_argument("--seed", type=int, default=SEED, help="of the pictures and questions")
    parser.add_argument("--only", choices=["see", "think"], help="this stage alone")
    parser.add_argument("--start", type=Path, help="the answer.pt of an earlier training, instead of see and think")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=None, help="where the finished model goes")
    args = parser.parse_args()
    fonts.require()
    handwriting.require()
    args.work.mkdir(parents=True, exist_ok=True)
    args.run = time.time_ns()
    if not (args.work / "tokenizer.json").exists():
        make_tokenizer().save(str(args.work / "tokenizer.json"))
    if args.only:
        alone(args)
    else:
        os.environ |= MALLOC  # of the processes started now
        torch.multiprocessing.spawn(work, (args,), nprocs=WORLD)


if __name__ == "__main__":
    main()
