"""The command line: `sensorium serve`, `worker`, `models`, `deploy`, `run`, `chat` and `merge-lora`.

Imports here are few on purpose: `sensorium --version` needs no torch, and `serve` starts its slow part first.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from sensorium import __version__
from sensorium.environment import names
from sensorium.errors import ConfigurationError, InvalidRequest, SensoriumError
from sensorium.terminal.arguments import is_server, normalise
from sensorium.terminal.complaints import explained
from sensorium.terminal.deploy import deploy
from sensorium.terminal.foreign import REMOTE_CODE, VLLM, foreign_options, noted
from sensorium.terminal.models import models
from sensorium.terminal.options import (
    BUNDLED,
    BUNDLED_AUDIO,
    bundled_audio_settings,
    chosen_hub,
    engine_settings,
    hub_options,
    run_options,
    serve_options,
)
from sensorium.terminal.server_options import PORT, served_names, server_options, start
from sensorium.terminal.start_server import start_server
from sensorium.terminal.without_effect import note_options_of_models
from sensorium.terminal.worker import worker

USAGE_ERROR = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="sensorium", message="%(prog)s %(version)s")
def cli() -> None:
    """Serve models that see, hear and watch."""


@cli.command()
@click.argument("model", required=False)
@click.option("--model", "model_option", help="The same as MODEL.")
@click.option(
    "--merge-lora/--no-merge-lora",
    default=False,
    help="MODEL is an adapter: merge it into its base, in a folder ADAPTER-merged, and serve that.",
)
@click.option("--no-model", is_flag=True, help="Start without a model: serve those that are registered.")
@PORT
@server_options
@run_options
@serve_options
@foreign_options(VLLM)
def serve(model: str | None, model_option: str | None, merge_lora: bool, no_model: bool, **options: Any) -> int:
    """Serve MODEL over an OpenAI-compatible HTTP API.

    MODEL is a folder, a hub id such as Qwen/Qwen3-VL-2B-Instruct, or nothing: the small models that come with
    Sensorium, tiny-vl, which sees, and tiny-audio, which hears and is loaded when it is asked for. With --models and
    without MODEL only registered models are served.
    """
    from sensorium.lora.folder import DEFAULT_NAME, is_adapter
    from sensorium.terminal.merge import merged_model

    if model and model_option and model != model_option:
        raise click.UsageError(f"two models are given: {model!r} and --model {model_option!r}.")
    if options["engine"] == "remote" and not (model or model_option):
        raise click.UsageError("--engine remote needs MODEL: the model's name at --base-url.")
    named = bool(model or model_option or options["served_names"])
    if no_model and named:
        raise click.UsageError("--no-model is given, and a model too.")
    if no_model or (options["models_file"] and not named):
        note_options_of_models("no model is given; registered ones have their own")
        engine_settings(BUNDLED, options)  # says which flags have no effect
        return start({}, options)
    chosen = model or model_option or BUNDLED
    if merge_lora:
        chosen = merged_model(chosen, None, options["revision"], chosen_hub(options))
    served = served_names(options, (chosen,))
    if is_adapter(chosen):
        served = tuple(dict.fromkeys((*served, DEFAULT_NAME)))
    loaded = engine_settings(chosen, options, served[0])
    models = dict.fromkeys(served, loaded)
    on_demand: tuple[str, ...] = ()
    if not (model or model_option or options["served_names"]):
        models[BUNDLED_AUDIO], on_demand = bundled_audio_settings(loaded), (BUNDLED_AUDIO,)
    return start(models, options, on_demand)


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="[MODEL] QUESTION")
@click.option("--image", "-i", "images", multiple=True, help="A file or an http(s) URL; several may be given.")
@click.option("--video", "videos", multiple=True, help="A file or an http(s) URL; several may be given.")
@click.option("--audio", "-a", "sounds", multiple=True, help="A file or an http(s) URL; several may be given.")
@click.option("--system", help="What the model is told first.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer; default: what the context leaves.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0: always the likeliest token.")
@run_options
@foreign_options([REMOTE_CODE])
def run(
    words: tuple[str, ...],
    images: tuple[str, ...],
    videos: tuple[str, ...],
    sounds: tuple[str, ...],
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    **options: Any,
) -> int:
    """Ask one QUESTION, about pictures, videos or sounds if you like, and print the answer.

    Without MODEL a small one that comes with Sensorium answers: tiny-audio about sounds, else tiny-vl.
    """
    from sensorium.terminal.answer import Attachment, LocalModel, print_answer, user_message

    if len(words) > 2:
        raise click.UsageError(f"{len(words)} arguments are given; put the question in quotes.")
    bundled = BUNDLED_AUDIO if sounds and not (images or videos) else BUNDLED
    model, question = words if len(words) == 2 else (bundled, words[0])
    messages = [{"role": "system", "content": system}] if system else []
    given: dict[Attachment, tuple[str, ...]] = {"image": images, "video": videos, "audio": sounds}
    messages.append(user_message(question, [(kind, written) for kind, each in given.items() for written in each]))
    with LocalModel(engine_settings(model, options)) as local:
        print_answer(local.answer(messages, max_tokens=max_tokens, temperature=temperature))
    return 0


@cli.command()
@click.argument("model", required=False, metavar="[MODEL|URL]")
@click.option("--api-key", envvar=names("SENSORIUM_API_KEY"), help="Key of the server at URL.")
@click.option("--system", help="What the model is told first.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer; default: what the context leaves.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0: always the likeliest token.")
@run_options
@foreign_options([REMOTE_CODE])
def chat(
    model: str | None,
    api_key: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    **options: Any,
) -> int:
    """Talk with MODEL, or with the server at URL. /image, /video and /audio FILE attach media."""
    from sensorium.terminal.answer import LocalModel
    from sensorium.terminal.chat import Conversation
    from sensorium.terminal.remote import RemoteModel

    target = model or BUNDLED
    remote = is_server(target)
    if remote:
        note_options_of_models("the server decides how its model is run", run_only=True)
        if line := noted():
            click.echo(line, err=True)
    with RemoteModel(target, api_key) if remote else LocalModel(engine_settings(target, options)) as answering:
        Conversation(answering, system, max_tokens=max_tokens, temperature=temperature).run()
    return 0


@cli.command("merge-lora")
@click.argument("adapter", type=click.Path(exists=True, file_okay=False))
@click.option("--base-model", help="A folder or hub id; default: what the adapter's files name.")
@click.option("--output", type=click.Path(), help="Default: ADAPTER-merged.")
@hub_options
def merge_lora(adapter: str, base_model: str | None, output: str | None, **options: Any) -> int:
    """Merge ADAPTER into its base model: the result loads like any checkpoint."""
    from sensorium.terminal.merge import merge_adapter

    click.echo(merge_adapter(adapter, base_model, output, options["revision"], chosen_hub(options)))
    return 0


cli.add_command(models)
cli.add_command(deploy)
cli.add_command(start_server)
cli.add_command(worker)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; end the process with 0, 2 for a wrong use or setting, and 1 for any other failure."""
    sys.exit(_main(normalise(sys.argv[1:] if arguments is None else arguments)))


def _named(arguments: list[str]) -> str:
    """Return the command that `arguments` name, for errors that do not know theirs: a flag without its value."""
    words = ["sensorium"]
    command: click.Command = cli
    for word in arguments:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        words.append(word)
        command = command.commands[word]
    return " ".join(words)


def _main(arguments: list[str]) -> int:
    try:
        return int(cli.main(arguments, prog_name="sensorium", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE_ERROR
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else _named(arguments)
        return _fail(f"{explained(error)} See `{command} --help`.", USAGE_ERROR)
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
