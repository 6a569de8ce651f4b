"""rtp-llm's `generate_config` -> sampling fields. Names and meanings: its config/generate_config.py."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import BeforeValidator, ConfigDict

from sensorium.errors import InvalidRequest
from sensorium.protocol.fields import Bool, Float, Int, Strings, TokenId


def _only(value: Any) -> Any:
    # Upstream takes a list with one value for each prompt of a batch; one prompt has one.
    return value[0] if isinstance(value, list) and len(value) == 1 else value


OneInt = Annotated[Int, BeforeValidator(_only)]
OneFloat = Annotated[Float, BeforeValidator(_only)]


class GenerateConfig(pydantic.BaseModel):
    """How an answer is made. A null counts as absent."""

    model_config = ConfigDict(extra="allow")

    max_new_tokens: Int | None = None
    gen_length: Int | None = None
    min_new_tokens: OneInt | None = None
    num_return_sequences: Int | None = None
    top_k: OneInt | None = None
    top_p: OneFloat | None = None
    temperature: OneFloat | None = None
    repetition_penalty: OneFloat | None = None
    random_seed: OneInt | None = None
    stop_words_str: Strings | None = None
    stop_words_list: list[list[TokenId]] | None = None
    print_stop_words: Bool | None = None
    return_incremental: Bool | None = None
    return_input_ids: Bool | None = None
    return_output_ids: Bool | None = None
    yield_generator: Bool | None = None


# Ours -> theirs, the first that is there counts.
_NAMES = {
    "max_tokens": ("max_new_tokens", "gen_length"),
    "min_tokens": ("min_new_tokens",),
    "n": ("num_return_sequences",),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
    "temperature": ("temperature",),
    "repetition_penalty": ("repetition_penalty",),
    "seed": ("random_seed",),
    "stop": ("stop_words_str",),
    "include_stop_str_in_output": ("print_stop_words",),
}
WIRE = {ours: theirs[0] for ours, theirs in _NAMES.items() if ours != theirs[0]}
# Known fields that are not served -> the values that ask for nothing. Null, [] and {} never do.
REFUSED: dict[str, tuple[object, ...]] = {
    "adapter_name": ("",),
    "bad_words_list": (),
    "calculate_loss": (0, False),
    "no_repeat_ngram_size": (0,),
    "num_beams": (0, 1),
    "return_all_probs": (False,),
    "return_cum_log_probs": (False,),
    "return_hidden_states": (False,),
    "output_hidden_states": (False,),
    "return_logits": (False,),
    "output_logits": (False,),
    "return_softmax_probs": (False,),
    "select_tokens_id": (),
    "select_tokens_str": (),
    "timeout_ms": (-1, 0),
    "top_p_decay": (1, 1.0),
    "top_p_min": (0, 0.0),
}


def sampling_fields(config: GenerateConfig, path: str) -> dict[str, Any]:
    """Return the fields of SamplingParams that `config` sets.

    Args:
        path: of the config in the body, with a dot behind it; "" for the body itself.

    Raises:
        InvalidRequest: `param` is the path of a field that is known and not served.
    """
    for name, value in (config.model_extra or {}).items():
        if name in REFUSED and not (value is None or value in ([], {}) or value in REFUSED[name]):
            raise InvalidRequest(f"`{path}{name}` is not supported by this server; leave it out.", param=path + name)
    fields: dict[str, Any] = {}
    for ours, theirs in _given(config).items():
        fields[ours] = getattr(config, theirs)
    if "n" in fields:
        fields["n"] = max(1, fields["n"])  # 0: one answer, and not in a list
    for number, ids in enumerate(config.stop_words_list or ()):
        if len(ids) != 1:
            where = f"{path}stop_words_list[{number}]"
            raise InvalidRequest(
                f"`{where}` has {len(ids)} token ids; a stop word of one is served. Send it as text in stop_words_str.",
                param=where,
            )
    if config.stop_words_list:
        fields["stop_token_ids"] = [ids[0] for ids in config.stop_words_list]
    return fields


def wire_names(config: GenerateConfig, path: str) -> dict[str, str]:
    """Return where the fields of SamplingParams that `config` sets stand in the body."""
    return {ours: path + theirs for ours, theirs in _given(config).items()}


def _given(config: GenerateConfig) -> dict[str, str]:
    """Return the names of what `config` sets: ours -> theirs."""
    found: dict[str, str] = {}
    for ours, theirs in _NAMES.items():
        name = next((name for name in theirs if getattr(config, name) is not None), None)
        if name is not None:
            found[ours] = name
    return found
