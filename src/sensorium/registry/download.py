"""Download the files of a hub model that serving needs, with progress in bytes and plain errors."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sensorium import settings
from sensorium.errors import ConfigurationError

Progress = Callable[[str, float], None]  # what is being done, and how much of it is done (0..1)

_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
# Other frameworks' copies of the same weights.
_OTHER_COPIES = ("original/", "onnx/", "openvino/", "coreml/", "gguf/", ".")


def wanted(names: Iterable[str]) -> list[str]:
    """Return the files to download: small ones, and of each folder safetensors, else pytorch_model*.bin."""
    ours = [name for name in names if not name.startswith(_OTHER_COPIES)]
    folders = {Path(name).parent for name in ours}
    weights = [name for folder in folders for name in _weights([n for n in ours if Path(n).parent == folder])]
    return sorted({*weights, *(name for name in ours if name.endswith(_SMALL))})


def _weights(names: list[str]) -> list[str]:
    """Of one folder's files those to load: a tower in a folder of its own may be written in another way."""
    found = [name for name in names if name.endswith(".safetensors")]
    # Mistral puts the same tensors once more into consolidated*.safetensors.
    found = [name for name in found if not name.startswith("consolidated")] or found
    return found or [name for name in names if Path(name).name.startswith("pytorch_model") and name.endswith(".bin")]


def missing(folder: Path) -> list[str]:
    """Return what a downloaded checkpoint lacks: config.json, or weight files by its own index."""
    lacks = [] if (folder / "config.json").is_file() else ["config.json"]
    for kind, pattern in (("model.safetensors", "*.safetensors"), ("pytorch_model.bin", "pytorch_model*.bin")):
        index = folder / f"{kind}.index.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return lacks + [shard for shard in shards if not (folder / shard).is_file()]
        if any(folder.glob(pattern)):
            return lacks
    return [*lacks, "weights (*.safetensors)"]


def download(repo_id: str, revision: str | None, on_progress: Progress) -> Path:
    """Return the folder of hub model `repo_id`; a complete copy in the cache is used without network.

    Raises:
        ConfigurationError: no such model or revision, no access, no network, or no space.
    """
    from huggingface_hub import HfApi, snapshot_download

    cache = settings.home() / "hub"
    cached = snapshot(repo_id, revision)
    if cached is not None and not missing(cached):
        on_progress("download", 1.0)
        return cached
    if offline():
        state = f"only partly there: {', '.join(missing(cached)[:3])} missing" if cached else "not there yet"
        raise ConfigurationError(
            f"Cannot reach the hub to download {repo_id!r}: HF_HUB_OFFLINE is set, and the model is {state} in "
            f"{cache}. Give a local directory, or run once online."
        )
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        info = HfApi(endpoint=endpoint).model_info(repo_id, revision=revision, files_metadata=True, timeout=10)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = wanted(sizes)
        total = sum(sizes[name] for name in names)
        check_space(repo_id, cache, total - bytes_in(cached))
        on_progress("download", 0.0)
        folder = snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=cache,
            endpoint=endpoint,
            allow_patterns=names,
            tqdm_class=_progress_class(total, on_progress),
        )
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the client, its transport or the file system raises
        raise _reason(repo_id, revision, endpoint, error) from error
    on_progress("download", 1.0)
    return Path(folder)


def snapshot(repo_id: str, revision: str | None) -> Path | None:
    """Return the folder of `revision` in the cache, complete or not; asks nobody."""
    repo = settings.home() / "hub" / f"models--{repo_id.replace('/', '--')}"
    ref = repo / "refs" / (revision or "main")
    commit = ref.read_text(encoding="utf-8").strip() if os.path.isfile(ref) else revision
    folder = repo / "snapshots" / commit if commit else None
    return folder if folder is not None and os.path.isdir(folder) else None


def offline() -> bool:
    """Whether the user forbade the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def bytes_in(folder: Path | None) -> int:
    """Return the size of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder else 0


def check_space(repo_id: str, cache: Path, needed: int) -> None:
    """Refuse a download of `needed` bytes that the disk of `cache` has no room for.

    Raises:
        ConfigurationError: the message has both numbers.
    """
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ConfigurationError(_no_space(repo_id, cache, needed, free))


def _no_space(repo_id: str, cache: Path, needed: int, free: int) -> str:
    gib = settings.GIB
    return (
        f"{repo_id!r} needs {needed / gib:.1f} GiB in {cache}; {free / gib:.1f} GiB are free. Make room, or set "
        "SENSORIUM_HOME to a folder on a larger disk."
    )


def _progress_class(total: int, on_progress: Progress) -> type[Any]:
    """Return a tqdm class that draws nothing and reports bytes.

    The client opens several bars: files, bytes received, bytes written. The byte bar that is furthest is shown.
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Reporter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("unit") == "B"
            self._done = float(kwargs.get("initial") or 0)
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            self._done += n or 0
            if self._counts_bytes and total:
                on_progress("download", min(1.0, self._done / total))
            return None

    return Reporter


def disk_reason(repo_id: str, error: Exception) -> ConfigurationError | None:
    """Say what the disk refused; None where it was something else that failed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigurationError(f"The disk was full while {repo_id!r} came in. Make room, or set SENSORIUM_HOME.")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        return ConfigurationError(f"{settings.home() / 'hub'} cannot be written. Set SENSORIUM_HOME to another folder.")
    return None


def _reason(repo_id: str, revision: str | None, endpoint: str | None, error: Exception) -> ConfigurationError:
    """Say plainly why a download failed."""
    from huggingface_hub import errors

    from sensorium.http_client import socks_proxy

    hub = endpoint or "https://huggingface.co"
    if isinstance(error, ImportError):
        return socks_proxy()
    if isinstance(error, errors.GatedRepoError):
        return ConfigurationError(
            f"{repo_id!r} is gated. Accept its terms at {hub}/{repo_id}, then set HF_TOKEN to a token of that account."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ConfigurationError(
            f"There is no model {repo_id!r} at {hub}. Check the spelling; for a private one, set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigurationError(f"{repo_id!r} has no revision {revision!r} at {hub}.")
    if (reason := disk_reason(repo_id, error)) is not None:
        return reason
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return ConfigurationError(f"{hub} answered {status} when asked for {repo_id!r}. Try again later.")
    return ConfigurationError(
        f"Cannot reach the hub to download {repo_id!r}: {hub} does not answer ({type(error).__name__}). Give a local "
        "directory, or run once online."
    )
