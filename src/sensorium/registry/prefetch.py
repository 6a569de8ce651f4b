"""Download a model before memory is set aside for it, in a process that can be ended.

`python -m sensorium.registry.prefetch SETTINGS` writes a JSON line for each step: [phase, fraction], or {"error": ...}.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

import msgspec

from sensorium.errors import ErrorInfo, SensoriumError, from_info
from sensorium.registry.download import missing
from sensorium.registry.hub import is_hub_id, on_this_machine, resolve
from sensorium.settings import EngineSettings

_ENDED = "The download ended without saying why."


class _Failed(msgspec.Struct):
    error: ErrorInfo


async def prefetch(settings: EngineSettings, on_progress: Callable[[str, float], None]) -> None:
    """Return when the model is on this machine, at once if it is there. Cancelling it ends the download.

    Raises:
        SensoriumError: it cannot be had.
    """
    if await asyncio.to_thread(_is_here, settings):
        return
    what = msgspec.json.encode((settings.model, settings.revision, settings.hub)).decode()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sensorium.registry.prefetch", what, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            said = msgspec.json.decode(line, type=tuple[str, float] | _Failed)
            if isinstance(said, _Failed):
                raise from_info(said.error)
            on_progress(*said)
        if await process.wait():
            raise SensoriumError(_ENDED)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _is_here(settings: EngineSettings) -> bool:
    """Whether nothing has to be downloaded, or the worker will say itself what is wrong with the name."""
    if not is_hub_id(settings.model):
        return True
    found = on_this_machine(settings.model, settings.revision, settings.hub)
    return found is not None and not missing(found)


def _main(what: str) -> int:
    model, revision, hub = msgspec.json.decode(what)

    def say(value: object) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
        sys.stdout.buffer.flush()

    try:
        resolve(model, revision, lambda phase, fraction: say((phase, fraction)), hub)
    except SensoriumError as error:
        say(_Failed(error.info()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
