"""/openapi.json, and /docs: a page that lists the routes and needs nothing from elsewhere."""

from __future__ import annotations

import html
from typing import Any

import pydantic
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sensorium.errors import InvalidRequest
from sensorium.protocol.errors import error_body

REF = "#/components/schemas/{model}"


def request_body(model: type[pydantic.BaseModel] | None) -> dict[str, Any] | None:
    """Return the OpenAPI entry of a route whose body is read by us and not by FastAPI."""
    if model is None:
        return None
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def write_openapi(app: FastAPI, bodies: list[type[pydantic.BaseModel]]) -> dict[str, Any]:
    """Return the OpenAPI description, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=REF)
        text = {"type": ["string", "null"]}
        names = list(error_body(InvalidRequest(""))["error"])
        flat = dict.fromkeys(names, text)
        error = {"type": "object", "properties": {"error": {"type": "object", "properties": flat}, **flat}}
        document["components"] = {"schemas": {**schemas["$defs"], "Error": error}}
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {
                    "description": "Any error",
                    "content": {"application/json": {"schema": {"$ref": REF.format(model="Error")}}},
                }
        app.openapi_schema = document
    return app.openapi_schema


async def docs(request: Request) -> Response:
    """Show the routes on a page."""
    document = request.app.openapi()
    blocks = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method != "head":
                blocks.append(_block(method, path, operation, document["components"]["schemas"]))
    title = html.escape(f"{document['info']['title']} {document['info']['version']}")
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "code{font-size:.9em}dt{font-weight:600}summary{cursor:pointer}</style>"
        f"<h1>{title}</h1><p>The API, in the form of OpenAI's. Machine-readable: "
        f'<a href="openapi.json">openapi.json</a>.</p>{"".join(blocks)}</html>'
    )


def _block(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    head = f"<h3><code>{method.upper()} {html.escape(path)}</code></h3><p>{html.escape(operation['description'])}</p>"
    if "requestBody" not in operation:
        return head
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    required = schemas[schema].get("required", [])
    fields = ", ".join(
        f"<code>{html.escape(name)}</code>{' (required)' if name in required else ''}"
        for name in schemas[schema]["properties"]
    )
    return f"{head}<details><summary>Fields</summary>{fields}</details>"
