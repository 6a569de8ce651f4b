"""Reads a request's body, up to a size and not too slowly."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from sensorium.errors import InvalidRequest, TooLarge
from sensorium.settings import MIB

BODY_DEADLINE_S = 30.0
MIN_BYTES_PER_S = 64 * 1024  # what has arrived earns a slow line this much more time


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


async def read_body(request: Request, max_bytes: int, deadline_s: float = BODY_DEADLINE_S) -> bytes:
    """Return the whole body.

    Raises:
        TooLarge: it is, or says it is, larger than `max_bytes`.
        InvalidRequest: it did not arrive in time.
        ClientGone: it will not arrive.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(int(declared), max_bytes)
    chunks: list[bytes] = []
    size = 0
    last_s = asyncio.get_running_loop().time() + deadline_s
    try:
        async with asyncio.timeout(deadline_s) as patience:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > max_bytes:
                    raise _too_large(size, max_bytes)
                patience.reschedule(last_s + size / MIN_BYTES_PER_S)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise InvalidRequest(
            f"The request's body came too slowly: {size} bytes, and then none within {deadline_s:g} s.",
            code="body_timeout",
        ) from None


def _too_large(size: int, max_bytes: int) -> TooLarge:
    return TooLarge(
        f"The request's body has {size / MIB:.1f} MiB or more; the limit is {max_bytes / MIB:.1f} MiB. "
        "Send smaller media, or their URLs."
    )
