"""The checkpoint's own processor, asked so that the client's text cannot become control tokens.

A processor writes as many placeholders as a picture needs into the prompt's text and tokenizes all of it. Stretches
of client text that would read as control tokens are therefore taken out first: one stand-in token, unknown to
everybody, holds the place of each, and what it stood for is put back in token ids.

Processors take videos and sounds in the same call (`videos`, `audio`); they would come in here.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import AddedToken

_PER_TOKEN = ("mask", "type_ids")  # ends of the names of inputs that have one entry a token in dimension 1
_UNUSED = ("attention_mask", "labels")


@dataclass(frozen=True)
class Processed:
    """Token ids with every placeholder, and the model's other inputs: tensors with a batch dimension of 1."""

    token_ids: list[int]
    inputs: dict[str, torch.Tensor]


class PictureProcessor:
    """Wraps a processor of the transformers library, and changes its tokenizer. Thread-safe."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._turn = threading.Lock()  # tokenizers of the library are not safe to share
        self._stand_in = f"<|{secrets.token_hex(16)}|>"
        processor.tokenizer.add_tokens([AddedToken(self._stand_in, normalized=False, special=True)])
        self._stand_in_id: int = processor.tokenizer.convert_tokens_to_ids(self._stand_in)

    def __call__(
        self,
        text: str,
        foreign: Sequence[tuple[int, int, list[int]]],
        pictures: Iterable[npt.NDArray[np.uint8]],
        *,
        add_special_tokens: bool,
    ) -> Processed:
        """Return the inputs for `text` with its pictures.

        Args:
            text: the prompt, with one placeholder for each picture.
            foreign: (start, end, ids): where text[start:end] is to be encoded as `ids`, in order.
            pictures: (height, width, 3) RGB.

        Raises:
            Exception: whatever the processor raises for pictures or text it does not take.
        """
        images = [Image.fromarray(pixels) for pixels in pictures]
        with self._turn:
            features = self._processor(
                text=[self._without(text, foreign)],
                images=[images],
                return_tensors="pt",
                add_special_tokens=add_special_tokens,
            )
        ids: list[int] = features["input_ids"][0].tolist()
        runs = iter([run for *_, run in foreign])
        pieces = [next(runs) if token_id == self._stand_in_id else [token_id] for token_id in ids]
        if next(runs, None) is not None:
            raise ValueError("the processor left out a part of the prompt")
        counts = torch.tensor([len(piece) for piece in pieces])
        inputs = {}
        for name, value in features.items():
            if name == "input_ids" or name in _UNUSED or not isinstance(value, torch.Tensor):
                continue
            per_token = name.endswith(_PER_TOKEN) and value.ndim > 1 and value.shape[1] == len(ids)
            inputs[name] = value.repeat_interleave(counts, 1) if foreign and per_token else value
        return Processed([token_id for piece in pieces for token_id in piece], inputs)

    def _without(self, text: str, foreign: Sequence[tuple[int, int, list[int]]]) -> str:
        pieces, last = [], 0
        for start, end, _ in foreign:
            pieces += [text[last:start], self._stand_in]
            last = end
        return "".join([*pieces, text[last:]])
