"""Media placeholders in token ids: where they are, and as many as the encoder emits."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from sensorium.errors import InvalidRequest


def expand(
    token_ids: list[int], placeholder_ids: Mapping[str, int], items: Sequence[tuple[str, int | Sequence[int]]]
) -> tuple[list[int], list[int]]:
    """Replace the one placeholder token of each media item by what the model wants to see for it.

    Args:
        token_ids: prompt with one placeholder token per item.
        placeholder_ids: modality -> id of its placeholder token.
        items: (modality, the item's token ids, or how many placeholders it takes) in prompt order.

    Returns:
        The longer ids, and for each item the offset of its first token in them.

    Raises:
        InvalidRequest: placeholders and items differ in number or order.
    """
    kinds: dict[int, set[str]] = {}
    for kind, token_id in placeholder_ids.items():
        kinds.setdefault(token_id, set()).add(kind)
    expanded: list[int] = []
    offsets: list[int] = []
    start = 0
    for position, token_id in enumerate(token_ids):
        if token_id not in kinds:
            continue
        index = len(offsets)
        if index < len(items):
            kind, tokens = items[index]
            if kind not in kinds[token_id]:
                expected = " or ".join(sorted(kinds[token_id]))
                raise InvalidRequest(f"The prompt has a placeholder for {expected} where media item {index} is {kind}.")
            expanded += token_ids[start:position]
            offsets.append(len(expanded))
            expanded += [token_id] * tokens if isinstance(tokens, int) else tokens
            start = position + 1
        else:
            offsets.append(-1)
    if len(offsets) != len(items):
        raise InvalidRequest(
            f"The prompt has {len(offsets)} media placeholders, but {len(items)} media items were given."
        )
    return expanded + token_ids[start:], offsets


def order_in(text: str, literals: Mapping[str, Collection[str]], kinds: Sequence[str]) -> list[int]:
    """Return the numbers of media items in the order of their places in `text`.

    Items of a kind keep their order among themselves; those without a place come last.

    Args:
        literals: what stands for an item in a text -> the kinds of items that it may stand for.
        kinds: of the items.
    """
    waiting = list(range(len(kinds)))
    ordered: list[int] = []
    pattern = "|".join(map(re.escape, sorted(literals, key=len, reverse=True))) or "(?!)"
    for place in re.finditer(pattern, text):
        number = next((each for each in waiting if kinds[each] in literals[place[0]]), None)
        if number is not None:
            waiting.remove(number)
            ordered.append(number)
    return ordered + waiting


def check_counts(
    token_ids: Sequence[int], placeholder_ids: Mapping[str, int], kinds: Sequence[str], param: str
) -> None:
    """See that the prompt holds one placeholder per media item of each kind.

    Raises:
        InvalidRequest: it does not; the message has both numbers.
    """
    for kind in dict.fromkeys([*placeholder_ids, *kinds]):
        shared = {k for k, token_id in placeholder_ids.items() if token_id == placeholder_ids.get(kind, -1)} | {kind}
        given = sum(each in shared for each in kinds)
        found = token_ids.count(placeholder_ids[kind]) if kind in placeholder_ids else 0
        if found != given:
            raise InvalidRequest(
                f"The prompt has {found} {kind} placeholders, but {given} {kind} items were given. Each item needs "
                "exactly one.",
                param=param,
            )
