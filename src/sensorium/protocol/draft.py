"""Messages while they are read: text with its path, and media still where the client put them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sensorium.types import MediaSlot, MediaSource, Message, Part, Text


@dataclass(frozen=True)
class Written:
    """A piece of text. `whole`: it is all of a message's content, which dialects may look into for tags."""

    text: str
    where: str  # "messages[1].content", or of a part "messages[1].content[0].text"
    whole: bool = False


@dataclass
class Draft:
    """One message whose media have no number yet."""

    role: str
    where: str  # of its content
    parts: list[Written | MediaSource] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def numbered(drafts: Sequence[Draft]) -> tuple[tuple[Message, ...], tuple[MediaSource, ...]]:
    """Return the messages, and the media sources in the order of their slots."""
    sources: list[MediaSource] = []
    messages = [Message(draft.role, numbered_parts(draft.parts, sources), draft.extra) for draft in drafts]
    return tuple(messages), tuple(sources)


def numbered_parts(parts: Sequence[Written | MediaSource], sources: list[MediaSource]) -> tuple[Part, ...]:
    """Return `parts` with slots for their media, which are put behind `sources`; empty texts are left out."""
    result: list[Part] = []
    for part in parts:
        if isinstance(part, MediaSource):
            result.append(MediaSlot(part.kind, len(sources)))
            sources.append(part)
        elif part.text:
            result.append(Text(part.text))
    return tuple(result)
