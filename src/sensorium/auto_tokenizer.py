"""A checkpoint's tokenizer with the methods of transformers' AutoTokenizer, without importing transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, overload

from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.registry.hub import resolve

log = logging.getLogger(__name__)

Conversation = Sequence[Mapping[str, Any]]


class AutoTokenizer:
    """Text to token ids and back, and conversations to prompts.

    In a conversation that is rendered here control tokens written in the texts count, as with transformers; in
    `LLM.chat` and on a server they do not. Control tokens have their ids as attributes: `eos_token_id`, and so on;
    None where the checkpoint names no such token.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer, self._template = tokenizer, template

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, chat_template: str | None = None, **others: Any
    ) -> AutoTokenizer:
        """Read the tokenizer of a folder or a hub id. `trust_remote_code` is accepted; remote code never runs.

        Args:
            chat_template: a file or the template itself, instead of the checkpoint's.
            others: named in the log, and left out.

        Raises:
            ConfigurationError: files are missing or unusable; the message names them.
        """
        if others:
            log.info(
                "AutoTokenizer: these options have no meaning here and are left out: %s", ", ".join(sorted(others))
            )
        path = resolve(str(name_or_path), revision)
        tokenizer = Tokenizer.load(path)
        return cls(tokenizer, ChatTemplate.load(path, chat_template, tokenizer))

    def __call__(self, text: str | Sequence[str], add_special_tokens: bool = True) -> dict[str, Any]:
        """Return `input_ids` and `attention_mask`: a list of ids of one text, a list of such lists of several."""
        if isinstance(text, str):
            ids = self.encode(text, add_special_tokens)
            return {"input_ids": ids, "attention_mask": [1] * len(ids)}
        several = [self.encode(one, add_special_tokens) for one in text]
        return {"input_ids": several, "attention_mask": [[1] * len(ids) for ids in several]}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of `text`, with what the checkpoint puts before and after every text."""
        return self._tokenizer.encode_prompt(text, add_special_tokens)

    def decode(self, token_ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids."""
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        return self._tokenizer.decode(ids, skip_special_tokens)

    def batch_decode(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        """Return the text of each list of ids."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of `text` as the vocabulary writes them."""
        return self._tokenizer.token_strings(self._tokenizer.encode(text))

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int | None]: ...
    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int | None] | None:
        """Return the id of a token or of several; one that is not in the vocabulary has that of `unk_token`."""
        if isinstance(tokens, str):
            found = self._tokenizer.id_of(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]: ...
    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> str | list[str]:
        """Return the token of an id or of several, as the vocabulary writes it."""
        return self._tokenizer.token_string(ids) if isinstance(ids, int) else self._tokenizer.token_strings(ids)

    def apply_chat_template(
        self,
        conversation: Conversation | Sequence[Conversation],
        tools: list[dict[str, Any]] | None = None,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        return_dict: bool = False,
        **variables: Any,
    ) -> Any:
        """Return the prompt of a conversation, or a list of those of several.

        Args:
            chat_template: jinja, instead of the checkpoint's.
            tokenize: whether to return ids rather than text; with `return_dict` as a call of the tokenizer does.
            variables: further names for the template, such as enable_thinking.

        Raises:
            InvalidRequest: there is no template, or it does not take these messages.
        """
        if len(conversation) and not isinstance(conversation[0], Mapping):
            options = {"tools": tools, "chat_template": chat_template, "tokenize": tokenize, "return_dict": return_dict}
            options |= {
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message,
            }
            return [self.apply_chat_template(one, **options, **variables) for one in conversation]  # type: ignore[arg-type]
        template = self._template.with_source(chat_template) if chat_template else self._template
        text = template.render(
            cast("Conversation", conversation),
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=variables,
        )
        if not tokenize:
            return text
        return self(text, add_special_tokens=False) if return_dict else self.encode(text, add_special_tokens=False)

    def get_vocab(self) -> dict[str, int]:
        """Return token -> id, added tokens included."""
        vocabulary: dict[str, int] = self._tokenizer.backend.get_vocab(with_added_tokens=True)
        return vocabulary

    def __len__(self) -> int:
        return self._tokenizer.vocab_size

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones left out."""
        return int(self._tokenizer.backend.get_vocab_size(with_added_tokens=False))

    @property
    def unk_token_id(self) -> int | None:
        """The id of what stands for unknown tokens."""
        return self._id("unk_token")

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_token") and not name.startswith("_"):
            return self._tokenizer.special_tokens.get(name)
        if name.endswith("_token_id") and not name.startswith("_"):
            return self._id(name.removesuffix("_id"))
        raise AttributeError(f"the tokenizer has no attribute {name!r}")

    def _id(self, name: str) -> int | None:
        token = self._tokenizer.special_tokens.get(name)
        return None if token is None else self._tokenizer.id_of(token)
