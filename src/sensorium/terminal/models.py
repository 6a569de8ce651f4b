"""`sensorium models`: register models with a running server, look at them, load, unload and remove them."""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from sensorium.environment import names
from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.settings import NOWHERE, Engine, Hub, registry_file
from sensorium.terminal.values import Bytes, Dtype, IdleTtl, Limits, ProcessorOptions

if TYPE_CHECKING:
    from rich.console import Console

    from sensorium.terminal.registry_client import RegistryClient

Command = Callable[..., Any]
_LOOK_S = 0.2
_UNBROKEN = 1000  # columns
_AT_LEAST_1 = click.IntRange(min=1)


class JsonObject(click.ParamType[dict[str, Any]]):
    """Options of an engine: '{"enforce_eager": true}'."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            found = value if isinstance(value, dict) else json.loads(str(value))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.fail(f"{value!r} is not a JSON object.", param, ctx)
        return found


_SERVER = (
    click.option(
        "--url",
        envvar=names("SENSORIUM_URL"),
        help="The server; default: this machine's, port 8000.",
    ),
    click.option("--key", envvar=[*names("SENSORIUM_ADMIN_KEY"), *names("SENSORIUM_API_KEY")], help="Its key."),
    click.option(
        "--registry",
        envvar=names("SENSORIUM_REGISTRY"),
        help="Used where no server runs: a file or postgresql://...; default: SENSORIUM_HOME/registry.db.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
_FIELDS = (  # each becomes the field of /v1/models/register that is called the same
    click.option("--engine", type=click.Choice(list(get_args(Engine))), help="What runs it; default: auto."),
    click.option("--engine-args", type=JsonObject(), help="Options of the engine vllm, as JSON."),
    click.option("--base-url", help="Of the engine remote: an OpenAI-compatible server."),
    click.option("--remote-key", help="Its key."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds it may be silent."),
    click.option("--idle-ttl", type=IdleTtl(), help="Unload after so long without a request: 90, 10m, 2h, never."),
    click.option("--pinned", is_flag=True, default=None, help="Never unload it by itself."),
    click.option("--preload", is_flag=True, default=None, help="Load it now, and whenever a server starts."),
    click.option("--lora-of", help="MODEL is the folder of an adapter over the model registered by this alias."),
    click.option("--max-model-len", type=_AT_LEAST_1, help="Longest prompt and answer together, in tokens."),
    click.option("--dtype", type=Dtype(), help="Numbers to compute with."),
    click.option("--device", help="auto, cpu, cuda or cuda:N."),
    click.option("--gpu-memory-utilization", type=click.FloatRange(0, 1, min_open=True), help="Share of the GPU."),
    click.option("--tensor-parallel-size", type=_AT_LEAST_1, help="GPUs of one worker (engine vllm)."),
    click.option("--kv-cache-memory", type=Bytes(), help="Memory for the KV cache: 2GiB."),
    click.option("--max-num-seqs", type=_AT_LEAST_1, help="Answers written at once."),
    click.option("--limit-mm-per-prompt", type=Limits(), help='{"image": 5} or image=5,video=2.'),
    click.option("--mm-processor-kwargs", type=ProcessorOptions(), help='{"max_pixels": 1003520, "fps": 1}.'),
    click.option("--chat-template", help="A file on the server, or the template itself."),
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option("--hub", type=click.Choice(list(get_args(Hub))), help="Where a hub id is looked up."),
    click.option("--num-threads", "--threads", type=_AT_LEAST_1, help="Threads to compute with, at most."),
    click.option("--min-replicas", type=click.IntRange(min=0), help="Workers that always run."),
    click.option("--max-replicas", type=_AT_LEAST_1, help="Workers there may be at most."),
    click.option("--worker-id", help="Only this machine of the cluster."),
    click.option("--num-cpus", type=click.FloatRange(min=0), help="CPUs of one worker."),
    click.option("--num-gpus", type=click.FloatRange(min=0), help="GPUs of one worker; parts count too."),
    click.option("--memory", type=Bytes(), help="Memory of one worker: 8GiB."),
)


def _with(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    return lambda command: functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


@click.group()
def models() -> None:
    """Register models, look at them, load, unload and remove them."""


@models.command("register")
@click.argument("alias")
@click.argument("model")
@_with(_FIELDS)
@click.option("--wait/--no-wait", default=None, help="Return when it is loaded; default: only with --preload.")
@click.option("--replace", is_flag=True, default=None, help="Also if another model has this alias.")
@_with(_SERVER)
def register(alias: str, model: str, wait: bool | None, **options: Any) -> int:
    """Let MODEL, a folder or hub id, answer to ALIAS. It is loaded when it is asked for."""
    fields = {name: value for name, value in options.items() if name not in _SERVER_NAMES and value is not None}
    if "remote_key" in fields:
        fields["api_key"] = fields.pop("remote_key")
    if model.startswith((".", "~")) or Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().absolute())  # the server may run in another folder
    body = {"alias": alias, "model_name": model, **fields}
    _do(options, lambda registry: registry.register(body, wait), offline=True)
    return 0


@models.command("list")
@_with(_SERVER)
def list_models(**options: Any) -> int:
    """Show every model: its state, memory, and what it waits for."""
    found = _do(options, lambda registry: registry.all(), offline=True, quiet=True)
    if options["as_json"]:
        click.echo(json.dumps(found))
    elif not found:
        click.echo("Nothing is registered. `sensorium models register ALIAS MODEL` does it.")
    else:
        from sensorium.terminal.models_table import models_table

        console = _console()
        console.print(models_table(found, width=console.width))
    return 0


@models.command("show")
@click.argument("alias")
@_with(_SERVER)
def show(alias: str, **options: Any) -> int:
    """Show everything about one model."""
    found = _do(options, lambda registry: registry.one(alias), offline=True, quiet=True)
    if options["as_json"]:
        click.echo(json.dumps(found))
    else:
        from sensorium.terminal.models_table import model_page

        _console().print(model_page(found))
    return 0


@models.command("load")
@click.argument("alias")
@click.option("--wait/--no-wait", default=True, help="Return when it is loaded (default), or at once.")
@_with(_SERVER)
def load(alias: str, wait: bool, **options: Any) -> int:
    """Load a model now, and show how far it is."""
    _do(options, lambda registry: _load(registry, alias, wait))
    return 0


@models.command("unload")
@click.argument("alias")
@_with(_SERVER)
def unload(alias: str, **options: Any) -> int:
    """Give a model's memory back; the next request loads it again."""
    _do(options, lambda registry: registry.unload(alias))
    return 0


@models.command("remove")
@click.argument("alias")
@_with(_SERVER)
def remove(alias: str, **options: Any) -> int:
    """Forget a registered model."""
    _do(options, lambda registry: registry.remove(alias), offline=True)
    return 0


@models.command("events")
@click.argument("alias", required=False)
@_with(_SERVER)
def events(alias: str | None, **options: Any) -> int:
    """Print what happens to all models, or to ALIAS, until it is interrupted."""
    from sensorium.terminal.models_table import memory
    from sensorium.terminal.registry_client import RegistryClient

    with RegistryClient(options["url"] or default_url(), options["key"]) as registry:
        for event in registry.events(alias):
            status = event["status"] or {}
            if options["as_json"]:
                click.echo(json.dumps(event))
            elif event["event"] != "alive":
                phase = f"{status.get('phase')} {status.get('fraction', 0):.0%}" if status.get("phase") else ""
                told = (event["alias"], status.get("state", event["event"]), phase, memory(status))
                click.echo("  ".join(filter(None, (*told, status.get("last_error")))))
    return 0


def _console() -> Console:
    """Return where to print: as wide as the terminal, or, for programs that read, never breaking a line."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_UNBROKEN)


_SERVER_NAMES = ("url", "key", "registry", "as_json")


def default_url() -> str:
    """Return where a server of this machine listens if nothing else is said."""
    port = next((os.environ[name] for name in names("SENSORIUM_PORT") if os.environ.get(name)), "8000")
    return f"http://127.0.0.1:{port}"


def _do(options: dict[str, Any], act: Callable[[Any], Any], *, offline: bool = False, quiet: bool = False) -> Any:
    """Act on a running server's registry, or where there is none and nobody named one, on the registry itself."""
    from sensorium.terminal.registry_client import NobodyThere, RegistryClient

    try:
        with RegistryClient(options["url"] or default_url(), options["key"]) as client:
            answer = act(client)
    except NobodyThere:
        location = options["registry"] or registry_file()
        if not offline or options["url"] or location == NOWHERE:
            raise
        from sensorium.terminal.registry_file import RegistryFile

        answer = act(RegistryFile(location))
        where = "the database of --registry" if "://" in location else location
        click.echo(f"No server answers at {default_url()}; this is what is kept in {where}.", err=True)
    if not quiet:
        click.echo(json.dumps(answer) if options["as_json"] else f"{answer['message']}.")
    return answer


def _load(registry: RegistryClient, alias: str, wait: bool) -> dict[str, Any]:
    """Load a model, with a bar on a terminal."""
    from rich.console import Console

    from sensorium.terminal.progress import LoadProgress

    console = Console(stderr=True)
    if not wait or not console.is_terminal:
        return registry.load(alias, wait)
    result: list[dict[str, Any] | SensoriumError] = []

    def ask() -> None:
        try:
            result.append(registry.load(alias, wait))
        except SensoriumError as error:
            result.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    with LoadProgress(console) as progress:
        while thread.is_alive():
            thread.join(_LOOK_S)
            status = registry.one(alias)
            progress.show(alias, status["phase"] or status["state"], status["fraction"])
    if not result:
        raise ConfigurationError("The answer was lost.")
    if isinstance(result[0], SensoriumError):
        raise result[0]
    return result[0]
