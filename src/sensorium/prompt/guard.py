"""Keep the client's text from becoming control tokens.

Wherever an added token's literal stands in a client's text, it is broken by U+FDD0 behind its first character (a
noncharacter no text has a use for). After rendering, every stretch of text that was broken is encoded without
added tokens; all else goes through the tokenizer as it is, so a harmless prompt has transformers' very ids.
"""

from __future__ import annotations

import re
from typing import Any

from sensorium.prompt.tokenizer import Tokenizer

_BREAK = "\ufdd0"
_FORBIDDEN = re.compile("[\ufdd0\ud800-\udfff]")
# Roles that templates compare with, or build tokens from: '<|' + role + '|>'.
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython", "observation", "model"})
# Words of tool schemas and messages that templates look up; they must reach the template unchanged.
_SCHEMA = frozenset(
    (
        *("type", "text", "image", "video", "audio", "name", "role", "content", "id", "function", "functions"),
        *("tool", "tools", "tool_calls", "tool_call_id", "arguments", "parameters", "properties", "required"),
        *("items", "enum", "description", "default", "object", "array", "string", "number", "integer", "boolean"),
        *("null", "return", "returns", "response", "reasoning", "reasoning_content", "thinking"),
    )
)
# What models write as part of their answers: thoughts, and (Qwen-VL) what lies where in a picture.
_WRITTEN = frozenset({"<think>", "</think>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"})


class Guard:
    """Breaks control literals in client text, and encodes rendered prompts.

    Control tokens here are all added tokens of two characters or more that are not blanks only.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        literals = {
            t: i for t, i in tokenizer.added_tokens.items() if len(t) > 1 and not t.isspace() and _BREAK not in t
        }
        self._ids = literals
        self._control_ids = frozenset(literals.values())
        longest_first = sorted(literals, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._found = re.compile(pattern)
        # Any case: a template may write a role or a name in lower or upper case.
        self._suspect = re.compile(pattern, re.IGNORECASE)
        self._cores = {t.strip("<|>[]/{}｜ ").casefold() for t in literals} | {
            t.strip("<>").casefold() for t in literals
        }
        self._written = _WRITTEN - {t for t, i in literals.items() if i in tokenizer.special_ids}

    def text(self, text: str, *, by_model: bool = False) -> str:
        """Return `text` with every control literal broken.

        `by_model`: the text is what the model said. <think>, <box> and their like, where they are not special tokens,
        stay: so the model sees again what it wrote, and templates find the old reasoning that they drop.
        """
        if not text.isascii():
            text = _FORBIDDEN.sub("\ufffd", text)
        if text.casefold() in self._cores and text.casefold() not in _SCHEMA:
            return _broken(text)  # '<' ~ key ~ '>' in a template would make a token of it
        keep = self._written if by_model else frozenset()
        replaced = -1
        while replaced:  # breaking one literal can bare another that overlapped it
            replaced = 0

            def replace(match: re.Match[str]) -> str:
                nonlocal replaced
                if match[0] in keep:
                    return match[0]
                replaced += 1
                return _broken(match[0])

            text = self._suspect.sub(replace, text)
        return text

    def role(self, role: str) -> str:
        """Return a role's name: known ones as they are, others broken wherever they are part of a literal."""
        if role in ROLES:
            return role
        inside = any(role.casefold() in literal.casefold() for literal in self._ids)
        return _broken(role) if inside and role else self.text(role)

    def value(self, value: Any, *, by_model: bool = False) -> Any:
        """Return a JSON value with all strings in it guarded, keys included."""
        if isinstance(value, str):
            return self.text(value, by_model=by_model)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(each, by_model=by_model) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(each, by_model=by_model) for each in value]
        return value

    def encode(self, rendered: str) -> tuple[list[int], str]:
        """Return the ids of a rendered prompt, and its text without the breaks."""
        if _BREAK not in rendered:
            return self._encode_clean(rendered), rendered
        ids: list[int] = []
        clean = 0  # start of the text not yet encoded
        runs = self._runs(rendered)
        for start, end in runs:
            if _BREAK not in rendered[start:end]:
                continue
            ids += self._encode_clean(rendered[clean:start])
            ids += self._tokenizer.encode_plain(rendered[start:end].replace(_BREAK, ""), at_start=start == 0)
            clean = end
        ids += self._encode_clean(rendered[clean:])
        return ids, rendered.replace(_BREAK, "")

    def foreign(self, rendered: str) -> list[tuple[int, int]]:
        """Return the stretches between control literals that must be encoded without added tokens.

        They hold a break, or text that a normaliser would make a control literal of.
        """
        return [
            (start, end)
            for start, end in self._runs(rendered)
            if _BREAK in rendered[start:end]
            or not self._control_ids.isdisjoint(self._tokenizer.encode(rendered[start:end]))
        ]

    def plain(self, stretch: str, *, at_start: bool) -> list[int]:
        """Return the ids of one of those stretches; `at_start`: no token stands before it."""
        return self._tokenizer.encode_plain(stretch.replace(_BREAK, ""), at_start=at_start)

    @staticmethod
    def unbroken(rendered: str) -> str:
        """Return a rendered prompt as a user may see it."""
        return rendered.replace(_BREAK, "")

    def _runs(self, rendered: str) -> list[tuple[int, int]]:
        """Return the stretches between control literals."""
        edges = [0]
        for match in self._found.finditer(rendered):
            edges += [match.start(), match.end()]
        edges.append(len(rendered))
        return list(zip(edges[::2], edges[1::2], strict=True))

    def _encode_clean(self, text: str) -> list[int]:
        """Encode text whose control literals are the template's, and see that only those became tokens."""
        if not text:
            return []
        ids = self._tokenizer.encode(text)
        expected = [self._ids[match[0]] for match in self._found.finditer(text)]
        if [token_id for token_id in ids if token_id in self._control_ids] == expected:
            return ids
        # A normaliser made a literal out of other characters (NFKC does), or literals overlap.
        ids = []
        last = 0
        for match in self._found.finditer(text):
            ids += self._tokenizer.encode_plain(text[last : match.start()], at_start=last == 0)
            ids.append(self._ids[match[0]])
            last = match.end()
        return ids + self._tokenizer.encode_plain(text[last:], at_start=last == 0)


def _broken(literal: str) -> str:
    return literal[0] + _BREAK + literal[1:]
