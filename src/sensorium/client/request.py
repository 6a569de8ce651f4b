"""What the client functions are called with -> the request it comes to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sensorium.client.media import as_base64, convert_to_base64
from sensorium.client.types import (
    ChatCompletionResponse,
    ChatCompletionStreamResponse,
    CompletionResponse,
    CompletionStreamResponse,
    ModelList,
    XRequestConfig,
)
from sensorium.errors import InvalidRequest, ModelNotFound

History = Sequence[Sequence[str]]  # (what the user said, what the model answered), oldest first


class Arguments:
    """The arguments of `inference_client`.

    Raises:
        TypeError: one of `others` is not known.
    """

    def __init__(
        self,
        model_type: str,
        query: str,
        history: History | None,
        system: str | None,
        images: Sequence[Any] | None,
        tools: list[dict[str, Any]] | None,
        tool_choice: str | dict[str, Any] | None,
        request_config: XRequestConfig | None,
        others: dict[str, Any],
    ) -> None:
        self._model, self._query, self._history, self._system = model_type, query, history or (), system
        self._tools, self._tool_choice = tools, tool_choice
        self._config = request_config or XRequestConfig()
        given = dict(others)
        self.url: str | None = given.pop("url", None)
        self._roles: Sequence[Sequence[str]] | None = given.pop("roles", None)
        self._is_chat: bool | None = given.pop("is_chat", None)
        self._media = {"images": images, "audios": given.pop("audios", None), "videos": given.pop("videos", None)}
        if given:
            raise TypeError(f"inference_client() got unknown arguments: {', '.join(sorted(given))}")

    def needs_list(self, is_chat: bool | None, is_multimodal: bool | None) -> bool:
        return (is_chat is None and self._is_chat is None) or is_multimodal is None

    def kind(self, listed: ModelList, is_chat: bool | None, is_multimodal: bool | None) -> tuple[bool, bool]:
        """Return what the server's list says of the model, where the caller does not."""
        found = next((model for model in listed.data if model.id == self._model), None)
        if found is None:
            there = ", ".join(repr(model.id) for model in listed.data)
            raise ModelNotFound(f"The server has no model {self._model!r}; it has {there}.", param="model_type")
        is_chat = self._is_chat if is_chat is None else is_chat
        return (
            found.is_chat if is_chat is None else is_chat,
            found.is_multimodal if is_multimodal is None else is_multimodal,
        )

    def request(self, is_chat: bool | None, is_multimodal: bool | None) -> tuple[str, dict[str, Any], Any, Any]:
        """Return path, body, and the types of a whole answer and of a chunk."""
        body: dict[str, Any] = {"model": self._model, **self._config.fields()}
        chat = bool(self._is_chat if is_chat is None else is_chat)
        if chat:
            messages = self._messages()
            body["messages"] = convert_to_base64(messages=messages)["messages"] if is_multimodal else messages
        elif self._history or self._system is not None:
            raise InvalidRequest("A finished prompt takes no history and no system message.", param="history")
        else:
            body["prompt"] = convert_to_base64(prompt=self._query)["prompt"] if is_multimodal else self._query
        body |= {name: [as_base64(item) for item in items] for name, items in self._media.items() if items}
        if self._tools:
            body["tools"] = self._tools
        if self._tool_choice and self._tool_choice != "auto":
            body["tool_choice"] = self._tool_choice
        if chat:
            return "chat/completions", body, ChatCompletionResponse, ChatCompletionStreamResponse
        return "completions", body, CompletionResponse, CompletionStreamResponse

    def _messages(self) -> list[dict[str, Any]]:
        roles = self._roles or [("user", "assistant")] * (len(self._history) + 1)
        if len(roles) != len(self._history) + 1:
            raise InvalidRequest(
                f"There are {len(roles)} pairs of roles for {len(self._history)} turns and the query.", param="roles"
            )
        messages = [{"role": "system", "content": self._system}] if self._system is not None else []
        for (asking, answering), (said, answered) in zip(roles, self._history, strict=False):
            messages += [{"role": asking, "content": said}, {"role": answering, "content": answered}]
        return [*messages, {"role": roles[-1][0], "content": self._query}]
