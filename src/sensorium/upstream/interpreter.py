"""The interpreter that has vLLM: where it is, and what its vLLM can do, found out without importing it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sensorium.errors import ConfigurationError

VARIABLE = "SENSORIUM_VLLM_PYTHON"
_PROBE_S = 60.0  # a cold disk
_PROBE = """
import importlib.metadata, importlib.util, json
spec = importlib.util.find_spec("vllm")
names = importlib.metadata.packages_distributions().get("vllm", []) if spec else []
print(json.dumps({
    "folder": list(spec.submodule_search_locations or [None])[0] if spec else None,
    "version": next((f"{name} {importlib.metadata.version(name)}" for name in names), "of unknown version"),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that has vLLM.

    `version` is the distribution's name and number; `unix_sockets`: its server can listen on one; `cpu_only`: it was
    built for machines without an accelerator.
    """

    python: str
    version: str
    unix_sockets: bool
    cpu_only: bool


def find_interpreter(given: str | None) -> Interpreter:
    """Return the interpreter that `given` or else SENSORIUM_VLLM_PYTHON names.

    Raises:
        ConfigurationError: neither is set, it cannot be run, or it has no vLLM.
    """
    python = given or os.environ.get(VARIABLE)
    if not python:
        raise ConfigurationError(
            "The engine vllm runs in an interpreter of its own: name one that has vLLM with --engine-python, "
            f"engine_python or {VARIABLE}, for example /opt/vllm/bin/python."
        )
    python = os.path.expanduser(python)
    try:
        ran = subprocess.run(
            [python, "-c", _PROBE], capture_output=True, timeout=_PROBE_S, env=environment(), text=True
        )
        found = json.loads(ran.stdout)
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{python} did not say within {_PROBE_S:g} s whether it has vLLM.") from None
    except OSError as error:
        raise ConfigurationError(f"{python} cannot be run: {error.strerror}.") from None
    except ValueError:
        raise ConfigurationError(f"{python} is no Python interpreter that could say whether it has vLLM.") from None
    if not found["folder"]:
        raise ConfigurationError(f"{python} has no vLLM. Install it there: {python} -m pip install vllm")
    version, folder = str(found["version"]), Path(found["folder"])
    return Interpreter(python, version, _has_unix_sockets(folder), "cpu" in version)


def environment() -> dict[str, str]:
    """Return this process's environment without what concerns our own interpreter, keys or arithmetic only."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not (name.startswith("SENSORIUM_") or name.endswith("_API_KEY"))
    }


def _has_unix_sockets(folder: Path) -> bool:
    return any("uds" in file.read_text("utf-8", "replace") for file in (folder / "entrypoints").rglob("cli_args.py"))
