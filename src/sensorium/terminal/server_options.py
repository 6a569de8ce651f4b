"""The options of the server itself, shared by every command that starts one, and the start they all end in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from sensorium.environment import names
from sensorium.settings import NOWHERE, EngineSettings, ServerSettings, registry_file
from sensorium.terminal.cluster import CLUSTER_OPTIONS, cluster_of
from sensorium.terminal.options import media_limits, yes_or_no
from sensorium.terminal.values import Bytes, IdleTtl, Seconds

Command = Callable[..., Any]
_SERVER = ServerSettings()

PORT = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_SERVER.port,
    envvar=names("SENSORIUM_PORT"),
    show_default=True,
    help="0 takes any free one.",
)
_OPTIONS = (
    click.option(
        "--host", default=_SERVER.host, envvar=names("SENSORIUM_HOST"), show_default=True, help="Address to listen on."
    ),
    click.option(
        "--api-key",
        "api_keys",
        multiple=True,
        envvar=names("SENSORIUM_API_KEY"),
        help="Ask for this key; several may be given.",
    ),
    click.option(
        "--admin-key",
        "admin_keys",
        multiple=True,
        envvar=names("SENSORIUM_ADMIN_KEY"),
        help="Ask for this key before models are registered, loaded or removed; several may be given.",
    ),
    click.option(
        "--registry",
        envvar=names("SENSORIUM_REGISTRY"),
        help="Where registered models are kept: file, postgresql://..., or none; default: SENSORIUM_HOME/registry.db.",
    ),
    click.option(
        "--models",
        "models_file",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True),
        envvar=names("SENSORIUM_MODELS"),
        help="File of models to register at start: models.toml.",
    ),
    click.option(
        "--idle-ttl",
        type=IdleTtl(),
        default=_SERVER.idle_ttl_s,
        help="Unload registered models that nobody used for so long: 90, 10m, 2h, never.",
    ),
    click.option(
        "--memory-budget",
        type=Bytes(),
        envvar=names("SENSORIUM_MEMORY_BUDGET"),
        help="Memory that models may take together; idle ones leave for others. Default: four fifths of what there is.",
    ),
    click.option(
        "--device-memory-budget",
        type=Bytes(),
        envvar=names("SENSORIUM_DEVICE_MEMORY_BUDGET"),
        help="The same for each GPU's memory. Default: nine tenths.",
    ),
    click.option(
        "--trust-engine-args",
        is_flag=True,
        help="Registrations may carry options with which an engine runs code from elsewhere.",
    ),
    *CLUSTER_OPTIONS,
    click.option("--served-model-name", "served_names", multiple=True, help="Names in requests; default: MODEL."),
    click.option("--max-body-bytes", type=Bytes(), default=_SERVER.max_body_bytes, help="Largest request."),
    click.option("--max-queued", type=click.IntRange(min=1), default=_SERVER.max_queued, help="Requests at once."),
    click.option(
        "--grace", type=click.FloatRange(min=0), default=_SERVER.grace_s, help="Seconds to finish on SIGTERM."
    ),
    click.option("--trust-request-chat-template", is_flag=True, help="Run chat templates that come with requests."),
    click.option(
        "--allowed-lora-path",
        type=click.Path(exists=True, file_okay=False, resolve_path=True),
        help="Folder below which adapters may be loaded while serving.",
    ),
    click.option("--preload/--no-preload", default=True, help="Load the model at start, or with the first request."),
    click.option(
        "--engine-timeout",
        type=Seconds(),
        default=_SERVER.stalled_after_s,
        envvar=names("SENSORIUM_ENGINE_TIMEOUT"),
        help="Seconds one step may take before its worker is replaced.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
        default="info",
        envvar=names("SENSORIUM_LOG_LEVEL"),
        help="How much is logged.",
    ),
)


def server_options(command: Command) -> Command:
    """Add the options of the server, but for its port."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), command)


def start(models: dict[str, EngineSettings], options: dict[str, Any], on_demand: Sequence[str] = ()) -> int:
    """Serve models, by the names in requests, as the options say; return the exit status.

    `on_demand` are those that wait for their first request.

    Raises:
        UsageError: a key is empty.
        SensoriumError: it cannot start.
    """
    from sensorium.terminal.serve import serve

    if not all((*options["api_keys"], *options["admin_keys"])):
        raise click.UsageError("an --api-key or --admin-key is empty.")
    registry = options["registry"] or registry_file()
    settings = ServerSettings(
        host=options["host"],
        port=options["port"],
        api_keys=options["api_keys"],
        admin_keys=options["admin_keys"],
        registry=None if registry == NOWHERE else registry,
        models_file=options["models_file"],
        idle_ttl_s=options["idle_ttl"],
        memory_budget=options["memory_budget"],
        device_memory_budget=options["device_memory_budget"],
        trust_engine_args=options["trust_engine_args"],
        max_body_bytes=options["max_body_bytes"],
        max_queued=options["max_queued"],
        grace_s=options["grace"],
        preload=options["preload"],
        trust_request_chat_template=options["trust_request_chat_template"],
        lora_root=options["allowed_lora_path"],
        lora_anywhere=bool(yes_or_no("VLLM_ALLOW_RUNTIME_LORA_UPDATING")),
        stalled_after_s=options["engine_timeout"],
        cluster=cluster_of(options),
        ray_address=options["ray_address"],
        cluster_token=options["cluster_token"],
        media=media_limits(options),
    )
    return serve(models, settings, options["log_level"], on_demand)


def served_names(options: dict[str, Any], default: Sequence[str]) -> tuple[str, ...]:
    """Return the names in requests: `--served-model-name`, or else the default ones, each once.

    Raises:
        UsageError: a name is empty.
    """
    if not all(options["served_names"]):
        raise click.UsageError("a --served-model-name is empty.")
    return tuple(dict.fromkeys(options["served_names"] or default))
