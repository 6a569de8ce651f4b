"""llama.cpp by its low-level API: one decode call a step for the whole batch.  LLAMA_PYTHON arm_llamacpp.py FILE.gguf

Each token is picked greedily from the returned logits, as in the other arms.
"""

from __future__ import annotations

import os

from measure import CONTEXT, arguments, first_token, tell, throughput

NUM_BATCH = 2048  # tokens of one llama_decode call
SLACK = 128  # KV cells beyond the prompt, a sequence


def main() -> None:
    """Load, answer once, then time every shape."""
    args = arguments()
    import llama_cpp as lib  # type: ignore[import-not-found]
    import numpy as np

    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(args.model.encode(), lib.llama_model_default_params())
    assert model, f"llama.cpp cannot load {args.model}"
    vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    batch = lib.llama_batch_init(NUM_BATCH, 0, 1)
    context = None
    shape = (0, 0)

    def fit(num_seqs: int, num_tokens: int) -> None:
        """Have a context for `num_seqs` sequences of `num_tokens` and SLACK more; keep it while the shape stays."""
        nonlocal context, shape
        if shape != (num_seqs, num_tokens):
            if context is not None:
                lib.llama_free(context)
            params = lib.llama_context_default_params()
            params.n_seq_max = num_seqs
            params.n_ctx = max(CONTEXT, num_seqs * (num_tokens + SLACK))
            params.n_batch = NUM_BATCH
            params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
            context = lib.llama_init_from_model(model, params)
            shape = (num_seqs, num_tokens)
        lib.llama_memory_clear(lib.llama_get_memory(context), True)

    def decode(items: list[tuple[int, int, int, bool]]) -> None:
        """One forward pass over (token, position, sequence, want its logits)."""
        batch.n_tokens = len(items)
        for i, (token, position, seq, want_logits) in enumerate(items):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, want_logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, seq
        assert lib.llama_decode(context, batch) == 0, "llama_decode failed"

    def greedy(row: int) -> int:
        return int(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, row), (vocab_size,)).argmax())

    def generate(prompts: list[list[int]], new_tokens: int) -> None:
        length = len(prompts[0])
        fit(len(prompts), length)
        items = [(ids[p], p, seq, p == length - 1) for seq, ids in enumerate(prompts) for p in range(length)]
        assert len(items) <= NUM_BATCH  # the prompts of every shape go through in one call
        decode(items)
        tokens = [greedy((seq + 1) * length - 1) for seq in range(len(prompts))]
        for position in range(length, length + new_tokens - 1):
            decode([(token, position, seq, True) for seq, token in enumerate(tokens)])
            tokens = [greedy(seq) for seq in range(len(prompts))]

    first_token(generate)
    tell("version", text=f"llama-cpp-python {lib.__version__}")
    throughput(generate, rounds=args.rounds, new_tokens=args.new_tokens)


if __name__ == "__main__":
    main()
