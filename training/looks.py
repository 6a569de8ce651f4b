"""Where one has to look to say each word of an answer: in the pictures, and in the question.

A small language model takes very long to find out that the words of an answer lie in a few of the fifty visual
tokens. What the answer speaks of is known, so some attention heads are told where to look
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


# Everything the answer names is one of a list, which ends where nothing follows.
_LIST = re.compile(
    r"^The (?:picture shows|first picture shows|colors? are|color is|number is) "
    r"|^(?:图中有|图中的数字是|第一张图片中|颜色有|\w+背景上有)"
)
_SECOND = re.compile(r", the second one|，第二张")
_MOVE = re.compile(r"(?:moved from .+|从.+)( to |移到)")
_PATTERN = {lang: _pattern(lang) for lang in ("en", "zh")}


def mentions(text: str, lang: str) -> Iterator[tuple[int, int, str | None, str | None]]:
    """(start, end, colour, shape) of everything a question or an answer names."""
    for found in _PATTERN[lang].finditer(text.lower()):
        yield *found.span(), _COLOUR[lang].get(found[1] or found[3]), _SHAPE[lang].get(found[2])


def _fill(text: str, found: list[tuple], last=None) -> list[tuple]:
    """What stands between two names looks ahead to the next one, and after the last one back to it, or to `last`."""
    if not found:
        return []
    found = sorted(found)
    ends = [0, *(end for _, end, _ in found)]
    ahead = [(before, start, group) for before, (start, _, group) in zip(ends, found, strict=False)]
    return [*found, *ahead, (ends[-1], len(text), last or found[-1][2])]


def asked(text: str, lang: str, names) -> list[tuple[int, int, list[int]]]:
    """(start, end, tokens of the question) for stretches of an answer.

    `names`: (tokens, colour, shape) of everything the question names.
    """
    found = []
    for start, end, colour, shape in mentions(text, lang):
        for tokens, c, s in names:
            if (c == colour or None in (c, colour)) and (s == shape or None in (s, shape)):
                found.append((start, end, tokens))
                break
    every = sorted({token for tokens, _, _ in names for token in tokens})
    return _fill(text, found) or ([(0, len(text), every)] if every else [])


def things(views, colour: str | None, shape: str | None, among=None) -> list[int]:
    """The visual tokens of all things so named, or of those `among` (colour, shape) if there are any.

    `views` are pictures: objects with `scene`, `things` (the tokens of each thing) and `digits` (the token of each).
    """
    found = [
        (tokens, among is None or (thing.colour, thing.shape) in among)
        for view in views
        for thing, tokens in zip(view.scene.things, view.things, strict=True)
        if colour in (None, thing.colour) and shape in (None, thing.shape)
    ]
    return [token for tokens, chosen in found if chosen or not any(c for _, c in found) for token in tokens]


def looks(text: str, lang: str, views) -> list[tuple[int, int, tuple[list[int], list[int]]]]:
    """(start, end, (visual tokens, those of the thing named before)) for stretches of an answer about `views`."""
    found, among, border = [], None, len(text)
    if len(views) == 2:
        first, second = ({(t.colour, t.shape) for t in view.scene.things} for view in views)
        among = first ^ second
        border = border if (there := _SECOND.search(text)) is None else there.start()
    for start, end, colour, shape in mentions(text, lang):
        here = views if border == len(text) else views[:1] if start < border else views[1:]
        group = things(here, colour, shape, among)
        if group and len(views) == 2 and (move := _MOVE.search(text)):
            before, after = (things([view], colour, shape) for view in views)
            found += [(start, move.start(1), before), (move.start(1), len(text), after)]
        elif group:
            found.append((start, end, group))
    for view in views:
        if view.scene.number and len(here := list(re.finditer(rf"(?<!\d){view.scene.number.text}(?!\d)", text))) == 1:
            start = here[0].start()
            found += [(start + k, start + k + 1, [token]) for k, token in enumerate(view.digits)]
    found.sort()
    groups = [group for _, _, group in found]
    # The first has nothing before it; what is compared with it comes next.
    partners = [*groups[1:2], *groups[:-1]] if len(groups) > 1 else [[]]
    # The named one tells how many follow, so behind the last of a list it is the one to look at that says: none.
    last = (groups[-1], groups[-1]) if groups and _LIST.search(text) else None
    return _fill(text, [(a, b, (group, other)) for (a, b, group), other in zip(found, partners, strict=False)], last)
