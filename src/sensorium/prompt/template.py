"""The checkpoint's chat template: found, compiled once, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from sensorium.errors import ConfigurationError, InvalidRequest
from sensorium.prompt.ceilings import MAX_CHARACTERS, TemplateTooBig
from sensorium.prompt.checkpoint import read_json
from sensorium.prompt.sandbox import MAX_SECONDS, MAX_STEPS, TemplateEnvironment, TemplateRefusal, start_rendering
from sensorium.prompt.tokenizer import Tokenizer

MAX_TEMPLATE = 1_000_000  # characters of the template itself
_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "  # transformers' own mark, so that the same texts come out
_PROBE = "zqprobezq"

_environment = TemplateEnvironment()


class ChatTemplate:
    """Turns messages into the prompt text the model was trained on.

    Args:
        sources: template texts by name; "default" and, in some checkpoints, "tool_use".
        special_tokens: the variables bos_token, eos_token, ... that templates read.

    Raises:
        ConfigurationError: a template is not valid jinja; the message has name and line.
    """

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self._templates = {name: _compiled(source, name) for name, source in sources.items()}
        self._special_tokens = dict(special_tokens)

    @classmethod
    def load(cls, path: Path, override: str | None, tokenizer: Tokenizer, fallback: str | None = None) -> ChatTemplate:
        """Find the template of checkpoint folder `path`; `override` is a file, or the template itself.

        `fallback` is the template where the folder has none.

        Raises:
            ConfigurationError: the file `override` names is missing, or a template is not valid jinja.
        """
        sources = _sources(path, override)
        return cls(sources or ({"default": fallback} if fallback else {}), tokenizer.special_tokens)

    def with_source(self, source: str) -> ChatTemplate:
        """Return the same with another template: the one a request brings.

        Raises:
            InvalidRequest: it is not valid jinja.
        """
        try:
            return ChatTemplate({"default": source}, self._special_tokens)
        except ConfigurationError as error:
            raise InvalidRequest(error.message, param="chat_template") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt text. `variables` are extra names for the template (enable_thinking, ...).

        Raises:
            InvalidRequest: there is no template, it refuses these messages, or it fails or grows without end.
        """
        chat = [dict(message) for message in messages]
        if continue_final_message:
            _mark_end(chat)
        known = self._special_tokens | dict(variables or {})
        known |= {"messages": chat, "tools": tools, "documents": None, "add_generation_prompt": add_generation_prompt}
        text = _run(self._pick(bool(tools)), known)
        return _cut_at_mark(text) if continue_final_message else text

    def _pick(self, has_tools: bool) -> jinja2.Template:
        if not self._templates:
            raise InvalidRequest(
                "This model has no chat template. Send a finished prompt to /v1/completions, or start the server "
                "with --chat-template FILE.",
                param="messages",
            )
        if has_tools and "tool_use" in self._templates:
            return self._templates["tool_use"]
        return self._templates.get("default") or next(iter(self._templates.values()))

    @cached_property
    def takes_text(self) -> bool:
        """Whether a message's content may be a plain string."""
        return self._probe(_PROBE).count(_PROBE) == 1

    @cached_property
    def takes_parts(self) -> bool:
        """Whether a message's content may be a list of {"type": "text", "text": ...} parts."""
        text = self._probe([{"type": "text", "text": _PROBE}])
        return text.count(_PROBE) == 1 and "'type'" not in text and '"type"' not in text

    def joins(self, role: str) -> bool:
        """Whether the texts of such a message must be joined: the template takes one string, and not its parts.

        Some take parts of users, and write those of the system as Python would, or only the first.
        """
        if role not in self._joins:
            words = [_PROBE + "one", _PROBE + "two"]
            parts = [{"type": "text", "text": word} for word in words]
            in_parts, whole = self._probe(parts, role), self._probe("".join(words), role)
            listed = [in_parts.count(word) for word in words] == [1, 1] and "'type'" not in in_parts
            self._joins[role] = not (listed and '"type"' not in in_parts) and whole.count("".join(words)) == 1
        return self._joins[role]

    @cached_property
    def _joins(self) -> dict[str, bool]:
        return {}

    def writes_media(self, kind: str) -> bool:
        """Whether the template writes something of its own for {"type": kind} parts."""
        return self.media_part(kind) == {"type": kind}

    def media_part(self, kind: str) -> dict[str, str] | None:
        """Return the part for which the template writes something of its own; None: it writes nothing for any.

        Most templates look at a part's type, others for a key. Qwen2-Audio's compares the type of the whole message,
        which has none, so with it only the key counts.
        """
        if kind not in self._media:
            text = {"type": "text", "text": _PROBE}
            forms = ({"type": kind}, {"type": kind, f"{kind}_url": ""})
            plain = self._probe([text])
            written = (form for form in forms if self.takes_parts and self._probe([form, text]) != plain)
            self._media[kind] = next(written, None)
        return self._media[kind]

    @cached_property
    def _media(self) -> dict[str, dict[str, str] | None]:
        return {}

    def _probe(self, content: Any, role: str = "user") -> str:
        chat = [{"role": role, "content": content}]
        if role != "user":
            said = {"role": "user", "content": "x" if self.takes_text else [{"type": "text", "text": "x"}]}
            chat = [*chat, said] if role == "system" else [said, *chat]
        try:
            return self.render(chat)
        except InvalidRequest:
            return ""


def _sources(path: Path, override: str | None) -> dict[str, str]:
    if override is not None:
        return {"default": _override(override)}
    file = path / "chat_template.jinja"
    found: Any = file.read_text(encoding="utf-8") if file.is_file() else None
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = found or read_json(path / name).get("chat_template")
    sources = {"default": found} if isinstance(found, str) else _named(found or [])
    for extra in sorted(path.glob("additional_chat_templates/*.jinja")):
        sources[extra.stem] = extra.read_text(encoding="utf-8")
    return sources


def _named(entries: Any) -> dict[str, str]:
    if isinstance(entries, dict):
        return {str(name): str(source) for name, source in entries.items()}
    return {str(entry["name"]): str(entry["template"]) for entry in entries}


def _override(override: str) -> str:
    if any(mark in override for mark in ("{%", "{{", "{#", "\n")):
        return override
    try:
        return Path(override).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The chat template {override!r} cannot be read. Give a file, or the template itself (with {{% or {{{{)."
        ) from error


def _compiled(source: str, name: str) -> jinja2.Template:
    if len(source) > MAX_TEMPLATE:
        raise ConfigurationError(f"The chat template {name!r} has {len(source)} characters; at most {MAX_TEMPLATE}.")
    try:
        return _environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigurationError(f"The chat template {name!r} is not valid jinja (line {error.lineno}).") from error
    except (RecursionError, MemoryError, SyntaxError, TemplateTooBig) as error:
        raise ConfigurationError(f"The chat template {name!r} is nested too deeply or too big to compile.") from error


def _run(template: jinja2.Template, variables: dict[str, Any]) -> str:
    start_rendering()
    pieces, size = [], 0
    try:
        for piece in template.generate(variables):
            size += len(piece)
            if size > MAX_CHARACTERS:
                raise TemplateTooBig
            pieces.append(piece)
    except TemplateRefusal as refusal:
        raise InvalidRequest(f"The model's chat template refuses these messages: {refusal}", param="messages") from None
    except (TemplateTooBig, RecursionError, MemoryError, OverflowError) as error:
        raise InvalidRequest(
            f"The chat template was stopped: a prompt may have {MAX_CHARACTERS} characters and take {MAX_STEPS} loop "
            f"steps or {MAX_SECONDS} s. Send less, or use another template.",
            param="messages",
        ) from error
    except Exception as error:  # a template is a program of its own: anything may be raised in it
        raise InvalidRequest(
            f"The model's chat template fails on these messages ({type(error).__name__}). Check roles and content "
            "parts, or give another template.",
            param="messages",
        ) from error
    return "".join(pieces)


def _mark_end(chat: list[dict[str, Any]]) -> None:
    content = chat[-1].get("content") if chat else None
    if isinstance(content, str):
        chat[-1]["content"] = content + _CONTINUE
        return
    parts = [dict(part) for part in content or ()]
    for part in reversed(parts):
        if "text" in part:
            part["text"] += _CONTINUE
            chat[-1]["content"] = parts
            return
    raise InvalidRequest("continue_final_message: the last message has no text to go on from.", param="messages")


def _cut_at_mark(text: str) -> str:
    at = text.rfind(_CONTINUE.strip())
    if at < 0:
        raise InvalidRequest(
            "continue_final_message: the chat template leaves the last message's text out.",
            param="continue_final_message",
        )
    kept = text[:at]
    # Where the template trims messages, the mark has lost its blank, and the text before it goes trimmed too.
    return kept if text[at : at + len(_CONTINUE)] == _CONTINUE else kept.rstrip()
