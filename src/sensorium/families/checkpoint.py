"""What a family may read of a checkpoint beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sensorium.errors import ConfigurationError
from sensorium.families.family import Config

# Beside config.json. transformers 5 writes what the others held into processor_config.json.
FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's JSON files and its tokenizer.

    Attributes:
        config: config.json.
        files: those of FILES that are there, by name.
        encode: text -> token ids; control tokens in the text count, nothing is put before or after.
    """

    config: Config
    files: Mapping[str, Config] = field(default_factory=dict)
    encode: Callable[[str], list[int]] = lambda text: []

    @property
    def image_settings(self) -> Config:
        """preprocessor_config.json, or the part of processor_config.json that replaced it.

        Raises:
            ConfigurationError: the checkpoint has neither.
        """
        return self.settings("image_processor", "preprocessor_config.json")

    def settings(self, part: str, file: str) -> Config:
        """Return `file`, or `part` of processor_config.json.

        Raises:
            ConfigurationError: the checkpoint has neither.
        """
        if file in self.files:
            return self.files[file]
        nested = self.files.get("processor_config.json", {}).get(part)
        if not isinstance(nested, Mapping):
            raise ConfigurationError(
                f"{file} is missing, and processor_config.json has no {part!r}; the folder does not hold a complete "
                "checkpoint."
            )
        return nested

    def token_id(self, text: str) -> int:
        """Return the id of the control token `text`.

        Raises:
            ConfigurationError: the tokenizer has no such token.
        """
        ids = self.encode(text)
        if len(ids) != 1:
            raise ConfigurationError(
                f"The tokenizer makes {len(ids)} tokens of {text!r}, which this family needs as one; are "
                "tokenizer_config.json and added_tokens.json complete?"
            )
        return ids[0]

    def config_id(self, *keys: str) -> int:
        """Return the token id config.json has under the first of `keys` that is there.

        Raises:
            ConfigurationError: it has none of them.
        """
        for key in keys:
            if isinstance(self.config.get(key), int):
                return int(self.config[key])
        raise ConfigurationError(f"config.json has no {' or '.join(keys)}.")
