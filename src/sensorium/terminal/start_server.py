"""`python -m sensorium.start_server`: the environment variables of rtp-llm's server, and its flags.

From rtp-llm of August 2024, maga_transformer/model_factory.py (`create_normal_model_config`).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import click

from sensorium.environment import names
from sensorium.terminal.adapters import Adapter, with_adapters
from sensorium.terminal.foreign import VLLM, foreign_options, note
from sensorium.terminal.options import engine_settings, run_options, serve_options
from sensorium.terminal.server_options import served_names, server_options, start
from sensorium.terminal.values import Dtype, GenerationConfig

Command = Callable[..., Any]
PORT = 8088
# rtp-llm's name -> config.json's architectures.
MODEL_TYPES = {
    "qwen_vl": ("QWenLMHeadModel",),
    "llava": ("LlavaLlamaForCausalLM", "LlavaForConditionalGeneration"),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration",),
    "minicpmv": ("MiniCPMV",),
    "internvl": ("InternVLChatModel", "InternVLForConditionalGeneration"),
    "qwen_2": ("Qwen2ForCausalLM",),
    "llama": ("LlamaForCausalLM",),
}
_REFUSED = {
    "EXTRA_DATA_PATH": "the vision tower is read from the checkpoint",
    "MODEL_TEMPLATE_TYPE": "give the prompt form as --chat-template FILE",
    "PTUNING_PATH": "prompt tuning is not served",
}
_NO_EFFECT = {
    "SP_MODEL_TYPE": "there is no speculative decoding",
    "SEQ_SIZE_PER_BLOCK": "give --block-size",
    "TIMEOUT_KEEP_ALIVE": "connections are kept for 30 s",
    "USE_RPC_MODEL": "the model is in a process of its own always",
}
_ONE = click.IntRange(1, 1)

_OPTIONS = (
    click.option(
        "--model-type",
        type=click.Choice(list(MODEL_TYPES)),
        envvar=names("SENSORIUM_MODEL_TYPE"),
        help="What the checkpoint is; must fit its config.json.",
    ),
    click.option("--checkpoint-path", envvar=names("SENSORIUM_CHECKPOINT_PATH"), help="The model's folder, or hub id."),
    click.option("--tokenizer-path", envvar=names("SENSORIUM_TOKENIZER_PATH"), help="The same as --tokenizer."),
    click.option(
        "--start-port",
        "--port",
        "port",
        type=click.IntRange(0, 65535),
        default=PORT,
        envvar=[*names("SENSORIUM_START_PORT"), *names("SENSORIUM_PORT")],
        show_default=True,
        help="0 takes any free one.",
    ),
    click.option(
        "--max-seq-len",
        type=click.IntRange(min=0),
        default=0,
        envvar=names("SENSORIUM_MAX_SEQ_LEN"),
        help="The same as --max-model-len; 0: the model's.",
    ),
    click.option("--act-type", type=Dtype(), envvar=names("SENSORIUM_ACT_TYPE"), help="The same as --dtype."),
    click.option("--weight-type", type=Dtype(), envvar=names("SENSORIUM_WEIGHT_TYPE"), help="The same as --dtype."),
    click.option("--tp-size", type=_ONE, default=1, envvar=names("SENSORIUM_TP_SIZE"), help="Devices; only 1."),
    click.option("--world-size", type=_ONE, default=1, envvar=names("SENSORIUM_WORLD_SIZE"), help="Devices; only 1."),
    click.option(
        "--concurrency-limit",
        type=click.IntRange(min=1),
        envvar=names("SENSORIUM_CONCURRENCY_LIMIT"),
        help="The same as --max-queued.",
    ),
    click.option("--lora-info", envvar=names("SENSORIUM_LORA_INFO"), help='Adapters as JSON: {"name": "folder"}.'),
    click.option(
        "--generation-config-path",
        type=GenerationConfig(),
        envvar=names("SENSORIUM_GENERATION_CONFIG_PATH"),
        help="The same as --generation-config.",
    ),
)


def _rtp_options(command: Command) -> Command:
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), command)


@click.command("start-server", hidden=True)
@_rtp_options
@server_options
@run_options
@serve_options
@foreign_options(VLLM)
def start_server(model_type: str | None, checkpoint_path: str | None, **options: Any) -> int:
    """Serve what environment variables say: CHECKPOINT_PATH, MODEL_TYPE, TOKENIZER_PATH, START_PORT, ..."""
    from sensorium.terminal.deployment import check_architecture

    if not checkpoint_path:
        raise click.UsageError("nothing says what to serve: set CHECKPOINT_PATH to the model's folder.")
    for name, why in _REFUSED.items():
        if os.environ.get(name):
            raise click.UsageError(f"{name} is set and cannot be served: {why}. Unset it.")
    for name, why in _NO_EFFECT.items():
        if os.environ.get(name):
            note(name, why)
    if model_type:
        check_architecture(checkpoint_path, f"MODEL_TYPE {model_type}", MODEL_TYPES[model_type])
    options |= {
        "dtype": _first(options["dtype"], "auto", options["act_type"], options["weight_type"]),
        "max_model_len": options["max_model_len"] or options["max_seq_len"] or None,
        "max_queued": options["concurrency_limit"] or options["max_queued"],
        "tokenizer": options["tokenizer"] or options["tokenizer_path"] or None,
        "generation_config": options["generation_config_path"] or options["generation_config"],
    }
    served = served_names(options, tuple(filter(None, (model_type, checkpoint_path))))
    loaded = engine_settings(checkpoint_path, options, served[0])
    loaded = with_adapters(loaded, _adapters(options["lora_info"]), merge=False)
    return start(dict.fromkeys(served, loaded), options)


def _first(chosen: str, unset: str, *others: str | None) -> str:
    return chosen if chosen != unset else next((other for other in others if other), unset)


def _adapters(text: str | None) -> tuple[Adapter, ...]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(folder, str) and folder for folder in value.values()):
        raise click.UsageError(f'LORA_INFO is {text!r}; it must be JSON of the form {{"name": "folder"}}.')
    return tuple(Adapter(name, folder) for name, folder in value.items())
