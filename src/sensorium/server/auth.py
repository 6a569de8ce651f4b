"""API keys: one of them, as a bearer token, opens every route but the liveness probes. Admin keys open all of them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from sensorium.errors import Unauthorized
from sensorium.server.record import record_of
from sensorium.server.reply import error_response

OPEN_PATHS = frozenset({"/health", "/ping"})


class Auth:
    """ASGI middleware. Without API keys everybody may come in, whatever they send; `server/admin.py` asks further."""

    def __init__(self, app: ASGIApp, api_keys: Sequence[str], admin_keys: Sequence[str] = ()) -> None:
        self.app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in api_keys]
        self._admins = [hashlib.sha256(key.encode()).digest() for key in admin_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # scope["path"] is what the router matches; a URL rebuilt from the Host header is the client's to forge.
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or not (self._digests or self._admins):
            await self.app(scope, receive, send)
            return
        token = bearer_token(scope["headers"])
        digest = hashlib.sha256(token).digest()
        # Every key is compared, so that time does not tell which one was near.
        asks = sum(hmac.compare_digest(digest, known) for known in self._digests) > 0
        admin = sum(hmac.compare_digest(digest, known) for known in self._admins) > 0
        record_of(scope).admin = admin or (asks and not self._admins)
        if not self._digests or scope["method"] == "OPTIONS":
            await self.app(scope, receive, send)
            return
        if not asks and not admin:
            what = "is missing" if not token else "is not one of this server's"
            error = Unauthorized(f"The API key {what}; send `Authorization: Bearer <key>`.")
            await error_response(error)(scope, receive, send)
            return
        record_of(scope).cache_salt = hashlib.sha256(b"cache salt" + digest).hexdigest()[:32]
        await self.app(scope, receive, send)


def bearer_token(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the token of the `Authorization` header; empty where there is none."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return token.strip() if scheme.lower() == b"bearer" else b""
    return b""
