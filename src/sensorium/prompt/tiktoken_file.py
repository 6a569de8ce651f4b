"""Read `qwen.tiktoken`, the vocabulary of the first Qwen models, into the tokenizer that tiktoken would make of it.

The file has one token a line: its bytes in base64, and its rank, which is also its id. The control tokens have no file:
their order stands in the authors' `tokenization_qwen.py`, which never runs here.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from sensorium.errors import ConfigurationError
from sensorium.prompt.byte_pieces import BYTE_OF_CHARACTER

NAME = "qwen.tiktoken"
# Qwen's split, also Qwen2's, whose vocab.json and merges.txt do not carry it.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
# What a model that sees writes about places in a picture. It is part of the answer, so it is not special.
_PLACES = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
_PICTURES = ("<img>", "</img>", "<imgpad>")
_CHARACTERS = {byte: ord(character) for character, byte in BYTE_OF_CHARACTER.items()}


def read_tiktoken(file: Path, *, sees: bool) -> Backend:
    """Return the tokenizer of vocabulary `file`; `sees`: with the tokens of Qwen-VL.

    Raises:
        ConfigurationError: the file cannot be read, or is not such a vocabulary.
    """
    backend = byte_level(_ranks(file))
    backend.add_special_tokens([_literal(text, special=True) for text in _CONTROL])
    if sees:
        backend.add_tokens([_literal(text, special=False) for text in _PLACES])
        backend.add_special_tokens([_literal(text, special=True) for text in _PICTURES])
    return backend


def byte_level(model: BPE) -> Backend:
    """Return a tokenizer over `model` that splits, and joins, as Qwen's do."""
    backend = Backend(model)
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _ranks(file: Path) -> BPE:
    vocab: dict[str, int] = {}  # token, a character for each byte -> rank
    try:
        for line in file.read_bytes().splitlines():
            if line:
                token, rank = line.split()
                vocab[base64.b64decode(token, validate=True).decode("latin-1").translate(_CHARACTERS)] = int(rank)
    except (OSError, ValueError, binascii.Error) as error:
        raise ConfigurationError(f"{file} is not a tiktoken vocabulary; download it again.") from error
    if sorted(vocab.values()) != list(range(len(vocab))) or not BYTE_OF_CHARACTER.keys() <= vocab.keys():
        raise ConfigurationError(f"{file} is not a whole vocabulary: ranks or single bytes are missing.")
    return BPE(vocab, _merges(vocab), ignore_merges=True)


def _merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Return the pairs that tiktoken merges, in its order.

    It joins any two neighbours whose bytes together are a token, those that make the token of lowest rank first. So
    all cuts of a token in two tokens are pairs, not only the one that made it when the vocabulary was trained.
    """
    merges: list[tuple[str, str]] = []
    for token in sorted(vocab, key=vocab.__getitem__):
        pairs = [
            (first, second)
            for at in range(1, len(token))
            if (first := token[:at]) in vocab and (second := token[at:]) in vocab
        ]
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += pairs
    return merges


def _literal(text: str, *, special: bool) -> AddedToken:
    return AddedToken(text, normalized=False, special=special)
