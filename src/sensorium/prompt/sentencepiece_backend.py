"""A SentencePiece model file as a `tokenizers.Tokenizer` that gives the same ids.

Byte-pair models become merges, best score first; a piece that can be put together in several ways has a merge for
each, of which SentencePiece takes the leftmost and `tokenizers` the first listed; in unigram models, of two ways that
are equally likely, each may take another. Control, unknown and byte pieces are
no part of any text: in byte-pair models they have no merges, in unigram models text is cut inside their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram

from sensorium.errors import ConfigurationError
from sensorium.prompt.sentencepiece_file import MARK, Piece, PieceType, SentencePieceFile, read_sentencepiece

_FROM_TEXT = (PieceType.NORMAL, PieceType.USER_DEFINED, PieceType.UNUSED)


def read_sentencepiece_backend(
    path: Path, renamed: Mapping[int, str], *, legacy: bool, prefix: bool, strip: bool
) -> tuple[Backend, dict[str, str]]:
    """Build the tokenizer of model file `path`.

    Args:
        renamed: id -> literal that tokenizer_config.json or added_tokens.json gives it. InternLM2's control tokens
            lie on pieces that the model file calls [UNUSED_TOKEN_...].
        legacy: every stretch of text between added tokens is a text of its own, with its own blank in front where the
            file wants one; otherwise only the very start has one, and where `prefix` whatever the file says.
        strip: decoding drops a blank at the front, also where the file adds none.

    Returns:
        The tokenizer, and the names the file has for "unk_token", "bos_token", "eos_token" and "pad_token".

    Raises:
        ConfigurationError: the file cannot be read, or is of a kind that is not supported.
    """
    file = read_sentencepiece(path)
    if file.kind not in ("bpe", "unigram") or file.suffix:
        what = "with marks behind words" if file.suffix else f"of the kind {file.kind!r}"
        raise ConfigurationError(f"{path} is a SentencePiece model {what}; supported: bpe and unigram, marks in front.")
    pieces = [
        Piece(renamed.get(i, p.text), p.score, PieceType.CONTROL if i in renamed else p.type)
        for i, p in enumerate(file.pieces)
    ]
    if file.kind == "bpe":
        backend = Backend(_bpe(file, pieces))
    else:
        vocab = [(piece.text, piece.score) for piece in pieces]
        backend = Backend(Unigram(vocab, unk_id=file.ids["unk"], byte_fallback=file.byte_fallback))
    before = file.add_dummy_prefix if legacy else prefix
    backend.normalizer = _normalizer(file, before and legacy)
    splits = [*_cuts(file.kind, pieces)]
    if not legacy:
        splits += [pre_tokenizers.Metaspace(MARK, prepend_scheme="first" if before else "never", split=False)]
    if splits:
        backend.pre_tokenizer = pre_tokenizers.Sequence(splits) if len(splits) > 1 else splits[0]
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if before or strip else steps)
    literals = [piece.text for piece in pieces if _is_literal(piece)]
    backend.add_tokens([AddedToken(text, normalized=False, special=False) for text in literals])
    names = {f"{name}_token": pieces[i].text for name, i in file.ids.items() if 0 <= i < len(pieces)}
    return backend, names


def _bpe(file: SentencePieceFile, pieces: list[Piece]) -> BPE:
    vocab = {piece.text: index for index, piece in enumerate(pieces)}
    return BPE(
        vocab,
        list(_merges(pieces)),
        unk_token=pieces[file.ids["unk"]].text if file.ids["unk"] >= 0 else None,
        fuse_unk=True,
        byte_fallback=file.byte_fallback,
    )


def _merges(pieces: list[Piece]) -> Iterator[tuple[str, str]]:
    """Every way to put a piece together from two others, best piece first; runs of blanks before all."""
    usable = {piece.text: index for index, piece in enumerate(pieces) if piece.type in _FROM_TEXT}
    order = sorted(
        (piece for piece in pieces if piece.type in _FROM_TEXT and not _is_literal(piece)),
        key=lambda piece: (not _is_run(piece), -piece.score),
    )
    for piece in order:
        cuts = [(piece.text[:at], piece.text[at:]) for at in range(1, len(piece.text))]
        possible = [(left, right) for left, right in cuts if left in usable and right in usable]
        yield from sorted(possible, key=lambda pair: (usable[pair[0]], usable[pair[1]]))


def _normalizer(file: SentencePieceFile, prepend: bool) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(file.charsmap)] if file.charsmap else []
    if file.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(rf"\A +|[ {MARK}]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    steps += [normalizers.Prepend(MARK)] if prepend else []
    return normalizers.Sequence([*steps, normalizers.Replace(" ", MARK)])


def _is_run(piece: Piece) -> bool:
    """Whether it is a user-defined run of blanks or line ends, which is text, and no control token."""
    return piece.type == PieceType.USER_DEFINED and not piece.text.replace(MARK, " ").strip()


def _is_literal(piece: Piece) -> bool:
    """Whether it is a user-defined piece that is found in text whole."""
    return piece.type == PieceType.USER_DEFINED and len(piece.text) > 1 and not _is_run(piece)


def _cuts(kind: str, pieces: list[Piece]) -> Iterator[pre_tokenizers.PreTokenizer]:
    """Where text is cut before the model sees it."""
    runs = sorted((piece.text for piece in pieces if _is_run(piece) and len(piece.text) > 1), key=len, reverse=True)
    if runs:  # found before anything else, longest first
        yield pre_tokenizers.Split(Regex("|".join(runs)), behavior="isolated")
    names = [piece.text for piece in pieces if piece.type not in _FROM_TEXT and len(piece.text) > 1]
    if kind == "unigram" and names:
        inside = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
        yield pre_tokenizers.Split(Regex(inside), behavior="merged_with_previous")
