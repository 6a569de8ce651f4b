"""One sequence on a model of the transformers library: the prompt, then token by token, with its KV cache.

`generate` of the library prepares inputs, cache and the checkpoint's own logits processors, then calls the decoding
loop it is given. Ours returns after the prompt, and the engine takes the further steps when it wants them.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Any

import torch

from sensorium.hf.prompting import LibraryPrompt

log = logging.getLogger(__name__)

# Sampling is the request's business (with the checkpoint's defaults filled in long before): here it is off.
_NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "temperature": None,
    "top_k": None,
    "top_p": None,
    "min_p": None,
    "typical_p": None,
    "epsilon_cutoff": None,
    "eta_cutoff": None,
    "top_h": None,
    "repetition_penalty": 1.0,
    "num_return_sequences": 1,
    "max_length": None,
    "max_time": None,
    "stop_strings": None,
    "cache_implementation": None,
    "return_dict_in_generate": False,
    "use_cache": True,
    "disable_compile": True,
}


@dataclass
class Decoding:
    """A sequence under way.

    Attributes:
        input_ids: (1, n) prompt and output.
        arguments: of the model's next call: the cache, masks, positions.
        rules: what generation_config.json asks for beside sampling (banned tokens, repeated n-grams ...).
        logits: (1, vocab_size) of the next token, as the model gave them.
    """

    model: Any
    input_ids: torch.Tensor
    arguments: dict[str, Any]
    rules: Any
    logits: torch.Tensor

    def scores(self) -> torch.Tensor:
        """(1, vocab_size) float32, a copy, after the checkpoint's own rules."""
        scores = self.logits.to(torch.float32, copy=True)
        return self.rules(self.input_ids, scores) if self.rules else scores

    def fork(self) -> Decoding:
        """Return another that goes on from here by itself."""
        own = {k: v if isinstance(v, torch.Tensor) else copy.deepcopy(v) for k, v in self.arguments.items()}
        return Decoding(self.model, self.input_ids, own, copy.deepcopy(self.rules), self.logits)

    def push(self, token_id: int) -> None:
        """Add a token and compute what follows it."""
        new = torch.tensor([[token_id]], device=self.input_ids.device)
        self.input_ids = torch.cat([self.input_ids, new], -1)
        inputs = self.model.prepare_inputs_for_generation(
            self.input_ids,
            next_sequence_length=1 if self.arguments.get("use_cache") else None,
            **self.arguments,
        )
        self._take(self.model(**inputs, return_dict=True))

    def _take(self, outputs: Any) -> None:
        self.logits = outputs.logits[:, -1].clone()  # a view would keep the logits of the whole prompt alive
        self.arguments = self.model._update_model_kwargs_for_generation(
            outputs, self.arguments, is_encoder_decoder=False
        )


def make_neutral(model: Any) -> None:
    """Take what the request decides out of the model's generation config; the log tells what is not followed."""
    config = model.generation_config
    if (config.num_beams or 1) > 1:
        log.warning(
            "generation_config.json asks for beam search (num_beams %d); answers are sampled.", config.num_beams
        )
    for name, value in (_NEUTRAL | {"num_beams": 1}).items():
        setattr(config, name, value)


def begin(model: Any, prompt: LibraryPrompt, max_tokens: int) -> Decoding:
    """Compute a prompt; `logits` are then those of the first token of the answer.

    Raises:
        Exception: whatever the model raises for these inputs.
    """
    ids = torch.tensor([prompt.token_ids], device=model.device)
    inputs = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in prompt.inputs_by_name.items()
    }
    config = copy.deepcopy(model.generation_config)
    config.max_new_tokens = max_tokens
    decoding: Decoding = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),  # without one, pad tokens that a prompt has would be masked
        generation_config=config,
        custom_generate=_prefill,
        **inputs,
    )
    return decoding


def _prefill(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **model_kwargs: Any,
) -> Decoding:
    for name in ("synced_gpus", "streamer"):
        model_kwargs.pop(name, None)
    inputs = model.prepare_inputs_for_generation(
        input_ids, next_sequence_length=None, is_first_iteration=True, **model_kwargs
    )
    decoding = Decoding(model, input_ids, model_kwargs, logits_processor, torch.empty(0))
    decoding._take(model(**inputs, return_dict=True))
    return decoding
