"""Where one has to look to say each word of an answer: in the pictures, and in the question.

A small language model takes very long to find out that the words of an answer lie in a few of the fifty visual
tokens. What the answer speaks of is known, so two attention heads are told where to look
(after Liu et al., "Neural Machine Translation with Supervised Attention", 2016).
"""

import re
from collections.abc import Iterator

from .palette import (
    ALIAS_COLOUR,
    ALIAS_SHAPE,
    ALIAS_ZH_COLOUR,
    ALIAS_ZH_SHAPE,
    COLOURS,
    SHAPES,
    ZH_COLOUR,
    ZH_SHAPE,
)


def _names(plain, aliases) -> dict[str, str]:
    """Every way to say a colour or a shape -> its own name; longer ones first, as a regex wants them."""
    names = {word: name for name, word in plain.items()}
    names |= {alias: name for name, found in aliases.items() for alias in found}
    return dict(sorted(names.items(), key=lambda item: -len(item[0])))


_COLOUR = {
    "en": _names({c: c for c in COLOURS}, ALIAS_COLOUR),
    "zh": _names(ZH_COLOUR, ALIAS_ZH_COLOUR),
}
_SHAPE = {
    "en": _names({s: s for s in SHAPES}, ALIAS_SHAPE),
    "zh": _names(ZH_SHAPE, ALIAS_ZH_SHAPE),
}


def _pattern(lang: str) -> re.Pattern:
    colour, shape = "|".join(_COLOUR[lang]), "|".join(_SHAPE[lang])
    if lang == "en":
        return re.compile(rf"\b(?:({colour}) )?({shape})(?:e?s)?\b|\b({colour})\b")
    return re.compile(rf"(?:({colour})的?)?({shape})|({colour})")


_PATTERN = {lang: _pattern(lang) for lang in ("en", "zh")}


def mentions(text: str, lang: str) -> Iterator[tuple[int, int, str | None, str | None]]:
    """(start, end, colour, shape) of everything a question or an answer names."""
    for found in _PATTERN[lang].finditer(text.lower()):
        yield *found.span(), _COLOUR[lang].get(found[1] or found[3]), _SHAPE[lang].get(found[2])


def asked(text: str, lang: str, names) -> list[tuple[int, int, list[list[int]]]]:
    """The same for the words of the question, `names`: (tokens, colour, shape) of everything it names."""
    every = sorted({token for tokens, _, _ in names for token in tokens})
    if not every:
        return []
    out = []
    for start, end, colour, shape in mentions(text, lang):
        for tokens, c, s in names:
            if (c == colour or None in (c, colour)) and (s == shape or None in (s, shape)):
                out.append((start, end, [tokens]))
                break
    return [*out, (0, len(text), [every])]


def looks(text: str, lang: str, views) -> list[tuple[int, int, list[list[int]]]]:
    """(start, end, groups of tokens) for stretches of `text`; each group of visual tokens should be looked at.

    `views` are the pictures it speaks of: objects with `scene`, `things` (the tokens of each thing) and `digits`
    (the token of each digit). A stretch without an own entry looks at everything the answer names.
    """
    out, every = [], []
    for start, end, colour, shape in mentions(text, lang):
        group = [
            token
            for view in views
            for thing, tokens in zip(view.scene.things, view.things, strict=True)
            if colour in (None, thing.colour) and shape in (None, thing.shape)
            for token in tokens
        ]
        if group:
            out.append((start, end, [group]))
            every.append(group)
    for view in views:
        if view.scene.number and len(found := list(re.finditer(rf"(?<!\d){view.scene.number.text}(?!\d)", text))) == 1:
            start = found[0].start()
            out += [(start + k, start + k + 1, [[token]]) for k, token in enumerate(view.digits)]
    if every:
        out.append((0, len(text), every))
    return out
