"""The command line: `sensorium serve`, `run` and `chat`.

Imports here are few on purpose: `sensorium --version` needs no torch, and `serve` starts its slow part first.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from sensorium import __version__
from sensorium.errors import ConfigurationError, InvalidRequest, SensoriumError
from sensorium.settings import ServerSettings
from sensorium.terminal.arguments import normalise
from sensorium.terminal.options import (
    BUNDLED,
    BUNDLED_AUDIO,
    bundled_audio_settings,
    engine_settings,
    media_limits,
    run_options,
    serve_options,
)
from sensorium.terminal.values import Bytes

USAGE_ERROR = 2
_KEYS = ["SENSORIUM_API_KEY", "VLLM_API_KEY"]
_SERVER = ServerSettings()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="sensorium", message="%(prog)s %(version)s")
def cli() -> None:
    """Serve models that see, hear and watch."""


@cli.command()
@click.argument("model", required=False)
@click.option("--model", "model_option", hidden=True)
@click.option("--host", default=_SERVER.host, envvar="SENSORIUM_HOST", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_SERVER.port,
    envvar="SENSORIUM_PORT",
    show_default=True,
    help="0 takes any free one.",
)
@click.option("--api-key", "api_keys", multiple=True, envvar=_KEYS, help="Ask for this key; several may be given.")
@click.option("--served-model-name", "served_names", multiple=True, help="Names in requests; default: MODEL.")
@click.option("--max-body-bytes", type=Bytes(), default=_SERVER.max_body_bytes, help="Largest request.")
@click.option("--max-queued", type=click.IntRange(min=1), default=_SERVER.max_queued, help="Requests at once.")
@click.option("--grace", type=click.FloatRange(min=0), default=_SERVER.grace_s, help="Seconds to finish on SIGTERM.")
@click.option("--preload/--no-preload", default=True, help="Load the model at start, or with the first request.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    envvar="SENSORIUM_LOG_LEVEL",
)
@run_options
@serve_options
def serve(
    model: str | None,
    model_option: str | None,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    served_names: tuple[str, ...],
    max_body_bytes: int,
    max_queued: int,
    grace: float,
    preload: bool,
    log_level: str,
    **options: Any,
) -> int:
    """Serve MODEL over an OpenAI-compatible HTTP API.

    MODEL is a folder, a hub id such as Qwen/Qwen3-VL-2B-Instruct, or nothing: the small models that come with
    Sensorium, tiny-vl, which sees, and tiny-audio, which hears and is loaded when it is asked for.
    """
    from sensorium.terminal.serve import serve as serve_models

    if model and model_option and model != model_option:
        raise click.UsageError(f"two models are given: {model!r} and --model {model_option!r}.")
    if not all(api_keys):
        raise click.UsageError("an --api-key is empty.")
    if not all(served_names):
        raise click.UsageError("a --served-model-name is empty.")
    chosen = model or model_option or BUNDLED
    names = served_names or (chosen,)
    loaded = engine_settings(chosen, options, names[0])
    settings = ServerSettings(
        host=host,
        port=port,
        api_keys=api_keys,
        max_body_bytes=max_body_bytes,
        max_queued=max_queued,
        grace_s=grace,
        preload=preload,
        media=media_limits(options),
    )
    models = dict.fromkeys(names, loaded)
    on_demand: tuple[str, ...] = ()
    if not (model or model_option or served_names):
        models[BUNDLED_AUDIO], on_demand = bundled_audio_settings(loaded), (BUNDLED_AUDIO,)
    return serve_models(models, settings, log_level, on_demand)


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="[MODEL] QUESTION")
@click.option("--image", "-i", "images", multiple=True, help="A file or an http(s) URL; several may be given.")
@click.option("--audio", "-a", "sounds", multiple=True, help="A file or an http(s) URL; several may be given.")
@click.option("--system", help="What the model is told first.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer; default: what the context leaves.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0: always the likeliest token.")
@run_options
def run(
    words: tuple[str, ...],
    images: tuple[str, ...],
    sounds: tuple[str, ...],
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    **options: Any,
) -> int:
    """Ask one QUESTION, about pictures or sounds if you like, and print the answer.

    Without MODEL a small one that comes with Sensorium answers: tiny-audio about sounds, else tiny-vl.
    """
    from sensorium.terminal.answer import LocalModel, print_answer, user_message

    if len(words) > 2:
        raise click.UsageError(f"{len(words)} arguments are given; put the question in quotes.")
    bundled = BUNDLED_AUDIO if sounds and not images else BUNDLED
    model, question = words if len(words) == 2 else (bundled, words[0])
    messages = [{"role": "system", "content": system}] if system else []
    messages.append(
        user_message(question, [("image", image) for image in images] + [("audio", sound) for sound in sounds])
    )
    with LocalModel(engine_settings(model, options)) as local:
        print_answer(local.answer(messages, max_tokens=max_tokens, temperature=temperature))
    return 0


@cli.command()
@click.argument("model", required=False, metavar="[MODEL|URL]")
@click.option("--api-key", envvar=_KEYS, help="Key of the server at URL.")
@click.option("--system", help="What the model is told first.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer; default: what the context leaves.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0: always the likeliest token.")
@run_options
def chat(
    model: str | None,
    api_key: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    **options: Any,
) -> int:
    """Talk with MODEL, or with the server at URL. /image FILE and /audio FILE attach pictures and sounds."""
    from sensorium.terminal.answer import LocalModel
    from sensorium.terminal.chat import Conversation
    from sensorium.terminal.remote import RemoteModel

    target = model or BUNDLED
    remote = target.startswith(("http://", "https://"))
    with RemoteModel(target, api_key) if remote else LocalModel(engine_settings(target, options)) as answering:
        Conversation(answering, system, max_tokens=max_tokens, temperature=temperature).run()
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; end the process with 0, 2 for a wrong use or setting, and 1 for any other failure."""
    sys.exit(_main(normalise(sys.argv[1:] if arguments is None else arguments)))


def _main(arguments: list[str]) -> int:
    try:
        return int(cli.main(arguments, prog_name="sensorium", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE_ERROR
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "sensorium"
        return _fail(f"{error.format_message()} See `{command} --help`.", USAGE_ERROR)
    except (ConfigurationError, InvalidRequest) as error:
        return _fail(error.message, USAGE_ERROR)
    except SensoriumError as error:
        return _fail(error.message, 1)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        return 130
    except BrokenPipeError:  # `sensorium run ... | head`
        sys.stderr.close()
        return 1


def _fail(message: str, status: int) -> int:
    click.echo(f"sensorium: {message}", err=True)
    return status
