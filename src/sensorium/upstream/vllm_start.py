"""Start a vLLM server and wait until it answers."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import shutil
import socket
from collections.abc import Mapping
from typing import Any

from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.settings import EngineSettings
from sensorium.upstream import vllm_command as command
from sensorium.upstream.client import Client
from sensorium.upstream.guarded import Guarded
from sensorium.upstream.interpreter import Interpreter, environment
from sensorium.upstream.vllm_log import VllmLog

log = logging.getLogger(__name__)

_POLL_S = 0.25
_ANSWER_S = 5.0


def start(
    settings: EngineSettings,
    interpreter: Interpreter,
    cpu: bool,
    can_sleep: bool,
    program: Guarded,
    vllm_log: VllmLog,
    ended: queue.SimpleQueue[str],
) -> Client:
    """Start the process; return the connection to where it will listen."""
    key = secrets.token_urlsafe(32)
    words = [interpreter.python, "-m", command.MODULE, *command.arguments(settings, cpu=cpu)]
    uds: str | None = None
    if interpreter.unix_sockets:
        uds, url = str(program.folder / "http"), "http://vllm/v1"  # in a folder that only this user can look into
        words.append(f"--uds={uds}")
    else:
        port = _free_port()
        url = f"http://127.0.0.1:{port}/v1"
        words += ["--host=127.0.0.1", f"--port={port}"]
    variables = environment() | command.environment(settings, cpu=cpu, key=key, folder=program.folder)
    if can_sleep:
        words.append("--enable-sleep-mode")
        variables["VLLM_SERVER_DEV_MODE"] = "1"
    name = settings.name or settings.model
    if os.environ.get("SENSORIUM_LOG_LEVEL", "").lower() == "debug":  # a worker logs warnings only, if not told more
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        log.setLevel(logging.DEBUG)
    log.info("model %r: starting %s by %s", name, interpreter.version, interpreter.python)

    def on_line(line: str) -> None:
        log.debug("vLLM, model %r: %s", name, line)
        vllm_log.read(line)

    executable = _absolute(interpreter.python)
    program.start([executable, *words[1:]], variables, on_line, ended.put)
    return Client(url, "vLLM", {"Authorization": f"Bearer {key}"}, uds=uds)


def wait(client: Client, program: Guarded, ended: queue.SimpleQueue[str], vllm_log: VllmLog) -> Mapping[str, Any]:
    """Wait until vLLM answers, for as long as it lives; return its model card.

    Raises:
        ConfigurationError: it ended.
    """
    while True:
        try:
            how = ended.get(timeout=_POLL_S)
        except queue.Empty:
            pass
        else:
            raise ConfigurationError(f"vLLM did not start: {vllm_log.reason()}. (Its process {how}.)")
        if program.pid is None:
            continue
        try:
            client.wait(client.text("GET", "/health", timeout_s=_ANSWER_S))
            answer = client.wait(client.json("GET", "models", timeout_s=_ANSWER_S))
        except SensoriumError:
            continue
        cards = answer.get("data") if isinstance(answer, dict) else None
        return next((card for card in cards or () if card.get("id") == command.SERVED), {})


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _absolute(python: str) -> str:
    """The path to start. Links are kept: they are how an interpreter knows its virtual environment."""
    found = shutil.which(python)
    if found is None:
        raise ConfigurationError(f"{python} cannot be run.")
    return os.path.abspath(found)
