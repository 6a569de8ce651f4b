"""A request's messages to token ids, with one placeholder token per media item."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sensorium.errors import InvalidRequest
from sensorium.prompt.guard import Guard
from sensorium.prompt.placeholders import check_counts
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import MediaSlot, Message, Part, Request, Text

_RESERVED = {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}
_MAX_DEPTH = 32  # of a tool call's arguments that are handed on as an object
_REASONING = ("reasoning_content", "thinking", "reasoning")
_guards: WeakKeyDictionary[Tokenizer, Guard] = WeakKeyDictionary()


def build(
    request: Request,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    *,
    media_placeholder: Mapping[str, str],
    placeholder_ids: Mapping[str, int] | None = None,
    spellings: Mapping[str, str] | None = None,
    check: Callable[[str], None] = lambda text: None,
) -> tuple[list[int], str]:
    """Return the prompt's token ids and its text.

    Args:
        request: messages, in whose strings no control token counts; or `prompt`, in which they do; or ids.
        media_placeholder: modality -> the family's full marker, e.g. "<|vision_start|><|image_pad|><|vision_end|>".
            Modalities not named are not taken by this model.
        placeholder_ids: modality -> the one id in the marker that `expand` multiplies. Default: the marker's
            middle token.
        spellings: what prompts and templates may write -> the marker it is read as.
        check: called with the text before it is tokenized; raises where it is too long for that.

    Raises:
        InvalidRequest: the template refuses the messages, ids are outside the vocabulary, or media items and
            placeholders differ in number (the message has both).
    """
    if placeholder_ids is None:
        placeholder_ids = {kind: _middle(tokenizer, marker) for kind, marker in media_placeholder.items()}
    kinds = [item.kind for item in request.media]
    for kind in kinds:
        if kind not in media_placeholder:
            takes = ", ".join(media_placeholder) or "text only"
            raise InvalidRequest(f"This model does not take {kind} input. It takes: {takes}.", param="messages")
    if request.messages is not None:
        check_slots(slots_of(request.messages), kinds, "messages")
        guard, rendered = render_chat(request, tokenizer, template, media_placeholder)
        check(guard.unbroken(rendered))
        # A spelling without a control token is not broken in client text, so no template's can be told from it.
        known = {t: m for t, m in (spellings or {}).items() if any(token in t for token in tokenizer.added_tokens)}
        ids, text = guard.encode(_with_markers(rendered, known))
        if request.add_special_tokens:
            ids = tokenizer.with_special_tokens(ids)
        check_counts(ids, placeholder_ids, kinds, "messages")
    elif request.prompt is not None:
        text = written(request.prompt, media_placeholder, kinds)
        check(text)
        ids = tokenizer.encode_prompt(_with_markers(text, spellings or {}), request.add_special_tokens is not False)
        check_counts(ids, placeholder_ids, kinds, "prompt")
    else:
        ids = request.prompt_token_ids or []
        wrong = next((i for i in ids if not 0 <= i < tokenizer.vocab_size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"prompt_token_ids has the id {wrong}; this model's ids are 0 to {tokenizer.vocab_size - 1}.",
                param="prompt_token_ids",
            )
        ids = _with_marker_ids(ids, tokenizer, spellings or {})
        check_counts(ids, placeholder_ids, kinds, "prompt_token_ids")
        text = tokenizer.decode(ids, skip_special_tokens=False)
    if not ids:
        raise InvalidRequest("The prompt is empty; send at least one token.", param="prompt")
    return list(ids), text


def render_chat(
    request: Request, tokenizer: Tokenizer, template: ChatTemplate, markers: Mapping[str, str]
) -> tuple[Guard, str]:
    """Return the request's messages as the template writes them, and the guard that encodes what came out.

    The text has the guard's breaks in it, so that every control literal found there is the template's. `markers` is
    `build`'s `media_placeholder`.

    Raises:
        InvalidRequest: the template refuses the messages, or fails on them.
    """
    guard = _guards.get(tokenizer)
    if guard is None:
        guard = _guards[tokenizer] = Guard(tokenizer)
    if request.chat_template is not None:
        template = template.with_source(request.chat_template)
    reserved = sorted(_RESERVED & request.chat_template_kwargs.keys())
    if reserved:
        raise InvalidRequest(f"{reserved[0]!r} cannot be set here.", param=f"chat_template_kwargs.{reserved[0]}")
    messages = request.messages or ()
    return guard, template.render(
        [_message(message, guard, template, markers) for message in messages],
        tools=guard.value(request.tools) if request.tools else None,
        add_generation_prompt=request.add_generation_prompt and not request.continue_final_message,
        continue_final_message=request.continue_final_message,
        variables={name: guard.value(value) for name, value in request.chat_template_kwargs.items()},
    )


def _with_markers(text: str, spellings: Mapping[str, str]) -> str:
    """Return `text` with every other spelling of a marker replaced by it. In client text the guard has broken them."""
    for spelling, marker in spellings.items():
        text = text.replace(spelling, marker)
    return text


def _with_marker_ids(ids: Sequence[int], tokenizer: Tokenizer, spellings: Mapping[str, str]) -> list[int]:
    """Return `ids` with the tokens of every other spelling of a marker replaced by the marker's."""
    found = list(ids)
    for spelling, marker in spellings.items():
        old, new = tokenizer.encode(spelling), tokenizer.encode(marker)
        at = 0
        while at <= len(found) - len(old):
            same = found[at] == old[0] and found[at : at + len(old)] == old
            if same:
                found[at : at + len(old)] = new
            at += len(new) if same else 1
    return found


def _message(message: Message, guard: Guard, template: ChatTemplate, markers: Mapping[str, str]) -> dict[str, Any]:
    by_model = message.role == "assistant"
    extra = {key: value for key, value in message.extra.items() if value is not None}
    if "tool_calls" in extra:
        extra["tool_calls"] = [_with_parsed_arguments(call) for call in extra["tool_calls"]]
    reasoning = next((extra[key] for key in _REASONING if extra.get(key) is not None), None)
    if reasoning is not None:
        extra = {"thinking": reasoning, **extra, "reasoning_content": reasoning}
    # The names of fields stay: templates look them up.
    extra = {name: guard.value(value, by_model=by_model) for name, value in extra.items()}
    return {**extra, "role": guard.role(message.role), "content": _content(message, guard, template, markers)}


def _content(message: Message, guard: Guard, template: ChatTemplate, markers: Mapping[str, str]) -> Any:
    """Return the content as the template wants it: a string, or a list of parts."""
    by_model = message.role == "assistant"
    texts = [guard.text(p.text, by_model=by_model) if isinstance(p, Text) else markers[p.kind] for p in message.content]
    single = len(texts) <= 1 and not any(isinstance(part, MediaSlot) for part in message.content)
    if not template.takes_parts or (single and template.takes_text):
        return "\n".join(texts)
    if message.role != "user" and len(texts) > 1 and _is_text(message) and template.joins(message.role):
        return "\n".join(texts)
    return [
        (template.media_part(part.kind) if isinstance(part, MediaSlot) else None) or {"type": "text", "text": text}
        for part, text in zip(message.content, texts, strict=True)
    ]


def _is_text(message: Message) -> bool:
    return all(isinstance(part, Text) for part in message.content)


def _with_parsed_arguments(call: Any) -> Any:
    """Return a tool call whose JSON arguments are an object: templates write them with tojson."""
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        try:
            arguments = json.loads(function["arguments"] or "{}")
        except (ValueError, RecursionError):
            return call
        if isinstance(arguments, dict) and not _is_deeper(arguments, _MAX_DEPTH):
            return {**call, "function": {**function, "arguments": arguments}}
    return call


def _is_deeper(value: Any, depth: int) -> bool:
    """Tell whether lists and objects are nested in `value` deeper than `depth`."""
    level = [value]
    while level and depth >= 0:
        depth -= 1
        nested = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for children in nested for child in children]
    return bool(level)


def written(prompt: str | tuple[Part, ...], markers: Mapping[str, str], kinds: Sequence[str]) -> str:
    """Return a prompt that is no conversation as one text, a marker in the place of each media item.

    Raises:
        InvalidRequest: its media parts are not the media items, whose `kinds` these are.
    """
    if isinstance(prompt, str):
        return prompt
    check_slots([part for part in prompt if isinstance(part, MediaSlot)], kinds, "prompt")
    return "".join(part.text if isinstance(part, Text) else markers[part.kind] for part in prompt)


def check_slots(slots: Sequence[MediaSlot], kinds: Sequence[str], param: str) -> None:
    """See that the media parts of messages or of a prompt are the media items, in their order.

    Raises:
        InvalidRequest: they are not.
    """
    if [slot.index for slot in slots] != list(range(len(kinds))):
        raise InvalidRequest(
            f"`{param}` has {len(slots)} media parts, but {len(kinds)} media items were given.", param=param
        )
    for slot, kind in zip(slots, kinds, strict=True):
        if slot.kind != kind:
            raise InvalidRequest(f"Media part {slot.index} is {slot.kind}, but its item is {kind}.", param=param)


def slots_of(messages: tuple[Message, ...]) -> list[MediaSlot]:
    """Return the media parts of `messages`."""
    return [part for message in messages for part in message.content if isinstance(part, MediaSlot)]


def _middle(tokenizer: Tokenizer, marker: str) -> int:
    ids = tokenizer.encode(marker)
    return ids[len(ids) // 2]
