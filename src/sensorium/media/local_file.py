"""Files of this machine, only below one folder the operator named."""

from __future__ import annotations

import os
import stat
from urllib.parse import unquote_to_bytes

from sensorium.errors import MediaError
from sensorium.media.data_url import too_large

# O_NONBLOCK: opening a FIFO must not wait for its writer. O_NOFOLLOW: no part may have become a symlink since checked.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_file_url(url: str, allowed_folder: str | None, max_bytes: int) -> bytes:
    """Return the bytes of the regular file a `file://` URL names; see `read_file`.

    Raises:
        MediaError: as for `read_file`, or it is no such URL.
    """
    _check_allowed(allowed_folder)
    return read_file(_path(url), allowed_folder, max_bytes)


def read_file(path: bytes, allowed_folder: str | None, max_bytes: int) -> bytes:
    """Return the bytes of the regular file at the absolute `path`.

    Symlinks are followed as long as they end below `allowed_folder`. The path is resolved first and then walked
    from the folder without following any link, so a link put in place meanwhile is refused, not followed.

    Raises:
        MediaError: the file is elsewhere, is not a regular file, is too large, or cannot be read.
    """
    root = os.fsencode(os.path.realpath(_check_allowed(allowed_folder)))
    if b"\0" in path or b".." in path.split(b"/") or not path.startswith(b"/") or path.startswith(b"//"):
        raise MediaError(
            "the path is not absolute, or contains '..', '//' at its start or a NUL", code="media_forbidden"
        )
    parts = _parts_below(path, root)
    try:
        descriptor = _open_below(root, parts)
    except OSError:
        raise MediaError("the file does not exist or cannot be opened", code="media_unreachable") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("it is not a regular file", code="media_forbidden")
        if status.st_size > max_bytes:
            raise too_large(status.st_size, max_bytes)
        return _read(descriptor, status.st_size, max_bytes)
    except OSError:
        raise MediaError("the file cannot be read", code="media_unreachable") from None
    finally:
        os.close(descriptor)


def _path(url: str) -> bytes:
    rest = url[len("file:") :]
    for prefix in ("//localhost/", "///", "/"):
        if rest[: len(prefix)].lower() == prefix:
            path = b"/" + unquote_to_bytes(rest[len(prefix) :])
            break
    else:
        raise MediaError("a file URL must be file:///absolute/path", code="media_forbidden")
    return path


def _check_allowed(folder: str | None) -> str:
    if folder is None:
        raise MediaError(
            "files of the server are not allowed; start it with --allowed-local-media-path FOLDER",
            code="media_forbidden",
        )
    return folder


def _parts_below(path: bytes, root: bytes) -> list[bytes]:
    try:
        real = os.path.realpath(path)
    except OSError:  # a link went away while it was followed
        raise MediaError("the file does not exist or cannot be opened", code="media_unreachable") from None
    if os.path.commonpath([real, root]) != root:
        raise MediaError("the file is not below the allowed folder", code="media_forbidden")
    return [part for part in real[len(root) :].split(b"/") if part]


def _open_below(root: bytes, parts: list[bytes]) -> int:
    """Return a descriptor of root/parts[0]/.../parts[-1], opened folder by folder."""
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(parts[-1] if parts else b".", _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _read(descriptor: int, expected: int, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    total = 0
    while chunk := os.read(descriptor, max(expected - total, 65_536)):
        chunks.append(chunk)
        total += len(chunk)
        if total > max_bytes:  # it grew while it was read, or lies about its size as /proc does
            raise too_large(total, max_bytes)
    return b"".join(chunks)
