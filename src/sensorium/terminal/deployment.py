"""What `sensorium deploy` is asked to serve, worked out from ms-swift's options before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from sensorium.errors import ConfigurationError
from sensorium.lora.folder import DEFAULT_NAME
from sensorium.registry.finetuned import Finetuned, is_adapter, merged_folder, read_finetuned
from sensorium.registry.model_types import MODEL_TYPES, hub_id, named
from sensorium.settings import Hub
from sensorium.terminal.adapters import Adapter
from sensorium.terminal.foreign import note

_MAIN_BRANCH = {"huggingface": "main", "modelscope": "master"}


class Deployment(NamedTuple):
    """A model to serve.

    Attributes:
        model: folder or hub id of full weights; those below the adapters, if there are any.
        hub, revision: where a hub id is looked up.
        name: in requests, if nothing else is said.
        dtype, system: of the fine-tuning, where nothing else is said; None where it does not say either.
        adapters, merge: what `terminal.adapters.with_adapters` takes.
    """

    model: str
    hub: Hub
    revision: str | None
    name: str
    dtype: str | None = None
    system: str | None = None
    adapters: tuple[Adapter, ...] = ()
    merge: bool = False


def plan(options: dict[str, Any], hub: Hub) -> Deployment:
    """Return what the options of `sensorium deploy` ask for.

    Raises:
        UsageError: they ask for nothing, or contradict each other.
        ConfigurationError: a folder cannot be used, or is not what the model type says.
    """
    given, folder = options["model_id_or_path"], options["ckpt_dir"]
    if not (options["model_type"] or given or folder):
        raise click.UsageError(
            f"say what to serve: --model_type ({', '.join(MODEL_TYPES)}), --model_id_or_path DIR, or --ckpt_dir DIR."
        )
    tuned = read_finetuned(folder, use_arguments=options["load_args_from_ckpt_dir"]) if folder else None
    kind = _model_type(options["model_type"], given, tuned)
    tuned, merge = _merged(tuned, options["merge_lora"])
    adapters = (Adapter(DEFAULT_NAME, str(tuned.folder)),) if tuned is not None and tuned.adapter else ()
    model = _weights(given, kind, tuned, hub)
    _check_architecture(model, kind)
    _check_template(options["template_type"], kind)
    revision = options["revision"] or options["model_revision"] or (tuned.revision if tuned else None)
    return Deployment(
        model=model,
        hub=hub,
        revision=None if revision in _MAIN_BRANCH.values() else revision,
        name=kind or folder or given,
        dtype=tuned.dtype if tuned else None,
        system=tuned.system if tuned else None,
        adapters=adapters,
        merge=merge,
    )


def _model_type(said: str | None, given: str | None, tuned: Finetuned | None) -> str | None:
    """Return the model type; None where nobody says it."""
    trained = tuned.model_type if tuned else None
    if said and trained and said != trained:
        raise click.UsageError(f"--model_type is {said!r}, but {tuned.folder} was trained as {trained!r}.")  # type: ignore[union-attr]
    found = said or trained or (named(given) if given else None)
    if found is not None and found not in MODEL_TYPES and (given or tuned):
        note(f"--model_type {found}", "config.json decides what it is; this is its name in requests")
    return found


def _merged(tuned: Finetuned | None, merge: bool) -> tuple[Finetuned | None, bool]:
    """Take swift's merged folder instead of the adapter, where it is there and merging was asked for."""
    if not merge:
        return tuned, False
    if tuned is None or not tuned.adapter:
        note("--merge_lora", "there is no adapter in --ckpt_dir")
        return tuned, False
    merged = merged_folder(tuned)
    if merged is None:
        return tuned, True
    note("--merge_lora", f"{merged} is there already and is served")
    return Finetuned(merged, adapter=False, dtype=tuned.dtype, system=tuned.system), False


def _weights(given: str | None, kind: str | None, tuned: Finetuned | None, hub: Hub) -> str:
    """Return the folder or hub id of the full weights."""
    if tuned is not None and not tuned.adapter:
        if given:
            note(f"--model_id_or_path {given}", f"{tuned.folder} has full weights")
        return str(tuned.folder)
    if given:
        if tuned is None and is_adapter(Path(given).expanduser()):
            raise click.UsageError(f"{given} holds an adapter; give it as --ckpt_dir.")
        return given
    base = tuned.base if tuned else None
    if base is not None and not Path(base).is_dir():
        known = named(base)
        return hub_id(known, hub) if known else base
    if base is not None:
        return base
    if kind is None:
        raise click.UsageError(
            f"{tuned.folder if tuned else '--ckpt_dir'} does not say what it was trained on; give --model_type or "
            "--model_id_or_path."
        )
    return hub_id(kind, hub)


def _check_architecture(model: str, kind: str | None) -> None:
    row = MODEL_TYPES.get(kind or "")
    if row is not None:
        check_architecture(model, f"--model_type {kind}", row.architectures)


def check_architecture(model: str, said: str, architectures: Sequence[str]) -> None:
    """Refuse a folder whose config.json has none of `architectures`, which `said` stands for.

    Raises:
        ConfigurationError: it has another; the message has both.
    """
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
        found = str(config["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return  # a hub id, or what loading will complain about
    if found not in architectures:
        raise ConfigurationError(
            f"{model} is {found}, but {said} means {' or '.join(architectures)}. Give the right one of them, or leave "
            "the type out."
        )


def _check_template(template: str, kind: str | None) -> None:
    row = MODEL_TYPES.get(kind or "")
    if template.upper() == "AUTO" or (row is not None and template == row.template):
        return
    own = f"{kind} has {row.template!r}" if row else "the checkpoint brings its own"
    raise click.UsageError(f"--template_type {template} cannot be served: {own}. Give another as --chat-template FILE.")
