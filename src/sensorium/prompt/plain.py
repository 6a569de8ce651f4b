"""Encode text in which no added token is ever recognised, with the checkpoint's own normaliser and model."""

from __future__ import annotations

from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import PreTokenizer


class PlainEncoder:
    """The pipeline of `backend` without its added tokens.

    The steps are called one by one (normalise, split, model), as transformers does for sanitised chats, because
    a second tokenizer without added tokens would double load time and memory.
    """

    def __init__(self, backend: Backend, added_ids: frozenset[int]) -> None:
        self._backend = backend
        self._added_ids = added_ids
        self._inner: PreTokenizer | None = None

    def encode(self, text: str, at_start: bool) -> list[int]:
        """Return ids of `text`, none of them an added token of two characters or more."""
        ids = self._pieces(text, at_start)
        if self._added_ids.isdisjoint(ids):
            return ids
        # A model that holds its control tokens as ordinary pieces (Unigram, ignore_merges) may build one from
        # text. Character by character it cannot.
        ids = []
        for index, character in enumerate(text):
            ids += self._pieces(character, at_start and index == 0)
        return ids

    def _pieces(self, text: str, at_start: bool) -> list[int]:
        if not text:
            return []
        backend = self._backend
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        pieces = [text]
        if backend.pre_tokenizer is not None:
            split = backend.pre_tokenizer if at_start else self._not_first()
            pieces = [piece for piece, _ in split.pre_tokenize_str(text)]
        return [token.id for piece in pieces for token in backend.model.tokenize(piece)]

    def _not_first(self) -> PreTokenizer:
        """Return the pre-tokenizer as it behaves after other tokens: Metaspace's "first" puts no space there."""
        if self._inner is None:
            current = self._backend.pre_tokenizer
            state = current.__getstate__()
            self._inner = current
            if b'"prepend_scheme":"first"' in state:
                kind = type(current)
                self._inner = kind([]) if kind.__name__ == "Sequence" else kind()
                self._inner.__setstate__(state.replace(b'"prepend_scheme":"first"', b'"prepend_scheme":"never"'))
        return self._inner
