"""Loading and unloading adapters while serving, as vLLM has it: /v1/load_lora_adapter, /v1/unload_lora_adapter."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sensorium.errors import Forbidden, InvalidRequest, ModelNotFound
from sensorium.lora.config import FILE
from sensorium.protocol.adapters import LoadAdapterBody, UnloadAdapterBody
from sensorium.protocol.body import parse_body
from sensorium.server.admin import check_may_change
from sensorium.server.read import read_body
from sensorium.server.routes import gateway_of
from sensorium.settings import ServerSettings
from sensorium.types import Adapter


async def load_adapter(request: Request) -> Response:
    """Load a LoRA adapter from a folder of the server; its name then answers like a model's."""
    gateway = gateway_of(request)
    check_may_change(request, gateway.settings, anywhere=True)  # the operator allowed a folder, or every one
    body = parse_body(LoadAdapterBody, await read_body(request, gateway.settings.max_body_bytes))
    if not body.lora_name or not body.lora_path:
        raise InvalidRequest("Both 'lora_name' and 'lora_path' must be provided.", param="lora_name")
    path = await asyncio.to_thread(allowed_folder, body.lora_path, gateway.settings)
    await gateway.pool.load_adapter(Adapter(body.lora_name, str(path)), body.base_model_name, bool(body.load_inplace))
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


async def unload_adapter(request: Request) -> Response:
    """Unload a LoRA adapter; answers that use it go on."""
    gateway = gateway_of(request)
    check_may_change(request, gateway.settings, anywhere=True)
    body = parse_body(UnloadAdapterBody, await read_body(request, gateway.settings.max_body_bytes))
    if not body.lora_name:
        raise InvalidRequest("'lora_name' needs to be provided to unload a LoRA adapter.", param="lora_name")
    _check_allowed(gateway.settings)
    await gateway.pool.unload_adapter(body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def allowed_folder(path: str, settings: ServerSettings) -> Path:
    """Return the folder that a client named, links resolved.

    Raises:
        Forbidden: this server loads none while serving, or none from there.
        ModelNotFound: there is no adapter.
    """
    _check_allowed(settings)
    if "\0" in path or len(path) > 4096:
        raise InvalidRequest("lora_path is no path.", param="lora_path")
    root = Path(settings.lora_root).resolve() if settings.lora_root else None
    folder = Path(root or ".", path).resolve()
    if root is not None and not settings.lora_anywhere and not folder.is_relative_to(root):
        raise Forbidden(f"lora_path must lie below {root} (--allowed-lora-path).", param="lora_path")
    if not (folder / FILE).is_file():
        raise ModelNotFound(
            f"No adapter found for {path}: it must be a folder of the server with {FILE}.",
            param="lora_path",
            code="lora_not_found",
        )
    return folder


def _check_allowed(settings: ServerSettings) -> None:
    if settings.lora_root is None and not settings.lora_anywhere:
        raise Forbidden(
            "This server loads and unloads no adapters while it serves. Start it with --allowed-lora-path DIR, or with "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 to allow any folder.",
            code="lora_updating_disabled",
        )
