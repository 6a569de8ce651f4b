"""Get one file over http(s), dialling only addresses that were checked."""

from __future__ import annotations

import functools
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence

import httpcore

from sensorium import __version__
from sensorium.errors import MediaError
from sensorium.media.address import Permit, Resolve
from sensorium.media.data_url import too_large
from sensorium.media.http_url import HttpUrl, parse_http_url
from sensorium.settings import MediaLimits

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_DIALLED = 4  # addresses tried for one host
_MAX_PIECE = 1 << 18


async def download(
    url: str,
    limits: MediaLimits,
    resolve: Resolve,
    permit: Permit,
    *,
    max_bytes: int,
    timeout_s: float,
) -> bytes:
    """Return the body at `url`, following redirects by hand so that each hop is checked like the first.

    The caller sets the deadline, and names it as `timeout_s`. No proxy, no cookies, no credentials, no connection
    shared with another call.

    Raises:
        MediaError: an address is not permitted, the answer is not 200, or the body is over `max_bytes`.
    """
    target = parse_http_url(url)
    for _ in range(limits.max_redirects + 1):
        addresses = await _checked_addresses(target, limits, resolve, permit)
        answer = await _get(target, addresses, max_bytes, timeout_s)
        if isinstance(answer, bytes):
            return answer
        target = _next_hop(target, answer)
    raise MediaError(
        f"the server redirects more than {limits.max_redirects} times; send the final URL", code="media_unreachable"
    )


def _next_hop(target: HttpUrl, location: str) -> HttpUrl:
    try:
        following = parse_http_url(target.join(location))
    except MediaError as error:
        raise MediaError(f"the server redirects, and then {error.message}", code="media_forbidden") from None
    if target.scheme == "https" and following.scheme == "http":
        raise MediaError("the server redirects from https to http", code="media_forbidden")
    return following


async def _checked_addresses(target: HttpUrl, limits: MediaLimits, resolve: Resolve, permit: Permit) -> Sequence[str]:
    addresses = await resolve(target.host, target.port)
    if not addresses:
        raise MediaError("its host name has no address", code="media_unreachable")
    # All of them: a name with one public and one private address is how a check is walked around.
    if not limits.allow_private and not all(permit(address) for address in addresses):
        raise MediaError(
            "its host is not on the public internet; start the server with --allow-private-media to permit that",
            code="media_forbidden",
        )
    return addresses


async def _get(target: HttpUrl, addresses: Sequence[str], max_bytes: int, timeout_s: float) -> bytes | str:
    """Return the body, or the `Location` of a redirect."""
    backend = _Pinned(addresses[:_MAX_DIALLED], timeout_s)
    headers = (
        ("Host", target.authority),
        ("User-Agent", f"sensorium/{__version__}"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
    )
    url = httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.target.encode()
    )
    try:
        async with (
            httpcore.AsyncConnectionPool(ssl_context=tls(), network_backend=backend, max_connections=1) as pool,
            pool.stream("GET", url, headers=headers) as response,
        ):
            found = {name.lower(): value for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in found:
                return found[b"location"].decode("utf-8", "replace")
            if response.status != 200:
                raise MediaError(
                    f"the server answered with HTTP status {response.status}; 200 is needed", code="media_unreachable"
                )
            return await _read(response, found, max_bytes)
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        if isinstance(error.__context__, ssl.SSLCertVerificationError):  # the pool clears __cause__
            reason = "no secure connection to its host: the certificate was not accepted"
        else:
            reason = "no connection to its host could be made"
        raise MediaError(reason, code="media_unreachable") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
        raise MediaError("the connection ended before the file was complete", code="media_unreachable") from None


async def _read(response: httpcore.Response, headers: dict[bytes, bytes], max_bytes: int) -> bytes:
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large(int(length), max_bytes)
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b"", b"gzip", b"x-gzip"):
        raise MediaError("the server compressed the answer although asked not to", code="media_unreachable")
    pieces = response.aiter_stream() if encoding in (b"identity", b"") else _gunzip(response.aiter_stream())
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > max_bytes:
            raise too_large(len(body), max_bytes)
    return bytes(body)


async def _gunzip(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Undo gzip in pieces of bounded size, so that a bomb meets the byte limit instead of the memory."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        async for piece in pieces:
            while piece and not inflate.eof:
                yield inflate.decompress(piece, _MAX_PIECE)
                piece = inflate.unconsumed_tail
    except zlib.error:
        raise MediaError("the server's answer is not valid gzip", code="media_unreachable") from None
    if not inflate.eof:
        raise MediaError("the connection ended before the file was complete", code="media_unreachable")


class _Pinned(httpcore.AsyncNetworkBackend):
    """Dials the checked addresses whatever the host is called; TLS still verifies the host's own name."""

    def __init__(self, addresses: Sequence[str], timeout_s: float) -> None:
        self._addresses = addresses
        self._timeout_s = timeout_s / len(addresses)  # an address that swallows packets leaves time for the next
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        for address in self._addresses[:-1]:
            try:
                return await self._sockets.connect_tcp(address, port, self._timeout_s)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._sockets.connect_tcp(self._addresses[-1], port, self._timeout_s)


@functools.cache
def tls() -> ssl.SSLContext:
    """Return the one TLS context: public certificate authorities, names verified."""
    return httpcore.default_ssl_context()
