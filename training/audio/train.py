"""Trains tiny-audio from nothing: python -m training.audio.train

Three stages. `hear`: the tower learns what is true of every moment of a clip. `think`: the language model learns to
answer from perfect audio tokens, for which nothing has to be spoken. The two share nothing, and can run side by side.
`answer`: both learn together from sound.
"""

import argparse
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from .. import stage, tokenizer
from . import answer, corpus, export, facts, hear, model, sequences

WORK = Path(__file__).parent.parent / "work" / "audio"
SEED = 2026
VOCAB = 1024


def make_tokenizer() -> Tokenizer:
    """Learned from the text of generated questions and answers alone."""
    return tokenizer.train(corpus.texts(random.Random(SEED), 20_000), export.SPECIAL, VOCAB)


def stages(tok: Tokenizer, args) -> dict[str, stage.Stage]:
    torch.manual_seed(SEED)
    torch._dynamo.config.recompile_limit = 64  # learning and measuring are compiled apart
    net = model.build_model(tok.get_vocab_size(), tokenizer.ids(tok, export.SPECIAL)).model.train()
    answer.enable(net.language_model)
    code = facts.Code(net.config.text_config.hidden_size)
    spoken, blind = sequences.Builder(tok), sequences.Builder(tok, blind=True)
    return {
        "hear": stage.Stage(
            "hear",
            nn.ModuleDict({"tower": net.audio_tower, "projector": net.multi_modal_projector}),
            lambda data: hear.loss(net, code, data),
            lambda step: hear.batch(SEED, step),
            args.hear_steps,
            args.lr,
            warmup=40,
            measure=lambda data: code.accuracy(hear.tokens(net, data), data["facts"]),
        ),
        "think": stage.Stage(
            "think",
            net.language_model,
            lambda data: answer.loss_of_thinking(net, code, data),
            lambda step: sequences.batch(blind, SEED, 1_000_000 + step),
            args.think_steps,
            args.lr,
            matrix_scale=0.6,
            decay=0.05,  # `answer` goes on with it
            measure=lambda data: answer.right(net, blind, lambda d: answer.imagined(code, d), data["ids"].sum().item()),
        ),
        "answer": stage.Stage(
            "answer",
            net,
            lambda data: answer.loss(net, code, data),
            lambda step: sequences.batch(spoken, SEED, 2_000_000 + step),
            args.steps,
            args.lr / 2,
            matrix_scale=0.6,
            warmup=40,
            decay=0.9,
            measure=lambda data: answer.right(net, spoken, lambda d: hear.tokens(net, d), data["ids"].sum().item()),
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hear-steps", type=int, default=800)
    parser.add_argument("--think-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--only", choices=["hear", "think", "answer"], help="this stage alone")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=None, help="where the finished model goes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "tokenizer.json").exists():
        make_tokenizer().save(str(args.work / "tokenizer.json"))
    tok = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    todo = stages(tok, args)
    for name in ("hear", "think"):
        if args.only in (None, name):
            stage.run(todo[name], args.work)
    if args.only in (None, "answer"):
        for name in ("hear", "think"):
            todo[name].net.load_state_dict(torch.load(args.work / f"{name}.pt", weights_only=False)["net"])
        stage.run(todo["answer"], args.work)
        if args.out:
            export.export(todo["answer"].net, tok, args.out)


if __name__ == "__main__":
    main()
