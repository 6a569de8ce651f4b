"""Run the arms one after another and collect what they tell."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any, NamedTuple

import httpx
import report
import table
from engines import HERE, OFFLINE, WORK, Program, offline_arms, servers
from process import Failed, Running

ARM_LIMIT_S = 900.0  # one run of one arm
START_LIMIT_S = 300.0  # from starting a server to its first answer


class Effort(NamedTuple):
    """How much to measure."""

    passes: int  # processes for each text arm
    rounds: int  # timed repetitions of each shape in a process
    new_tokens: int
    images: int  # asked about one by one
    image_rounds: int  # of 16 at once
    stream_tokens: int


def measure_limits() -> table.Figures:
    """The machine's read bandwidth and arithmetic rates."""
    program = Program("limits", "limits", [sys.executable, str(HERE / "limits.py")])
    say("limits of the machine")
    with Running(program, [], WORK / "logs" / "limits.log") as running:
        running.wait(ARM_LIMIT_S)
        (line,) = running.told()
    return {key: float(value) for key, value in line.items() if key not in ("what", "at")}


def measure_text(
    arms: list[str], effort: Effort, results: dict[str, Any], failed: dict[str, str]
) -> dict[str, table.Figures | str]:
    """Every text arm `effort.passes` times. Returns title -> figures, or why there are none."""
    programs = [program for program in offline_arms() if program.name in arms]
    reasons = dict(failed)
    told: dict[str, list[dict[str, Any]]] = {program.name: [] for program in programs}
    starts: dict[str, list[float]] = {program.name: [] for program in programs}
    peaks: dict[str, int] = {program.name: 0 for program in programs}
    for number in range(effort.passes):
        for program in programs if number % 2 == 0 else programs[::-1]:
            if program.name in reasons:
                continue
            say(f"text, pass {number + 1} of {effort.passes}: {program.title}")
            log = WORK / "logs" / f"text-{program.name}-{number + 1}.log"
            try:
                options = ["--rounds", str(effort.rounds), "--new-tokens", str(effort.new_tokens)]
                with Running(program, options, log) as running:
                    running.wait(ARM_LIMIT_S)
                    lines = running.told()
            except Failed as error:
                say(str(error))
                reasons[program.name] = f"failed, see work/logs/{log.name}"
                continue
            told[program.name] += lines
            starts[program.name].append(_only(lines, "first_token")["at"] - running.started_at)
            peaks[program.name] = max(peaks[program.name], running.peak_bytes)
            results["versions"][program.name] = _only(lines, "version")["text"]
    results["told"]["text"] = told
    rows: dict[str, table.Figures | str] = {}
    for program in programs:
        name = program.name
        rows[program.title] = reasons.get(name) or table.text_figures(
            told[name], starts[name], peaks[name], report.text_shape(), results["limits"]
        )
    return rows


def measure_images(
    arms: list[str], effort: Effort, results: dict[str, Any], failed: dict[str, str]
) -> dict[str, table.Figures | str]:
    """Image requests through each HTTP server. Returns title -> figures, or why there are none."""
    rows: dict[str, table.Figures | str] = {}
    results["told"]["images"] = {}
    port = _free_port()
    for program in servers(port):
        if program.name not in arms:
            continue
        if program.name in failed:
            rows[program.title] = failed[program.name]
            continue
        say(f"images: {program.title}")
        log = WORK / "logs" / f"images-{program.name}.log"
        base_url = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(HERE / "arm_http.py"), base_url, "--images", str(effort.images)]
        command += ["--rounds", str(effort.image_rounds), "--stream-tokens", str(effort.stream_tokens)]
        client = Program(f"{program.name} client", "client", command, OFFLINE)
        try:
            with Running(program, [], log) as server:
                started = _first_answer(server, base_url)
                with Running(client, [], log.with_suffix(".client.log")) as running:
                    running.wait(ARM_LIMIT_S)
                    lines = running.told()
        except Failed as error:
            say(str(error))
            rows[program.title] = f"failed, see work/logs/{log.name} and {log.stem}.client.log"
            continue
        results["told"]["images"][program.name] = lines
        rows[program.title] = table.image_figures(lines, [started], server.peak_bytes)
    return rows


def _first_answer(server: Running, base_url: str) -> float:
    """Seconds from the start of the server's process to its first token.

    Raises:
        Failed: it ended, or gave no answer within START_LIMIT_S.
    """
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 1, "temperature": 0}
    with httpx.Client(base_url=base_url, timeout=START_LIMIT_S, trust_env=False) as http:
        while time.time() - server.started_at < START_LIMIT_S:
            if not server.alive():
                raise server.failure("ended while starting")
            try:
                body["model"] = http.get("/v1/models").json()["data"][0]["id"]
                if http.post("/v1/chat/completions", json=body).status_code == 200:
                    return time.time() - server.started_at
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise server.failure(f"gave no answer within {START_LIMIT_S:.0f} s")


def _only(lines: list[dict[str, Any]], what: str) -> dict[str, Any]:
    (line,) = (line for line in lines if line["what"] == what)
    return line


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
