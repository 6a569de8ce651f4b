"""Log probabilities in the forms of OpenAI's two endpoints."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sensorium.types import PositionLogprobs, TokenLogprob

FLOOR = -9999.0  # JSON has no -inf; vLLM's clients know this number


class ChatToken(msgspec.Struct):
    """An alternative in the chat form."""

    token: str
    logprob: float
    bytes: list[int]


class ChatPosition(msgspec.Struct):
    """A chosen token in the chat form."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[ChatToken]


class ChatLogprobs(msgspec.Struct):
    """`choices[i].logprobs` of a chat answer."""

    content: list[ChatPosition]
    refusal: None = None


class TextLogprobs(msgspec.Struct):
    """`choices[i].logprobs` of a text completion; `text_offset` counts characters of the completion."""

    text_offset: list[int]
    token_logprobs: list[float]
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


def chat_logprobs(positions: Sequence[PositionLogprobs]) -> ChatLogprobs:
    """Return the chat form."""
    return ChatLogprobs([_position(position) for position in positions])


def text_logprobs(positions: Sequence[PositionLogprobs], offset: int) -> TextLogprobs:
    """Return the text form; `offset`: characters before the first position."""
    form = TextLogprobs([], [], [], [])
    for position in positions:
        chosen = position.chosen
        form.text_offset.append(offset)
        form.token_logprobs.append(_finite(chosen))
        form.tokens.append(chosen.token)
        top: dict[str, float] = {}
        for entry in (chosen, *position.top):  # pieces of characters all read alike: the first keeps the place
            top.setdefault(entry.token, _finite(entry))
        form.top_logprobs.append(top)
        offset += len(chosen.token)
    return form


def _position(position: PositionLogprobs) -> ChatPosition:
    chosen = position.chosen
    top = [ChatToken(entry.token, _finite(entry), _bytes(entry)) for entry in position.top]
    return ChatPosition(chosen.token, _finite(chosen), _bytes(chosen), top)


def _bytes(entry: TokenLogprob) -> list[int]:
    return list(entry.data or entry.token.encode())


def _finite(entry: TokenLogprob) -> float:
    return max(entry.logprob, FLOOR)
