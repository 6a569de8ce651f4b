"""models.toml: registrations in a file, applied when a server starts.

[models.eyes]
model_name = "Qwen/Qwen3-VL-2B-Instruct"
max_model_len = 8192
idle_ttl = "10m"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.protocol.body import parse_body
from sensorium.protocol.registration import RegisterBody
from sensorium.registry.registration import checked, spec_of
from sensorium.registry.spec import ModelSpec


def read_models(file: str | Path, *, trusted: bool) -> list[ModelSpec]:
    """Return the models of a file: each table `[models.NAME]` has the fields of /v1/models/register, but for `alias`.

    Args:
        trusted: they may carry what makes an engine run code from elsewhere.

    Raises:
        ConfigurationError: with the file, the table and the key that is wrong.
    """
    path = Path(file).expanduser().absolute()
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not written in UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from None
    for name in found:
        if name != "models":
            raise ConfigurationError(f"{path}: [{name}] is not known; a model is a table [models.NAME].")
    tables = found.get("models", {})
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{path}: `models` must be tables: [models.NAME].")
    specs = [_spec(path, alias, table, trusted) for alias, table in tables.items()]
    names = {spec.alias for spec in specs}
    for spec in specs:
        if spec.lora_of == spec.alias or (spec.lora_of in names and tables[spec.lora_of].get("lora_of")):
            raise ConfigurationError(f"{path}, [models.{spec.alias}]: `lora_of` must name a model, not an adapter.")
    return specs


def _spec(path: Path, alias: str, table: Any, trusted: bool) -> ModelSpec:
    where = f"{path}, [models.{alias}]"
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{path}: `models.{alias}` must be a table: [models.{alias}].")
    for key in ("alias", "replace"):
        if key in table:
            raise ConfigurationError(f"{where}: `{key}` is not for files; the table's name is the alias.")
    try:
        body = parse_body(RegisterBody, msgspec.json.encode({**table, "alias": alias}))
        return checked(spec_of(body, trusted=trusted))
    except SensoriumError as error:
        raise ConfigurationError(f"{where}: {error.message}") from None
