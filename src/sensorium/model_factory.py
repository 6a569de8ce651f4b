"""rtp-llm's ModelFactory: loads what a Pipeline runs on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sensorium.errors import ConfigurationError
from sensorium.llm import LLM

if TYPE_CHECKING:
    from sensorium.auto_tokenizer import AutoTokenizer

log = logging.getLogger(__name__)

_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
_NO_MEANING = ("model_type", "gen_num_per_circle", "sp_type", "use_rpc", "async_mode")


@dataclass
class ModelConfig:
    """How a model is loaded. What stays empty is chosen for you; `options` are any of LLM's, by their names.

    `max_seq_len` 0 is the model's own; `act_type` is fp16, bf16 or fp32.
    """

    model_type: str = ""
    ckpt_path: str = ""
    tokenizer_path: str = ""
    weight_type: Any = None
    act_type: Any = None
    max_seq_len: int = 0
    seq_size_per_block: int = 0
    gen_num_per_circle: int = 1
    ptuning_path: str | None = None
    lora_infos: dict[str, str] | None = None
    sp_type: str = ""
    options: dict[str, Any] | None = None


class PipelineModel:
    """A model for a Pipeline."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.name = llm.info.name
        self.tokenizer: AutoTokenizer = llm.get_tokenizer()

    def is_multimodal(self) -> bool:
        """Whether prompts may have pictures."""
        return "image" in self.llm.info.modalities

    def stop(self) -> None:
        """Free the model. Stopping twice does nothing."""
        self.llm.close()


class ModelFactory:
    """Loads models."""

    @staticmethod
    def from_huggingface(
        model_path_or_name: str, revision: str | None = None, model_config: ModelConfig | None = None
    ) -> PipelineModel:
        """Load a folder's or the hub's model.

        Raises:
            ConfigurationError: it cannot be loaded, or a setting cannot be served.
        """
        config = model_config or ModelConfig()
        return PipelineModel(LLM(model_path_or_name, revision=revision, **_options(config, model_path_or_name)))

    @staticmethod
    def from_model_config(model_config: ModelConfig) -> PipelineModel:
        """Load the model at `model_config.ckpt_path`.

        Raises:
            ConfigurationError: as `from_huggingface`.
        """
        if not model_config.ckpt_path:
            raise ConfigurationError("ModelConfig.ckpt_path is empty; name the checkpoint's folder.")
        return ModelFactory.from_huggingface(model_config.ckpt_path, None, model_config)


def _options(config: ModelConfig, model: str) -> dict[str, Any]:
    """Return LLM's options that a ModelConfig comes to."""
    for name, other in (("ptuning_path", ()), ("lora_infos", ()), ("tokenizer_path", (model, config.ckpt_path))):
        value = getattr(config, name)
        if value and value not in other:
            raise ConfigurationError(f"ModelConfig.{name} is {value!r}, which is not supported; leave it out.")
    neutral = ModelConfig()
    if left_out := [name for name in _NO_MEANING if getattr(config, name, None) != getattr(neutral, name, None)]:
        log.info("ModelConfig: these settings have no meaning here and are left out: %s", ", ".join(left_out))
    options = dict(config.options or {})
    if config.max_seq_len:
        options["max_model_len"] = config.max_seq_len
    if config.seq_size_per_block:
        options["block_size"] = config.seq_size_per_block
    for given in (config.act_type, config.weight_type):
        if given is not None:
            name = str(getattr(given, "value", given)).lower()
            if name not in (*_DTYPES, *_DTYPES.values()):
                raise ConfigurationError(f"A type of {name!r} is not supported; types are {', '.join(_DTYPES)}.")
            options.setdefault("dtype", _DTYPES.get(name, name))
    return options
