"""From media sources to bytes: the only place that opens a URL or a user's file.

Runs in the gateway, so nothing here decodes anything or imports a library that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sensorium.errors import MediaError
from sensorium.media.address import Permit, Resolve, is_public, resolve
from sensorium.media.data_url import decode_data_url
from sensorium.media.download import download
from sensorium.media.local_file import read_file_url
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaSource

_MAX_DOWNLOADS = 16  # at once, for one request


async def fetch_media(
    sources: Sequence[MediaSource],
    limits: MediaLimits,
    *,
    resolve: Resolve = resolve,
    permit: Permit = is_public,
) -> list[MediaItem]:
    """Return the bytes of every source, in order; all are fetched at once, an URL that occurs twice only once.

    Args:
        resolve: (host, port) -> numeric addresses. Called once per hop; exactly its answer is dialled.
        permit: whether an address may be dialled; not asked where `limits.allow_private`.

    Raises:
        MediaError: one could not be had. `param` is its `where`; the others are cancelled.
    """
    fetcher = _Fetcher(limits, resolve, permit)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {source.url: group.create_task(fetcher.fetch(source)) for source in _unique(sources)}
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [MediaItem(source.kind, tasks[source.url].result(), source.where) for source in sources]


def _unique(sources: Sequence[MediaSource]) -> Sequence[MediaSource]:
    first: dict[str, MediaSource] = {}
    for source in sources:
        first.setdefault(source.url, source)
    return tuple(first.values())


class _Fetcher:
    def __init__(self, limits: MediaLimits, resolve: Resolve, permit: Permit) -> None:
        self._limits = limits
        self._resolve = resolve
        self._permit = permit
        self._downloads = asyncio.Semaphore(_MAX_DOWNLOADS)

    async def fetch(self, source: MediaSource) -> bytes:
        """Return the bytes of one source; errors get the item's place and kind."""
        try:
            data = await self._bytes(source.url.strip())
            if not data:
                raise MediaError("it is empty")
        except MediaError as error:
            message = f"{source.where}: Failed to load {source.kind} from URL: {error.message}."
            raise MediaError(message, param=source.where, code=error.code) from None
        return data

    async def _bytes(self, url: str) -> bytes:
        scheme = url[:8].partition(":")[0].lower()
        try:
            if scheme == "data":
                return decode_data_url(url, self._limits.max_bytes)
            # One deadline from the request's start over waiting, lookup, redirects and body.
            async with asyncio.timeout(self._limits.fetch_timeout_s):
                if scheme == "file":
                    folder, max_bytes = self._limits.allowed_local_path, self._limits.max_bytes
                    return await asyncio.to_thread(read_file_url, url, folder, max_bytes)
                if scheme in ("http", "https"):
                    async with self._downloads:
                        return await download(url, self._limits, self._resolve, self._permit)
        except TimeoutError:
            raise MediaError(
                f"it was not received within {self._limits.fetch_timeout_s:g} s", code="media_unreachable"
            ) from None
        except UnicodeEncodeError:
            raise MediaError("the URL contains characters that are not valid Unicode") from None
        raise MediaError("it must be an http(s), data or file URL")
