"""swift's dialect of chat: media tags in strings, and lists of media beside the messages.

    {"messages": [{"role": "user", "content": "<img>https://...</img>What is it?"}]}
    {"messages": [{"role": "user", "content": "<image>What is it?"}], "images": ["https://..."]}

Tags count in what users and assistants say. The first <image> of the conversation takes the first of `images`, and so
on; where there are fewer tags than media, the missing ones stand before the first user's words. Pairs (<img>X</img>)
are read in strings only: a text part of a list is the way to send such text as it is. Without any media of this
dialect all tags are text.
Source: swift 2.6.1, `replace_media_tags` and `add_default_tags` in template.py, `compat_openai` in client_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pydantic

from sensorium.errors import InvalidRequest
from sensorium.protocol.draft import Draft, Written
from sensorium.protocol.fields import Strings
from sensorium.protocol.tags import Item, Place, cut
from sensorium.types import MediaSource, Modality

LISTS: dict[str, Modality] = {"images": "image", "urls": "image", "videos": "video", "audios": "audio"}
_SPEAKERS = ("user", "assistant")
_SHOWN = 5  # positions in an error message


@dataclass(frozen=True, eq=False)
class _Gap:
    """A tag that waits for its item, and the text it was found in."""

    place: Place
    part: Written


_Piece = Written | MediaSource | _Gap


class MediaLists(pydantic.BaseModel):
    """Media beside the messages; `urls` is rtp-llm's word for images. One string is a list of one."""

    images: Strings | None = None
    urls: Strings | None = None
    videos: Strings | None = None
    audios: Strings | None = None

    def sources(self) -> list[MediaSource]:
        """Return the media of all lists.

        Raises:
            InvalidRequest: an entry is empty, or both names of one list are used.
        """
        if self.images and self.urls:
            raise InvalidRequest("`images` and `urls` are the same list; send one of them.", param="urls")
        sources = []
        for name, kind in LISTS.items():
            for number, url in enumerate(getattr(self, name) or ()):
                where = f"{name}[{number}]"
                if not url.strip():
                    raise InvalidRequest(f"`{where}` is empty; send a URL, a path or base64.", param=where)
                sources.append(MediaSource(kind, url, where))
        return sources


def read_tags(drafts: Sequence[Draft], listed: Sequence[MediaSource]) -> None:
    """Put the media of tags and lists into `drafts`.

    Raises:
        InvalidRequest: a tag is half a pair, there are more tags than media, or nobody to show the media to.
    """
    speakers = [draft for draft in drafts if draft.role in _SPEAKERS]
    num_before = _num_media([draft.parts for draft in speakers])
    read = [[piece for part in draft.parts for piece in _pieces(part)] for draft in speakers]
    if not listed and _num_media(read) == num_before:
        return
    gaps = [piece for pieces in read for piece in pieces if isinstance(piece, _Gap)]
    first, filled = _matched(gaps, listed)
    for draft, pieces in zip(speakers, read, strict=True):
        draft.parts = [filled[piece] if isinstance(piece, _Gap) else piece for piece in pieces]
    if first:
        user = next((draft for draft in drafts if draft.role == "user"), None)
        if user is None:
            where = first[0].where
            raise InvalidRequest(f"`{where}` belongs to a message of the user, and there is none.", param=where)
        user.parts[:0] = first


def _num_media(read: Sequence[Sequence[_Piece]]) -> int:
    return sum(isinstance(piece, MediaSource) for pieces in read for piece in pieces)


def _pieces(part: Written | MediaSource) -> list[_Piece]:
    if isinstance(part, MediaSource):
        return [part]
    pieces: list[_Piece] = []
    counts: dict[str, int] = {}
    for piece in cut(part.text, part.where, pairs=part.whole):
        if isinstance(piece, Item):
            number = counts[piece.tag] = counts.get(piece.tag, -1) + 1
            pieces.append(MediaSource(piece.kind, piece.url, f"{part.where}.{piece.tag}[{number}]"))
        elif isinstance(piece, Place):
            pieces.append(_Gap(piece, part))
        else:
            pieces.append(Written(piece, part.where, part.whole))
    return pieces


def _matched(gaps: Sequence[_Gap], listed: Sequence[MediaSource]) -> tuple[list[MediaSource], dict[_Gap, MediaSource]]:
    """Return the media without a tag, and what fills each gap."""
    first: list[MediaSource] = []
    filled: dict[_Gap, MediaSource] = {}
    for kind in dict.fromkeys(LISTS.values()):
        mine = [gap for gap in gaps if gap.place.kind == kind]
        items = [source for source in listed if source.kind == kind]
        missing = len(items) - len(mine)
        if missing < 0:
            raise _too_many_tags(kind, mine, len(items))
        first += items[:missing]
        filled |= dict(zip(mine, items[missing:], strict=True))
    return first, filled


def _too_many_tags(kind: Modality, gaps: Sequence[_Gap], num_items: int) -> InvalidRequest:
    shown = ", ".join(f"{gap.part.where} at character {gap.place.at}" for gap in gaps[:_SHOWN])
    more = f" and {len(gaps) - _SHOWN} more" if len(gaps) > _SHOWN else ""
    name = next(name for name, each in LISTS.items() if each == kind)
    return InvalidRequest(
        f"The messages have {len(gaps)} {gaps[0].place.tag} tags and `{name}` has {num_items} items. The tags: "
        f"{shown}{more}. Each tag needs one item; send as many, or leave the tags out.",
        param=gaps[num_items].part.where,
        code="media_tag_mismatch",
    )
