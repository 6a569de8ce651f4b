"""Sensorium's own engine, offline.  python arm_ours.py CHECKPOINT"""

from __future__ import annotations

from measure import BATCHES, CONTEXT, arguments, first_token, tell, throughput


def main() -> None:
    """Load, answer once, then time every shape."""
    args = arguments()
    import sensorium
    from sensorium import LLM, SamplingParams

    llm = LLM(model=args.model, dtype="bfloat16", max_model_len=CONTEXT, max_num_seqs=max(BATCHES))

    def generate(prompts: list[list[int]], new_tokens: int) -> None:
        params = SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True)
        outputs = llm.generate(prompts, params, use_tqdm=False)
        assert [len(output.outputs[0].token_ids) for output in outputs] == [new_tokens] * len(prompts)

    first_token(generate)
    tell("version", text=f"sensorium {sensorium.__version__}")
    throughput(generate, rounds=args.rounds, new_tokens=args.new_tokens)


if __name__ == "__main__":  # engines that start processes import this file again
    main()
