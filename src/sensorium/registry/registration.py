"""From the body of a registration to a ModelSpec, and what of it can be found wrong before anything is loaded."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sensorium import families
from sensorium.errors import ConfigurationError, Forbidden, InvalidRequest
from sensorium.lora.config import FILE as ADAPTER_FILE
from sensorium.lora.folder import base_of, is_adapter
from sensorium.protocol.registration import RegisterBody, check_registration
from sensorium.registry.download import offline
from sensorium.registry.engine_args import FLAG, check_engine_args
from sensorium.registry.hub import BUNDLED, local_folder, on_this_machine, resolve
from sensorium.registry.spec import ModelSpec
from sensorium.settings import DTYPES, SAME_DTYPES, EngineSettings, Needs

LONGEST_ALIAS = 200
RESERVED = ("register", "events")  # /v1/models/...
_ENDINGS = ("/load", "/unload", "/events")
_SETTINGS = {  # field of the body -> field of EngineSettings, where a null means the default
    **{name: name for name in ("engine", "engine_args", "engine_python", "base_url", "api_key")},
    **{name: name for name in ("tensor_parallel_size", "max_model_len", "gpu_memory_utilization", "device")},
    **{name: name for name in ("limit_mm_per_prompt", "mm_processor_kwargs", "chat_template", "system", "seed")},
    **{name: name for name in ("generation_config", "override_generation_config", "max_num_seqs", "num_threads")},
    **{name: name for name in ("max_num_batched_tokens", "block_size", "enable_prefix_caching", "lora_modules")},
    **{name: name for name in ("max_loras", "max_lora_rank", "tokenizer", "revision", "hub")},
    "timeout": "timeout_s",
    "kv_cache_memory": "kv_cache_bytes",
    "encoder_cache_memory": "encoder_cache_bytes",
}


def spec_of(body: RegisterBody, *, trusted: bool, created: float = 0.0) -> ModelSpec:
    """Return what a registration asks for.

    Args:
        trusted: it may carry what makes an engine run code from elsewhere.

    Raises:
        InvalidRequest: a field is wrong by itself; `param` names it.
        Forbidden: a field needs a server that trusts registrations.
    """
    check_registration(body)
    alias = _alias(str(body.alias))
    given: dict[str, Any] = {}
    for field, name in _SETTINGS.items():
        if (value := getattr(body, field)) is not None:
            given[name] = value
    if body.dtype is not None:
        given["dtype"] = _dtype(body.dtype)
    settings = EngineSettings(str(body.model_path or body.model_name), name=alias, **given)
    _check_settings(settings, body, trusted)
    low, high = body.min_replicas or 0, body.max_replicas
    if high is not None and low > high:
        raise InvalidRequest(f"`min_replicas` is {low}, more than `max_replicas`, {high}.", param="min_replicas")
    return ModelSpec(
        alias,
        settings,
        model_name=body.model_name or settings.model,
        idle_ttl_s=body.idle_ttl,
        pinned=bool(body.pinned),
        preload=bool(body.preload),
        min_replicas=low,
        max_replicas=high or max(low, 1),
        needs=Needs(body.num_cpus, body.num_gpus, body.memory, body.worker_id),
        lora_of=body.lora_of,
        created=created,
    )


def checked(spec: ModelSpec) -> ModelSpec:
    """Look at what is on this machine: is there a model, and is it one that can be served? Reads small files.

    A model of a hub that is not here yet is taken as it is: its first load downloads it. A folder's path is made
    absolute, so that it means the same wherever the next server is started.

    Raises:
        InvalidRequest: it could never be loaded; the message says why.
    """
    settings = spec.settings
    if settings.engine == "remote" or spec.needs.worker_id is not None:  # another machine has other files
        return spec
    _check_files(spec)
    if settings.model not in BUNDLED and (folder := local_folder(settings.model)) is not None:
        return msgspec.structs.replace(spec, settings=msgspec.structs.replace(settings, model=str(folder.absolute())))
    return spec


def _check_files(spec: ModelSpec) -> None:
    settings = spec.settings
    if settings.engine == "vllm":
        _check_interpreter(settings)
    try:
        if spec.lora_of is not None:
            _check_adapter(settings.model)
            return
        model = base_of(settings.model) if is_adapter(settings.model) else settings.model
        folder = on_this_machine(model, settings.revision, settings.hub)
        if folder is None:
            if offline() or Path(model).is_absolute() or model.startswith((".", "~")) or "/" not in model:
                resolve(model, settings.revision, hub=settings.hub)  # says what is wrong
            return
        if local_folder(model) is not None:
            resolve(model)
        config = folder / "config.json"
        if settings.engine != "vllm" and config.is_file():
            _check_architecture(settings, json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"`model_path`: config.json of {settings.model} cannot be read ({type(error).__name__}).",
            param="model_path",
        ) from None
    except ConfigurationError as error:
        raise InvalidRequest(f"`model_path`: {error.message}", param="model_path") from None


def _alias(alias: str) -> str:
    wrong = next((c for c in alias if unicodedata.category(c)[0] == "C" or c in "?#%\\"), None)
    if wrong is not None:
        raise InvalidRequest(f"`alias` must not hold {wrong!r}: it stands in addresses and logs.", param="alias")
    if len(alias) > LONGEST_ALIAS:
        raise InvalidRequest(f"`alias` has {len(alias)} characters; the limit is {LONGEST_ALIAS}.", param="alias")
    if alias != alias.strip() or alias.strip("/.") == "" or "//" in alias or {".", ".."} & set(alias.split("/")):
        raise InvalidRequest(f"`alias` cannot be {alias!r}: it stands in addresses.", param="alias")
    if alias in RESERVED or alias.endswith(_ENDINGS):
        shown = ", ".join((*RESERVED, *(f"*{end}" for end in _ENDINGS)))
        raise InvalidRequest(f"`alias` cannot be {alias!r}: {shown} are addresses of the registry.", param="alias")
    return alias


def _dtype(name: str) -> str:
    found = SAME_DTYPES.get(name.lower(), name.lower())
    if found not in DTYPES:
        raise InvalidRequest(f"`dtype` must be one of {', '.join((*DTYPES, *SAME_DTYPES))}.", param="dtype")
    return found


def _check_settings(settings: EngineSettings, body: RegisterBody, trusted: bool) -> None:
    if body.trust_remote_code and not trusted:
        raise Forbidden(
            f"`trust_remote_code` is refused: no code of a checkpoint runs here ({FLAG} for the engine vllm).",
            param="trust_remote_code",
            code="engine_args_forbidden",
        )
    if body.trust_remote_code and settings.engine == "vllm":
        settings.engine_args["trust_remote_code"] = True
    if settings.engine_python is not None and not trusted:
        raise Forbidden(
            f"`engine_python` names a program of the server's machine; only a server started with {FLAG} takes it. "
            "Set SENSORIUM_VLLM_PYTHON where the server is started instead.",
            param="engine_python",
            code="engine_args_forbidden",
        )
    if settings.engine_args and settings.engine != "vllm":
        raise InvalidRequest("`engine_args` are for the engine vllm.", param="engine_args")
    if settings.tensor_parallel_size > 1 and settings.engine != "vllm":
        raise InvalidRequest(
            f"`tensor_parallel_size` is {settings.tensor_parallel_size}; more than 1 needs `engine` vllm.",
            param="tensor_parallel_size",
        )
    check_engine_args(settings.engine_args, trusted)
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", settings.device):
        raise InvalidRequest("`device` must be auto, cpu, cuda or cuda:N.", param="device")
    if settings.engine == "remote":
        _check_remote(settings)
    for name in ("base_url", "api_key", "timeout_s"):
        if settings.engine != "remote" and getattr(settings, name) is not None:
            wire = name.removesuffix("_s")
            raise InvalidRequest(f"`{wire}` is for the engine remote; `engine` is {settings.engine}.", param=wire)


def _check_remote(settings: EngineSettings) -> None:
    try:
        parts = urlsplit(settings.base_url or "")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if settings.base_url is None or parts.scheme not in ("http", "https") or not host:
        raise InvalidRequest(
            "`base_url` must be the address of an OpenAI-compatible server, such as https://host/v1.", param="base_url"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequest("`base_url` must hold no user, query or fragment; give `api_key`.", param="base_url")
    key = settings.api_key
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise InvalidRequest("`api_key` holds characters that a header cannot hold.", param="api_key")


def _check_interpreter(settings: EngineSettings) -> None:
    python = settings.engine_python or os.environ.get("SENSORIUM_VLLM_PYTHON")
    if not python:
        raise InvalidRequest(
            "`engine`: vllm runs in an interpreter of its own; set SENSORIUM_VLLM_PYTHON where the server is started.",
            param="engine",
        )
    if shutil.which(os.path.expanduser(python)) is None:
        raise InvalidRequest(f"`engine`: there is no program {python} (SENSORIUM_VLLM_PYTHON).", param="engine")


def _check_adapter(path: str) -> None:
    if not os.path.isfile(os.path.join(os.path.expanduser(path), ADAPTER_FILE)):
        raise InvalidRequest(
            f"`model_path`: with `lora_of` it must be the folder of an adapter; {path} has no {ADAPTER_FILE}.",
            param="model_path",
        )


def _check_architecture(settings: EngineSettings, config: Any) -> None:
    if not isinstance(config, dict):
        raise ConfigurationError("config.json holds no object.")
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        raise ConfigurationError("config.json names no architecture (key 'architectures').")
    if settings.engine == "transformers" or families.serves(config):
        return
    if settings.engine == "native":
        families.find(config)  # says which are known
    if importlib.util.find_spec("transformers") is None:
        near = difflib.get_close_matches(str(names[0]), families.MODULES, 1, 0.6)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigurationError(
            f"The native engine does not know the architecture {str(names[0])[:100]!r}, and transformers is not "
            f"installed: pip install 'sensorium[transformers]'.{hint}"
        )
