"""Who may register, load and remove models: whoever has an admin key, or sits at this machine; never a web page."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.requests import Request

from sensorium.errors import Forbidden, InvalidRequest
from sensorium.server.record import record_of
from sensorium.settings import ServerSettings

_PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip")


def check_may_change(request: Request, settings: ServerSettings, *, anywhere: bool = False) -> None:
    """Refuse a change of this server by somebody who may only ask, or by a web page in somebody's browser.

    Args:
        anywhere: without any key, let other machines do it too.

    Raises:
        Forbidden: with the reason, and what to do.
        InvalidRequest: the body is not labelled as JSON. A form of a web page could send it unasked otherwise.
    """
    _check_no_page(request)
    if settings.admin_keys and not record_of(request.scope).admin:
        raise Forbidden("This changes the server: send one of its admin keys (--admin-key).", code="admin_key_required")
    if not settings.admin_keys and not settings.api_keys and not anywhere:
        _check_local(request, settings)


def _check_no_page(request: Request) -> None:
    headers = request.headers
    origin = headers.get("origin")
    if origin is not None and _netloc(origin) != headers.get("host", "").lower():
        raise Forbidden(f"Pages of another origin ({origin[:100]}) may not change this server.", code="cross_origin")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Forbidden("Pages of another site may not change this server.", code="cross_origin")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if kind != "application/json" and (kind or has_body):
        raise InvalidRequest(
            f"The body must be sent with `Content-Type: application/json`, not {kind[:60] or 'without one'!r}.",
            code="content_type",
        )


def _check_local(request: Request, settings: ServerSettings) -> None:
    peer = request.client.host if request.client else ""
    if not _is_loopback(peer) or any(name in request.headers for name in _PASSED_ON):
        raise Forbidden(
            "This server has no keys, so only programs on its own machine may change it. Start it with --admin-key (or "
            "--api-key), and send the key.",
            code="not_local",
        )
    # A page whose name was made to point at this machine (DNS rebinding) still says its own name here.
    name = _host_name(request.headers.get("host", "")).rstrip(".")
    known = name in ("localhost", settings.host.lower(), socket.gethostname().lower()) or name.endswith(".localhost")
    if not known and not _is_address(name):
        raise Forbidden(
            f"A server without keys is changed by its address or as localhost only, not as {name[:100]!r}. Start it "
            "with --admin-key, and send the key.",
            code="not_local",
        )


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # half a pair of brackets
        return None


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
