"""Text to token ids and back, equal to transformers' AutoTokenizer, without importing transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from sensorium.prompt.byte_pieces import DecoderKind, decoder_kind, piece_bytes
from sensorium.prompt.checkpoint import read_backend
from sensorium.prompt.plain import PlainEncoder

_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """The tokenizer of one checkpoint. Safe to use from several threads once loaded.

    Attributes:
        special_tokens: named ones, as chat templates see them: {"eos_token": "<|im_end|>", ...}.
        added_tokens: literal -> id of all added tokens, special or not.
        special_ids: ids that `decode(..., skip_special_tokens=True)` leaves out.
        vocab_size: number of ids, added tokens included (the model's embedding may be padded beyond it).
        decoder_kind: how token strings become text; see `prompt.byte_pieces`.

    Args:
        cut_at: literals between which text is tokenized part by part, each part as if it were the first; the bos token
            is one more. Those that are no tokens become tokens with ids behind all others.
    """

    def __init__(self, backend: Backend, special_tokens: dict[str, str], cut_at: Sequence[str] = ()) -> None:
        self.backend = backend
        backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in cut_at])
        cuts = [*cut_at, *([special_tokens["bos_token"]] if cut_at and "bos_token" in special_tokens else [])]
        self._cut = re.compile("(" + "|".join(map(re.escape, cuts)) + ")") if cuts else None
        self.special_tokens = special_tokens
        added = backend.get_added_tokens_decoder()
        self.added_tokens: dict[str, int] = {token.content: token_id for token_id, token in sorted(added.items())}
        named = {backend.token_to_id(text) for text in special_tokens.values()}
        self.special_ids = frozenset(i for i, token in added.items() if token.special or i in named)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.decoder_kind: DecoderKind = decoder_kind(backend)
        self._plain = PlainEncoder(backend, frozenset(added))
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def load(cls, path: Path, cut_at: Sequence[str] = ()) -> Tokenizer:
        """Read the tokenizer of checkpoint folder `path`; `cut_at` as above.

        Raises:
            ConfigurationError: files are missing or unusable; the message names them.
        """
        return cls(*read_backend(path), cut_at)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; control tokens written in it count, nothing is put before or after."""
        text = _well_formed(text)
        parts = [text] if self._cut is None else self._cut.split(text)
        return [i for part in parts for i in self._ids(part, False)]

    def encode_prompt(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Like `encode`, with the bos (or whatever the checkpoint adds) where `add_special_tokens`."""
        if self._cut is None:
            return self._ids(_well_formed(text), add_special_tokens)
        return self.with_special_tokens(self.encode(text)) if add_special_tokens else self.encode(text)

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        # `encode` of one text would keep all other threads from running, for half a second a megabyte.
        (found,) = self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = found.ids
        return ids

    def with_special_tokens(self, ids: list[int]) -> list[int]:
        """Return `ids` between what the checkpoint puts before and after every text."""
        around, bare = self.backend.encode("x").ids, self.backend.encode("x", add_special_tokens=False).ids
        before = next(at for at in range(len(around) + 1) if around[at : at + len(bare)] == bare)
        return around[:before] + ids + around[before + len(bare) :]

    @property
    def start(self) -> str:
        """What stands before every text that is encoded with special tokens: the bos token, or nothing."""
        bos = self.special_tokens.get("bos_token", "")
        return bos if self.id_of(bos) in self.backend.encode("").ids[:1] else ""

    def encode_plain(self, text: str, *, at_start: bool = True) -> list[int]:
        """Return ids of `text` in which no added token is ever recognised.

        `at_start=False`: the text follows other tokens, so SentencePiece's prefix space is not put before it
        where the checkpoint wants that only at the very start.
        """
        return self._plain.encode(_well_formed(text), at_start)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of `ids`; ids outside the vocabulary give nothing."""
        return str(self.backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes this token stands for; b"" for an id outside the vocabulary."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = piece_bytes(self.token_string(token_id), self.decoder_kind)
        return found

    def token_string(self, token_id: int) -> str:
        """Return the token as the vocabulary writes it ("Ġthe"); "" for an id outside the vocabulary."""
        return (self.backend.id_to_token(token_id) if token_id >= 0 else None) or ""

    def token_strings(self, ids: Iterable[int]) -> list[str]:
        """Return `token_string` of each id."""
        return [self.token_string(token_id) for token_id in ids]

    def id_of(self, token: str) -> int | None:
        """Return the id of a vocabulary entry, None where there is no such entry."""
        found: int | None = self.backend.token_to_id(token)
        return found

    @property
    def eos_token_id(self) -> int | None:
        """The tokenizer's own end token; generation_config.json may name more."""
        return self.id_of(self.special_tokens["eos_token"]) if "eos_token" in self.special_tokens else None

    @property
    def bos_token(self) -> str | None:
        """The literal of the beginning token, if there is one."""
        return self.special_tokens.get("bos_token")


def _well_formed(text: str) -> str:
    # JSON can carry half a surrogate pair, which has no UTF-8 form.
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
