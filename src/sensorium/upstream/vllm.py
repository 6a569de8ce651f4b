"""Engine kind `vllm`: a vLLM server that belongs to this worker, in an interpreter of its own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from sensorium import families
from sensorium.errors import ConfigurationError, SensoriumError, UpstreamFailed, WorkerDied
from sensorium.lora.folder import DEFAULT_NAME
from sensorium.settings import EngineSettings
from sensorium.types import Adapter, Event, ModelInfo, Request
from sensorium.upstream import vllm_command as command
from sensorium.upstream.check import MediaCheck
from sensorium.upstream.dialect import VLLM
from sensorium.upstream.failures import LOST, UNREACHABLE
from sensorium.upstream.guarded import Guarded
from sensorium.upstream.interpreter import find_interpreter
from sensorium.upstream.model import UpstreamModel
from sensorium.upstream.vllm_log import VllmLog
from sensorium.upstream.vllm_start import start, wait
from sensorium.upstream.weights_files import check_weights
from sensorium.worker.checkpoint import read_json, sampling_defaults

log = logging.getLogger(__name__)

_EXIT_DEAD = 70
_LOOK_S = 1.0  # between two looks at its health
_ANSWER_S = 5.0
_SILENT_S = 60.0  # it serves HTTP beside its engine: only a hang makes it as silent as that
_STOPPED_S = 5.0  # a process that a signal stopped does nothing until another one comes
_LOST_S = 5.0  # how long after a broken connection its end may be noticed
_CLOSE_S = 0.8  # the worker has a second
_WAKE_S = 120.0
_SLEEP_LEVEL = 1  # weights go to the host's memory


class VllmModel(UpstreamModel):
    """A model that vLLM runs. If vLLM ends or hangs, everything in flight fails and `on_dead` is called."""

    def __init__(
        self,
        *args: Any,
        program: Guarded,
        ended: queue.SimpleQueue[str],
        vllm_log: VllmLog,
        on_dead: Callable[[], None],
        can_sleep: bool,
        always: Adapter | None,
        lora: bool,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._program, self._ended, self._vllm_log, self._on_dead = program, ended, vllm_log, on_dead
        self._can_sleep, self._asleep, self._always, self._lora = can_sleep, False, always, lora
        self._adapters: dict[Adapter, str] = {}  # -> what vLLM calls it
        self._adapter_lock = threading.Lock()
        self._turns, self._heard = 0, time.monotonic()
        self._stopped_since: float | None = None
        self._closing = False
        program.processes()
        threading.Thread(target=self._bury, name="vllm", daemon=True).start()
        self._client.start(self._watch())

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None] = lambda: os._exit(_EXIT_DEAD),
    ) -> VllmModel:
        """Start vLLM on a checkpoint, which is a folder, and wait until it answers.

        Raises:
            ConfigurationError: there is no vLLM, or it did not start; the message has the line that says why.
        """
        started = time.monotonic()
        path = Path(settings.model)
        config = read_json(path / "config.json")
        interpreter = find_interpreter(settings.engine_python)
        check_weights(path)
        cpu = interpreter.cpu_only or settings.device == "cpu"
        vllm_log, ended = VllmLog(on_progress), queue.SimpleQueue[str]()
        program = Guarded("sensorium-vllm-")
        can_sleep = not cpu and Path("/dev/nvidiactl").exists() and "enable_sleep_mode" not in settings.engine_args
        with ExitStack() as undo:  # whatever fails from here on: what was started does not stay
            undo.callback(program.close, _CLOSE_S)
            client = start(settings, interpreter, cpu, can_sleep, program, vllm_log, ended)
            undo.callback(client.stop)
            card = wait(client, program, ended, vllm_log)
            modalities = ("text", *(_media(config)))
            info = ModelInfo(
                name=settings.name or settings.model,
                family=str(config.get("model_type") or "?"),
                path=str(path),
                max_model_len=int(card.get("max_model_len") or settings.max_model_len or 0),
                modalities=modalities,
                default_sampling=sampling_defaults(read_json(path / "generation_config.json", missing={}), settings),
                dtype=settings.dtype,
                device="cpu" if cpu else settings.device.replace("auto", "cuda"),
                weights_bytes=sum(file.stat().st_size for file in [*path.glob("*.safetensors"), *path.glob("*.bin")]),
                kv_cache_tokens=vllm_log.kv_cache_tokens,
                load_s=time.monotonic() - started,
                engine="vllm",
                limit_mm_per_prompt=settings.limit_mm_per_prompt,
                adapter=settings.lora,
            )
            tokens = {
                kind: config[f"{kind}_token_id"]
                for kind in modalities
                if isinstance(config.get(f"{kind}_token_id"), int)
            }
            model = cls(
                info,
                client,
                VLLM,
                MediaCheck(settings.media, modalities, tokens),
                command.SERVED,
                on_events,
                on_failed,
                system=settings.system,
                seed=settings.seed,
                program=program,
                ended=ended,
                vllm_log=vllm_log,
                on_dead=on_dead,
                can_sleep=can_sleep,
                always=Adapter(DEFAULT_NAME, settings.lora) if settings.lora else None,
                lora=command.uses_lora(settings),
            )
            undo.pop_all()
            undo.callback(model.close)
            try:
                for name, folder in settings.lora_modules.items():
                    model.load_adapter(Adapter(name, folder))
                if model._always is not None:
                    model.load_adapter(model._always)
            except SensoriumError as error:
                raise ConfigurationError(f"vLLM does not take the adapter: {error.message}") from None
            undo.pop_all()
            return model

    def load_adapter(self, adapter: Adapter) -> None:
        """Let vLLM read an adapter's files, anew if they were read before. Blocks.

        Raises:
            ConfigurationError: vLLM was started without room for adapters.
            InvalidRequest: they do not fit the model, or cannot be read.
        """
        if not self._lora:
            raise ConfigurationError("vLLM keeps room for adapters only if told at start: give --enable-lora.")
        with self._adapter_lock:
            self._load_adapter(adapter)  # if that fails, what was there before stays

    def unload_adapter(self, name: str) -> None:
        """Let vLLM put an adapter away; answers that use it go on."""
        with self._adapter_lock:
            for adapter in [known for known in self._adapters if known.name == name]:
                body = {"lora_name": self._adapters.pop(adapter)}
                self._client.wait(self._post("unload_lora_adapter", body))

    def served_as(self, request: Request) -> str:
        """Return vLLM's name of the model, or of the request's adapter, which is loaded if it is not. Blocks."""
        adapter = request.adapter or self._always
        if adapter is None:
            return command.SERVED
        if not self._lora:
            return super().served_as(request)
        if (known := self._adapters.get(adapter)) is not None:
            return known  # without waiting for others to be read
        with self._adapter_lock:
            return self._adapters.get(adapter) or self._load_adapter(adapter)

    def sleep(self) -> None:
        """Give the GPU's memory back; weights go to the host's.

        Raises:
            InvalidRequest: this vLLM has no sleep mode.
        """
        if not self._can_sleep:
            super().sleep()
        self._client.wait(self._client.json("POST", f"/sleep?level={_SLEEP_LEVEL}", timeout_s=_WAKE_S))
        self._asleep = True

    def wake(self) -> None:
        """Undo `sleep`.

        Raises:
            UpstreamFailed: it could not take the memory again.
        """
        if self._asleep:
            self._client.wait(self._client.json("POST", "/wake_up", timeout_s=_WAKE_S))
            answer = self._client.wait(self._client.json("GET", "/is_sleeping", timeout_s=_ANSWER_S))
            if isinstance(answer, dict) and answer.get("is_sleeping"):
                raise UpstreamFailed("vLLM could not take its memory again.")
            self._asleep = False

    def beat(self) -> tuple[int, dict[str, float]]:
        """How often vLLM answered that it lives, and counters."""
        return self._turns, self.counters() | {"vllm_silent_s": round(time.monotonic() - self._heard, 1)}

    def close(self) -> None:
        """End vLLM and all that it started."""
        self._closing = True
        self._ended.put("is no longer needed")  # `_bury` waits for it
        self._program.close(_CLOSE_S)
        super().close()

    async def lost(self, error: UpstreamFailed) -> None:
        """A broken connection mostly means that vLLM ended; then `_bury` says so for all requests."""
        if error.code in (LOST, UNREACHABLE):
            await asyncio.sleep(_LOST_S)

    def _load_adapter(self, adapter: Adapter) -> str:
        # A name of its own for every reading: vLLM keeps what it once read under a name.
        told = hashlib.sha256(f"{adapter.name}\0{adapter.path}".encode()).hexdigest()[:12]
        name = f"{told}-{secrets.token_hex(4)}"
        self._client.wait(self._post("load_lora_adapter", {"lora_name": name, "lora_path": adapter.path}))
        self._adapters[adapter] = name
        return name

    async def _post(self, path: str, body: Mapping[str, str]) -> None:
        await self._client.text("POST", path, body, timeout_s=_WAKE_S)

    async def _watch(self) -> None:
        """Look every second whether it answers, and whether one of its processes was stopped."""
        while not self._closing:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._client.text("GET", "/health", timeout_s=_ANSWER_S)
            except SensoriumError:
                pass
            else:
                self._heard = time.monotonic()
            now = time.monotonic()
            stopped = await asyncio.to_thread(lambda: _is_stopped(self._program.processes()))
            self._stopped_since = (self._stopped_since or now) if stopped else None
            if self._stopped_since is not None and now - self._stopped_since > _STOPPED_S:
                self._ended.put("was stopped by a signal, and is ended")
                return
            if now - self._heard > _SILENT_S:
                self._ended.put(f"has not answered for {_SILENT_S:g} s, and is ended")
                return
            if not stopped and now - self._heard < _LOOK_S + _ANSWER_S:
                self._turns += 1

    def _bury(self) -> None:
        how = self._ended.get()
        if self._closing:
            return
        log.error("vLLM %s; its last words: %s", how, self._vllm_log.reason())
        self.fail_all(
            WorkerDied(
                f"vLLM, which runs the model {self.info.name!r}, {how} while it worked on this request. "
                "Send the request again; another one is started for it."
            )
        )
        self._program.close(_CLOSE_S)
        time.sleep(0.1)  # what failed is told before this process ends
        self._on_dead()


def _media(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the checkpoint takes beside text: as our families say, else by the towers that config.json describes."""
    known = families.media(config)
    if known is not None:
        return known
    found = ["image"] if any(name in config for name in ("vision_config", "visual", "mm_vision_tower")) else []
    found += ["video"] if found and any(name.startswith("video_token") for name in config) else []
    return (*found, *(["audio"] if "audio_config" in config else []))


def _is_stopped(processes: Sequence[psutil.Process]) -> bool:
    """Whether one of them is stopped by a signal."""
    try:
        return any(process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) for process in processes)
    except psutil.Error:
        return False  # one has just ended
