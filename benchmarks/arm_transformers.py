"""transformers' `generate`.  python arm_transformers.py CHECKPOINT"""

from __future__ import annotations

from typing import Any

from measure import arguments, first_token, tell, throughput


def main() -> None:
    """Load, answer once, then time every shape."""
    args = arguments()
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)

    def generate(prompts: list[list[int]], new_tokens: int) -> None:
        ids = torch.tensor(prompts)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
        assert out.shape == (len(prompts), ids.shape[1] + new_tokens)

    first_token(generate)
    tell("version", text=f"transformers {transformers.__version__}, torch {torch.__version__}")
    throughput(generate, rounds=args.rounds, new_tokens=args.new_tokens)


if __name__ == "__main__":
    main()
