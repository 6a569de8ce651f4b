"""From a model's name to a folder on this machine, downloading it where it has to be."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sensorium.errors import ConfigurationError
from sensorium.registry import modelscope
from sensorium.registry.download import Progress, download, snapshot
from sensorium.settings import Hub

if TYPE_CHECKING:
    from rich.console import Console

BUNDLED = ("tiny-vl", "tiny-audio")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(
    model: str,
    revision: str | None = None,
    on_progress: Progress = lambda phase, fraction: None,
    hub: Hub = "huggingface",
) -> Path:
    """Return the folder that holds `model`: a directory, a bundled name, or a hub id such as Qwen/Qwen3-VL-2B-Instruct.

    Hub models are kept below `SENSORIUM_HOME`/hub; one that is there complete is used without asking the hub.
    `HF_HUB_OFFLINE` means either hub; `HF_ENDPOINT` and `HF_TOKEN`, or `MODELSCOPE_ENDPOINT` and
    `MODELSCOPE_API_TOKEN`, are honoured.

    Raises:
        ConfigurationError: no such directory or model, no access, no network, or no space on the disk.
    """
    folder = local_folder(model)
    if folder is not None:
        return _checked(folder)
    if model in BUNDLED:
        return _bundled(model)
    if not _HUB_ID.fullmatch(model):
        raise ConfigurationError(_not_found(model))
    load = modelscope.download if hub == "modelscope" else download
    return _checked(load(model, revision, on_progress))


def on_this_machine(model: str, revision: str | None = None, hub: Hub = "huggingface") -> Path | None:
    """Return the folder in which `resolve` would find `model` now, complete or not; None: it would have to download."""
    folder = local_folder(model)
    if folder is not None:
        return folder
    if model in BUNDLED:
        return _bundled(model)
    find = modelscope.snapshot if hub == "modelscope" else snapshot
    return find(model, revision) if _HUB_ID.fullmatch(model) else None


def local_folder(model: str) -> Path | None:
    """Return the folder that `model` is the path of; None: it is none that can be seen, whatever else it is."""
    folder = os.path.expanduser(model)  # unlike Path's, these take any text: unknown users, endless names
    return Path(folder) if os.path.isdir(folder) else None


def is_hub_id(model: str) -> bool:
    """Whether `model` would be looked up on a hub: it is no folder, not bundled, and of the form of an id."""
    return model not in BUNDLED and local_folder(model) is None and bool(_HUB_ID.fullmatch(model))


def _checked(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    there = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    below = [str(found.parent) for found in sorted(folder.glob("*/config.json"))[:3]]
    hint = f" Did you mean {' or '.join(below)}?" if below else ""
    raise ConfigurationError(
        f"{folder} has no config.json, so it is not a model. It holds: {shown or 'nothing'}.{hint} Expected are "
        "config.json, tokenizer.json and *.safetensors in one folder."
    )


def _bundled(name: str) -> Path:
    folder = resources.files("sensorium").joinpath("bundled", name)
    if not isinstance(folder, Path) or not folder.is_dir():
        raise ConfigurationError(f"The bundled model {name!r} is missing from this installation; install it again.")
    return _checked(folder)


def _not_found(model: str) -> str:
    parent = Path(os.path.expanduser(model)).parent
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if os.path.isdir(parent) else []
    near = [str(parent / name) for name in difflib.get_close_matches(Path(model).name, names, 3, 0.5)]
    near += difflib.get_close_matches(model, BUNDLED, 1, 0.5)
    hint = f" Nearest: {', '.join(near)}." if near else f" Bundled with the program: {', '.join(BUNDLED)}."
    return f"There is no folder {model!r}, and it is not a hub id of the form 'organisation/name'.{hint}"


@contextmanager
def rich_progress(console: Console | None = None) -> Iterator[Progress]:
    """Show progress on standard error: yields the `on_progress` to hand to `resolve` and to loading."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console or Console(stderr=True), transient=True) as bars:
        tasks = {}

        def show(phase: str, fraction: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=1.0)
            bars.update(tasks[phase], completed=fraction)

        yield show
