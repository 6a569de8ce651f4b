"""From media sources to bytes: the only place that opens a URL or a user's file.

Runs in the gateway, so nothing here decodes anything or imports a library that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from sensorium.errors import MediaError
from sensorium.media.address import Permit, Resolve, is_public, resolve
from sensorium.media.bare import is_path, read_base64, read_path
from sensorium.media.data_url import decode_data_url, decode_frame_list, is_frame_list
from sensorium.media.download import download
from sensorium.media.local_file import read_file_url
from sensorium.settings import MIB, MediaLimits
from sensorium.types import MediaItem, MediaSource

_MAX_DOWNLOADS = 16  # at once, for one request

Fetched = bytes | tuple[bytes, ...]  # a file, or the frames of a video


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
        MediaError: one could not be had, or all together are too large. `param` is its `where`; the others are
            cancelled.
    """
    fetcher = _Fetcher(limits, resolve, permit)
    parts = [_parts(source, limits) for source in sources]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {
                (part.kind, part.url): group.create_task(fetcher.fetch(part))
                for part in _unique([part for found in parts for part in found])
            }
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [
        _item(source, [tasks[part.kind, part.url].result() for part in found])
        for source, found in zip(sources, parts, strict=True)
    ]


def _parts(source: MediaSource, limits: MediaLimits) -> list[MediaSource]:
    """What has to be fetched for one source: itself, or the pictures it is a list of."""
    if not source.frames:
        return [source]
    if len(source.frames) > limits.max_video_frames:
        raise MediaError(
            f"{source.where}: the video has {len(source.frames)} frames; the limit is {limits.max_video_frames}. "
            "Send fewer.",
            param=source.where,
            code="media_too_large",
        )
    return [MediaSource("image", url, f"{source.where}[{number}]") for number, url in enumerate(source.frames)]


def _unique(sources: Sequence[MediaSource]) -> Sequence[MediaSource]:
    first: dict[tuple[str, str], MediaSource] = {}
    for source in sources:
        first.setdefault((source.kind, source.url), source)
    return tuple(first.values())


def _item(source: MediaSource, fetched: list[Fetched]) -> MediaItem:
    item = MediaItem(source.kind, b"", source.where, options=source.options)
    if isinstance(fetched[0], tuple):
        return msgspec.structs.replace(item, frames=fetched[0])
    files = tuple(file for file in fetched if isinstance(file, bytes))
    if source.frames:
        return msgspec.structs.replace(item, frames=files)
    return msgspec.structs.replace(item, data=files[0])


class _Fetcher:
    def __init__(self, limits: MediaLimits, resolve: Resolve, permit: Permit) -> None:
        self._limits = limits
        self._resolve = resolve
        self._permit = permit
        self._downloads = asyncio.Semaphore(_MAX_DOWNLOADS)
        self._num_bytes = 0

    async def fetch(self, source: MediaSource) -> Fetched:
        """Return the bytes of one source; errors get the item's place and kind."""
        try:
            data = await self._load(source.url.strip(), source.kind)
            if not data:
                raise MediaError("it is empty")
            self._count(data)
        except MediaError as error:
            message = f"{source.where}: Failed to load {source.kind} from URL: {error.message}."
            raise MediaError(message, param=source.where, code=error.code) from None
        return data

    def _count(self, data: Fetched) -> None:
        self._num_bytes += len(data) if isinstance(data, bytes) else sum(map(len, data))
        most = self._limits.max_request_bytes
        if self._num_bytes > most:
            raise MediaError(
                f"the request's media have more than {most / MIB:.1f} MiB together, the limit. Send less",
                code="media_too_large",
            )

    async def _load(self, url: str, kind: str) -> Fetched:
        limits = self._limits
        max_bytes, timeout_s = {
            "image": (limits.max_bytes, limits.fetch_timeout_s),
            "video": (limits.max_video_bytes, limits.fetch_video_timeout_s),
            "audio": (limits.max_audio_bytes, limits.fetch_audio_timeout_s),
        }[kind]
        scheme = url[:8].partition(":")[0].lower() if ":" in url[:8] else ""
        try:
            if scheme == "data" and kind == "video" and is_frame_list(url):
                return decode_frame_list(url, limits.max_bytes, max_bytes, limits.max_video_frames)
            if scheme == "data":
                return decode_data_url(url, max_bytes)
            # One deadline from the request's start over waiting, lookup, redirects and body.
            async with asyncio.timeout(timeout_s):
                if not scheme and is_path(url):
                    return await asyncio.to_thread(read_path, url, limits.allowed_local_path, max_bytes)
                if scheme == "file":
                    return await asyncio.to_thread(read_file_url, url, limits.allowed_local_path, max_bytes)
                if scheme in ("http", "https"):
                    async with self._downloads:
                        return await download(
                            url, limits, self._resolve, self._permit, max_bytes=max_bytes, timeout_s=timeout_s
                        )
        except TimeoutError:
            raise MediaError(f"it was not received within {timeout_s:g} s", code="media_unreachable") from None
        except UnicodeEncodeError:
            raise MediaError("the URL contains characters that are not valid Unicode") from None
        if not scheme and "://" not in url[:32]:
            return read_base64(url, max_bytes)
        raise MediaError("it must be an http(s), data or file URL, or base64")
