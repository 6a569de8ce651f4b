"""An adapter's folder given as a model: which base it was made for. Read by the gateway, so nothing here is heavy."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sensorium.errors import ConfigurationError
from sensorium.lora.config import FILE, read_object

DEFAULT_NAME = "default-lora"  # what ms-swift calls the adapter of a model that was started on one

# Where ms-swift notes what it trained on: 2.x, its exports, 3.x.
_ARGUMENTS = ("sft_args.json", "export_args.json", "args.json")
_BASE_KEYS = ("model_id_or_path", "model", "model_cache_dir", "model_dir")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_adapter(model: str) -> bool:
    """Whether `model` is a folder with an adapter and no model of its own."""
    folder = os.path.expanduser(model)  # unlike Path's, these take any text: what is no path is no folder
    return os.path.isfile(os.path.join(folder, FILE)) and not os.path.isfile(os.path.join(folder, "config.json"))


def base_of(model: str) -> str:
    """Return the base model of an adapter's folder: a folder that is there, else a hub id.

    Raises:
        ConfigurationError: its files name none that could be used here.
    """
    folder = Path(model).expanduser()
    named = [read_object(folder / FILE).get("base_model_name_or_path")]
    for file in _ARGUMENTS:
        if (folder / file).is_file():
            arguments = read_object(folder / file)
            named += [arguments.get(key) for key in _BASE_KEYS]
    names = list(dict.fromkeys(name for name in named if isinstance(name, str) and name))
    for name in names:
        if Path(name).expanduser().is_dir():
            return name
    for name in reversed(
        names
    ):  # swift's notes have the hub's id where PEFT's file has a folder of the training machine
        if _HUB_ID.fullmatch(name):
            return name
    shown = " or ".join(map(repr, names)) or "no base model"
    raise ConfigurationError(
        f"The adapter {model} was made for {shown}, which is not on this machine. Serve its base with it: "
        f"`sensorium serve BASE --lora-modules {DEFAULT_NAME}={model}`."
    )


def merged_path(adapter: str) -> Path:
    """Where the merged model of an adapter goes if nobody says: beside it, as with ms-swift."""
    folder = Path(adapter).expanduser().absolute()
    return folder.with_name(f"{folder.name}-merged")
