"""Media tags in text, found and cut out before anything is tokenized.

    <img>X</img>  <audio>X</audio>  <video>X</video>    an item: X is its URL, path or base64
    <image>  <img/>  <audio>  <video>                   the place of an item that is listed elsewhere

People also write about HTML. So half a pair is plain text unless an address follows it, and so is a pair of <audio> or
<video> with words between; a pair of <img>, which HTML does not have, never is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sensorium.errors import InvalidRequest
from sensorium.types import Modality

PAIRS: dict[str, Modality] = {"img": "image", "audio": "audio", "video": "video"}
PLACES: dict[str, Modality] = {"<image>": "image", "<img/>": "image", "<audio>": "audio", "<video>": "video"}
MAX_TAGS = 20_000  # in one text; looking for them is the gateway's work
_KINDS = PLACES | {f"{mark}{name}>": kind for name, kind in PAIRS.items() for mark in ("<", "</")}
_TAG = re.compile("|".join(map(re.escape, _KINDS)))
_ADDRESS = re.compile(
    r"\s*(?:https?://|file:/|data:[\w/+.-]*[;,]|[\w+/=-]{60,}"  # a line of base64 has 60 characters or more
    r"|[^\s<>]+\.(?:jpe?g|png|gif|webp|bmp|mp4|webm|mkv|avi|mov|wav|mp3|flac|ogg|m4a)\b)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Item:
    """A pair of tags: an item, with what stands between them."""

    kind: Modality
    tag: str  # "<img>"
    url: str


@dataclass(frozen=True)
class Place:
    """A tag that stands for an item listed elsewhere; `at` is its first character in the text."""

    kind: Modality
    tag: str
    at: int


def cut(
    text: str, where: str, *, pairs: bool = True, strict: bool = False, only: Modality | None = None
) -> Iterator[str | Item | Place]:
    """Yield the pieces of `text`: its plain text, and its tags.

    Args:
        where: the path of `text`, for errors.
        pairs: look for pairs too, not only for places.
        strict: half a pair of <img> is an error whatever follows.
        only: tags of other kinds are text.

    Raises:
        InvalidRequest: a pair is not closed, not opened, or empty, or there are more than MAX_TAGS.
    """
    done = 0
    for number, match in enumerate(_TAG.finditer(text) if "<" in text else ()):
        tag, start = match[0], match.start()
        if number >= MAX_TAGS:
            raise InvalidRequest(f"`{where}` has more than {MAX_TAGS:,} media tags; send fewer.", param=where)
        if start < done or only not in (None, _KINDS[tag]):  # the end of a pair, or not wanted
            continue
        item = _item(text, match, where, strict) if pairs else None
        if item is not None:
            inside, done_after = item
            yield text[done:start]
            yield Item(PAIRS[tag[1:-1]], tag, inside)
            done = done_after
        elif tag in PLACES:
            yield text[done:start]
            yield Place(PLACES[tag], tag, start)
            done = match.end()
    yield text[done:]


def _item(text: str, tag: re.Match[str], where: str, strict: bool) -> tuple[str, int] | None:
    """Return what stands in the pair that `tag` opens, and where the pair ends; None where it opens none."""
    name, start = tag[0].strip("</>"), tag.start()
    strict = strict and name == "img"
    if tag[0].startswith("</"):
        if strict:
            raise InvalidRequest(f"`{where}` has {tag[0]} at character {start} and no <{name}> before it.", param=where)
        return None
    if tag[0] != f"<{name}>" or name not in PAIRS:
        return None
    end = text.find("<", tag.end())
    if end < 0 or not text.startswith(f"</{name}>", end):
        if strict or _ADDRESS.match(text, tag.end()):
            raise InvalidRequest(
                f"`{where}` has {tag[0]} at character {start} and no </{name}> behind it; write {tag[0]}URL</{name}>.",
                param=where,
            )
        return None
    inside = text[tag.end() : end].strip()
    if name == "img" and not inside:
        raise InvalidRequest(
            f"`{where}` has an empty <img></img> at character {start}; write <img>URL</img>.", param=where
        )
    if name != "img" and not _ADDRESS.match(inside) and (not inside or any(map(str.isspace, inside))):
        return None
    return inside, end + len(f"</{name}>")
