"""What the client functions take and return. Names, fields and defaults are those of ms-swift 2.6."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class XRequestConfig:
    """How to answer. What is left at its default is not sent, so the server's own default holds.

    `max_tokens=None`: until the context is full. `stream=True` makes `inference_client` return an iterator.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int = 1
    seed: int | None = None
    stop: list[str] | None = None
    stream: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    length_penalty: float = 1.0
    num_beams: int = 1
    top_k: int | None = None
    repetition_penalty: float | None = None

    def fields(self) -> dict[str, Any]:
        """Return what was set."""
        neutral = XRequestConfig()
        return {name: value for name, value in vars(self).items() if value != getattr(neutral, name)}


@dataclass
class Model:
    """A model of the server. One that does not say what it takes is taken for a chat model with media."""

    id: str
    is_chat: bool = True
    is_multimodal: bool = True
    object: str = "model"
    created: int = 0
    owned_by: str = ""


@dataclass
class ModelList:
    """The server's models."""

    data: list[Model]
    object: str = "list"


@dataclass
class UsageInfo:
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


@dataclass
class ChatMessage:
    """The model's turn."""

    role: str
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


@dataclass
class ChatCompletionResponseChoice:
    """One whole answer."""

    index: int
    message: ChatMessage
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


@dataclass
class ChatCompletionResponse:
    """Answers of /v1/chat/completions."""

    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: UsageInfo = field(default_factory=UsageInfo)
    id: str = ""
    object: str = "chat.completion"
    created: int = 0


@dataclass
class DeltaMessage:
    """What came since the last chunk."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


@dataclass
class ChatCompletionResponseStreamChoice:
    """A piece of one answer."""

    index: int
    delta: DeltaMessage
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


@dataclass
class ChatCompletionStreamResponse:
    """One chunk of /v1/chat/completions."""

    model: str
    choices: list[ChatCompletionResponseStreamChoice]
    usage: UsageInfo | None = None
    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0


@dataclass
class CompletionResponseChoice:
    """One whole continuation of a prompt, or a piece of it."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


@dataclass
class CompletionResponse:
    """Answers of /v1/completions."""

    model: str
    choices: list[CompletionResponseChoice]
    usage: UsageInfo = field(default_factory=UsageInfo)
    id: str = ""
    object: str = "text_completion"
    created: int = 0


@dataclass
class CompletionStreamResponse:
    """One chunk of /v1/completions."""

    model: str
    choices: list[CompletionResponseChoice]
    usage: UsageInfo | None = None
    id: str = ""
    object: str = "text_completion"
    created: int = 0
