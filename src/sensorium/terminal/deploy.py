"""`sensorium deploy`: the options of `swift deploy` (ms-swift 2.x)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
import msgspec

from sensorium.settings import Hub
from sensorium.terminal.adapters import with_adapters
from sensorium.terminal.foreign import SWIFT, VLLM, foreign_options
from sensorium.terminal.options import engine_settings, run_options, serve_options, yes_or_no
from sensorium.terminal.server_options import PORT, served_names, server_options, start
from sensorium.terminal.values import Dtype, SamplingDefaults

Command = Callable[..., Any]
# swift's parser takes switches bare, or with true or false behind them.
_SWITCH: dict[str, Any] = {"is_flag": False, "flag_value": "true", "type": click.BOOL}
_SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens", "do_sample")

_OPTIONS = (
    click.option("--model-type", help="A name of ms-swift, such as qwen-vl-chat; the table is in docs/cli.md."),
    click.option("--model-id-or-path", help="Folder or hub id of the weights; default: those of the model type."),
    click.option("--model-revision", help="The same as --revision."),
    click.option("--ckpt-dir", help="Folder that fine-tuning left: full or merged weights, or an adapter."),
    click.option(
        "--load-args-from-ckpt-dir", default=True, **_SWITCH, help="Read sft_args.json in --ckpt-dir (default: true)."
    ),
    click.option("--merge-lora/--no-merge-lora", default=False, help="Add the adapter to the weights, once, at start."),
    click.option("--template-type", default="AUTO", help="AUTO, or the model type's own."),
    click.option("--system", help="First message of conversations that bring no system message."),
    click.option("--temperature", type=float, help="Default of requests that bring none; so are the next five."),
    click.option("--top-k", type=int, help="Likeliest tokens to choose from."),
    click.option("--top-p", type=float, help="Share of the likeliest tokens to choose from."),
    click.option("--repetition-penalty", type=float, help="1: none."),
    click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest answer."),
    click.option("--do-sample", default=None, **_SWITCH, help="false: always the likeliest token."),
)


def _swift_options(command: Command) -> Command:
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), command)


@click.command()
@_swift_options
@PORT
@server_options
@run_options
@serve_options
@foreign_options((*SWIFT, *VLLM))
def deploy(**options: Any) -> int:
    """Serve what ms-swift 2.x would: a model type, a folder of weights, or a fine-tuned checkpoint.

    Hub ids are looked up on ModelScope, as swift does; USE_HF=1 means Hugging Face.
    """
    from sensorium.terminal.deployment import plan

    hub: Hub = options["hub"] or ("huggingface" if yes_or_no("USE_HF") else "modelscope")
    deployment = plan(options, hub)
    if options["dtype"] == "auto" and deployment.dtype is not None:
        options["dtype"] = Dtype().convert(deployment.dtype, None, None)
    sampling = {name: options[name] for name in _SAMPLING if options[name] is not None}
    options |= {
        "hub": hub,
        "revision": deployment.revision,
        "override_generation_config": SamplingDefaults().convert(
            options["override_generation_config"] | sampling, None, None
        ),
    }
    names = served_names(options, (deployment.name,))
    system = options["system"] if options["system"] is not None else deployment.system
    loaded = msgspec.structs.replace(engine_settings(deployment.model, options, names[0]), system=system)
    loaded = with_adapters(loaded, deployment.adapters, merge=deployment.merge)
    return start(dict.fromkeys(names, loaded), options)
