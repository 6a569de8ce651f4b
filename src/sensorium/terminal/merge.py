"""Merging an adapter from the command line: in this process, or, for a server, in one that ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console

from sensorium.errors import ConfigurationError
from sensorium.lora.folder import is_adapter, merged_path
from sensorium.registry.hub import rich_progress
from sensorium.settings import Hub


def merge_adapter(adapter: str, base: str | None, output: str | None, revision: str | None, hub: Hub) -> Path:
    """Write the merged model and return its folder.

    Raises:
        ConfigurationError: the adapter does not fit its base, or the folder is there already.
    """
    from sensorium.lora.merge import merge  # here, because it imports torch

    with rich_progress(Console(stderr=True)) as on_progress:
        to = Path(output) if output else merged_path(adapter)
        return merge(adapter, base, to, on_progress, revision=revision, hub=hub)


def merged_model(adapter: str, base: str | None, revision: str | None, hub: Hub) -> str:
    """Return the folder of the merged model; one that is there already is used as it is.

    The merging is done by a process of its own: the gateway stays without torch.

    Args:
        base: a folder or a hub id; None: what the adapter's files name.
        revision, hub: of a base that is a hub id.

    Raises:
        ConfigurationError: `adapter` is none, or could not be merged; the other process has said why.
    """
    if not is_adapter(adapter):
        raise ConfigurationError(f"--merge-lora needs an adapter's folder as MODEL; {adapter!r} is none.")
    output = merged_path(adapter)
    if output.exists():
        click.echo(f"{output} is there already and is served; remove it to merge again.", err=True)
        return str(output)
    command = [sys.executable, "-m", "sensorium", "merge-lora", adapter, "--output", str(output), "--hub", hub]
    command += ["--base-model", base] if base else []
    command += ["--revision", revision] if revision else []
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise ConfigurationError(f"{adapter} could not be merged; serve it unmerged, or mend what is named above.")
    return str(output)
