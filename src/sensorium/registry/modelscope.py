"""Download the files of a ModelScope model that serving needs. Its API is two routes, so no client library is needed.

    GET {endpoint}/api/v1/models/{id}/repo/files?Revision=&Recursive=True   the files: Path, Type, Size, Sha256
    GET {endpoint}/api/v1/models/{id}/repo?Revision=&FilePath=              one file, from another host as a rule

Read from the client library `modelscope` 1.20 (hub/api.py, hub/file_download.py) and `modelscope-hub` 0.5.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from sensorium import settings
from sensorium.errors import ConfigurationError
from sensorium.registry.download import Progress, bytes_in, check_space, disk_reason, missing, offline, wanted

ENDPOINT = "https://www.modelscope.cn"
_COMPLETE = ".complete"  # written when all files are there
_PART = ".part"
_TIMEOUT_S = 30.0
_TRIES = 4


def download(repo_id: str, revision: str | None, on_progress: Progress) -> Path:
    """Return the folder of ModelScope model `repo_id`; a complete copy in the cache is used without network.

    Raises:
        ConfigurationError: no such model or revision, no access, no network, or no space.
    """
    import httpx
    from filelock import FileLock

    cache = settings.home() / "hub"
    revision = revision or "master"
    folder = _folder(repo_id, revision)
    if (folder / _COMPLETE).is_file() and not missing(folder):
        on_progress("download", 1.0)
        return folder
    endpoint = _endpoint()
    if offline():
        raise ConfigurationError(
            f"Cannot reach ModelScope to download {repo_id!r}: HF_HUB_OFFLINE is set, and the model is not complete in "
            f"{folder}. Give a local directory, or run once online."
        )
    try:
        with _client(endpoint) as client:
            files = _list(client, repo_id, revision, endpoint)
            total = sum(file["Size"] for file in files)
            folder.mkdir(parents=True, exist_ok=True)
            # Another alias of the model, or another server, may be downloading it: then it is all there afterwards.
            with FileLock(folder.with_name(folder.name + ".lock")):
                check_space(repo_id, cache, total - bytes_in(folder))
                on_progress("download", 0.0)
                done = 0
                for file in files:
                    _fetch(client, repo_id, revision, file, folder, _Share(on_progress, done, total))
                    done += file["Size"]
                (folder / _COMPLETE).touch()
    except httpx.HTTPStatusError as error:
        raise _refused(repo_id, revision, endpoint, error.response.status_code) from None
    except (httpx.HTTPError, OSError) as error:
        raise disk_reason(repo_id, error) or ConfigurationError(
            f"Cannot reach ModelScope to download {repo_id!r}: {endpoint} does not answer ({type(error).__name__}). "
            "Give a local directory, or set USE_HF=1 to load from Hugging Face."
        ) from error
    on_progress("download", 1.0)
    return folder


def snapshot(repo_id: str, revision: str | None) -> Path | None:
    """Return the folder of `revision` in the cache, complete or not; asks nobody."""
    folder = _folder(repo_id, revision or "master")
    return folder if os.path.isdir(folder) else None


def _folder(repo_id: str, revision: str) -> Path:
    # "at-" keeps a revision such as ".." from being another folder.
    return settings.home() / "hub" / f"modelscope--{repo_id.replace('/', '--')}" / f"at-{revision.replace('/', '--')}"


class _Share:
    """Progress of one file as progress of all: `done` bytes came before it."""

    def __init__(self, on_progress: Progress, done: int, total: int) -> None:
        self._on_progress, self._done, self._total = on_progress, done, total

    def __call__(self, num_bytes: int) -> None:
        self._on_progress("download", min(1.0, (self._done + num_bytes) / max(self._total, 1)))


def _endpoint() -> str:
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or ENDPOINT
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def _client(endpoint: str) -> Any:
    """Return a client that shows the token to the endpoint only, not to the hosts it sends us to."""
    import httpx

    from sensorium.http_client import http_client

    cookies = httpx.Cookies()
    headers = {"User-Agent": "sensorium", "Accept-Encoding": "identity"}  # sizes and ranges are those of the file
    token = os.environ.get("MODELSCOPE_API_TOKEN")
    if token:
        headers["Authorization"] = f"Bearer {token}"  # httpx drops it when another host is dialled
        cookies.set("m_session_id", token, domain=urlsplit(endpoint).hostname or "")
    options: dict[str, Any] = {"base_url": endpoint, "headers": headers, "cookies": cookies}
    return http_client(httpx.Client, endpoint, timeout=_TIMEOUT_S, follow_redirects=True, **options)


def _list(client: Any, repo_id: str, revision: str, endpoint: str) -> list[dict[str, Any]]:
    """Return the entries of the files to download."""
    reply = client.get(f"/api/v1/models/{repo_id}/repo/files", params={"Revision": revision, "Recursive": "True"})
    reply.raise_for_status()
    try:
        body = reply.json()
        if body["Code"] != 200:
            raise _refused(repo_id, revision, endpoint, int(body["Code"]))
        entries = {
            str(file["Path"]): {"Path": str(file["Path"]), "Size": int(file["Size"]), "Sha256": file.get("Sha256")}
            for file in body["Data"]["Files"]
            if file["Type"] != "tree"
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{endpoint} does not answer like ModelScope when asked for {repo_id!r} (it said: {reply.text[:80]!r}). "
            "Check MODELSCOPE_ENDPOINT."
        ) from error
    for name in entries:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ConfigurationError(f"{endpoint} names a file of {repo_id!r} outside its folder: {name!r}.")
    return [entries[name] for name in wanted(entries)]


def _fetch(
    client: Any, repo_id: str, revision: str, file: dict[str, Any], folder: Path, on_bytes: Callable[[int], None]
) -> None:
    """Download one file; what came of it before is kept, and a connection that breaks is taken up again."""
    import httpx

    target = folder / file["Path"]
    if target.is_file() and target.stat().st_size == file["Size"]:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + _PART)
    for attempt in range(_TRIES):
        try:
            _append(client, repo_id, revision, file, part, on_bytes)
        except httpx.TransportError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(attempt)
            continue
        if part.stat().st_size >= file["Size"]:
            break
    _check(repo_id, file, part)
    part.replace(target)


def _append(
    client: Any, repo_id: str, revision: str, file: dict[str, Any], part: Path, on_bytes: Callable[[int], None]
) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if have > file["Size"]:
        part.unlink()
        have = 0
    if have and have == file["Size"]:
        return  # it came whole and was not looked at: a request for what is missing would be refused
    query = {"Revision": revision, "FilePath": file["Path"]}
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", f"/api/v1/models/{repo_id}/repo", params=query, headers=headers) as reply:
        reply.raise_for_status()
        resumed = reply.status_code == 206
        have = have if resumed else 0
        with part.open("ab" if resumed else "wb") as out:
            for chunk in reply.iter_bytes():  # as it comes: a chunk half filled would be lost with the connection
                out.write(chunk)
                have += len(chunk)
                on_bytes(have)


def _check(repo_id: str, file: dict[str, Any], part: Path) -> None:
    """Refuse a file that is not what the listing promised; a digest is not always given."""
    size = part.stat().st_size
    with part.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest() if file["Sha256"] else None
    if size != file["Size"] or (digest is not None and digest != file["Sha256"]):
        part.unlink()
        raise ConfigurationError(
            f"{file['Path']} of {repo_id!r} came damaged from ModelScope ({size} bytes of {file['Size']}); try again."
        )


def _refused(repo_id: str, revision: str, endpoint: str, status: int) -> ConfigurationError:
    if status in (401, 403):
        return ConfigurationError(
            f"{repo_id!r} is private at {endpoint}, or needs its terms accepted there. Set MODELSCOPE_API_TOKEN to a "
            "token of an account that may read it."
        )
    if status == 404:
        return ConfigurationError(
            f"There is no model {repo_id!r} with revision {revision!r} at {endpoint}. Check the spelling; a model that "
            "is on Hugging Face only needs USE_HF=1."
        )
    return ConfigurationError(f"{endpoint} answered {status} when asked for {repo_id!r}. Try again later.")
