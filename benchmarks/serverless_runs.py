"""The measurements of `serverless.py`: each starts what it needs, measures, and ends it."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from engines import TEXT_MODEL, VLLM, VLLM_PYTHON
from serverless_servers import Server, cpu_s, ours, serving

TINY = Path(__file__).resolve().parent.parent / "src" / "sensorium" / "bundled" / "tiny-vl"
NUM_MODELS = 20
CLIENTS, MODELS = 16, 4
STREAMS = 8  # of the second measurement of a token's cost


async def cold_starts(rounds: int, vllm: bool) -> dict[str, Any]:
    """Seconds from the command's start to the first token, and from a registered alias's first request to it."""
    found: dict[str, Any] = {}
    for name, model in (("tiny-vl", TINY), ("0.5 B", TEXT_MODEL)):
        shell, alias, again = [], [], []
        for _ in range(rounds):
            async with ours("--max-model-len", "4096", model=model) as (server, began):
                await server.up("/ready")
                await server.first_token(str(model))
                shell.append(time.perf_counter() - began)
            async with ours() as (server, _):
                await server.up()
                await server.register("it", model, max_model_len=4096)
                await asyncio.sleep(4.0)  # the zygote has its imports
                alias.append(await server.first_token("it"))
                for _ in range(3):
                    await server.unload("it")
                    again.append(await server.first_token("it"))
        found[name] = {"shell": min(shell), "alias": min(alias), "again": statistics.median(again)}
        if vllm:
            for kind, more in (("vllm eager", ["--enforce-eager"]), ("vllm default", [])):
                command = [str(VLLM_PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
                command += ["--host", "127.0.0.1", "--max-model-len", "4096", *more]
                try:
                    async with serving(kind.replace(" ", "-"), command, VLLM) as (server, began):
                        await server.up()
                        await server.first_token(str(model))
                        found[name][kind] = time.perf_counter() - began
                except Exception as error:
                    found[name][kind] = str(error).splitlines()[0]
    return found


async def round_robin(laps: int) -> dict[str, Any]:
    """Twenty models in turn, with memory for three: seconds to the first token of each."""
    async with ours("--memory-budget", "900MiB") as (server, _):
        await server.up()
        for number in range(NUM_MODELS):
            await server.register(f"m{number}", TINY, max_model_len=2048, device="cpu", pinned=False)
        await server.first_token("m0")
        waits = [await server.first_token(f"m{number}") for _ in range(laps) for number in range(NUM_MODELS)]
        listed = (await server.http.get("/v1/models")).json()["data"]
        loaded = sum(card.get("state") == "ready" for card in listed)
        began = time.perf_counter()
        await asyncio.gather(*(server.first_token(f"m{number}") for number in range(NUM_MODELS)))
        at_once = time.perf_counter() - began
    waits.sort()
    return {
        "loaded_at_end": loaded,
        "median_s": statistics.median(waits),
        "worst_s": waits[-1],
        "turns_per_s": len(waits) / sum(waits),
        "all_at_once_s": at_once,
    }


async def gateway_cost(requests: int, tokens: int) -> dict[str, Any]:
    """Processor time of the gateway alone, per request and per streamed token."""
    async with ours(model=TINY) as (server, _):
        await server.up("/ready")
        gateway = server.process
        for _ in range(5):
            await server.stream(str(TINY), 4)
        before = cpu_s(gateway)
        for _ in range(requests):
            await server.first_token(str(TINY))
        per_request = (cpu_s(gateway) - before) / requests
        per_token = {}
        for side_by_side in (1, STREAMS):
            before, pieces = cpu_s(gateway), 0
            for _ in range(max(1, tokens // 512)):
                pieces += sum(await asyncio.gather(*(server.stream(str(TINY), 512) for _ in range(side_by_side))))
            per_token[side_by_side] = (cpu_s(gateway) - before) / pieces
        idle_bytes = gateway.memory_full_info().uss
    return {
        "request_ms": per_request * 1e3,
        "token_us": per_token[1] * 1e6,
        "token_us_of_many": per_token[STREAMS] * 1e6,
        "uss_mb": idle_bytes / 1e6,
    }


async def beside_a_load(seconds: float) -> dict[str, Any]:
    """Requests a second of 16 clients over 4 models, alone and while a fifth is loaded again and again."""
    async with ours("--max-num-seqs", "16") as (server, _):
        await server.up()
        for number in range(MODELS):
            await server.register(f"m{number}", TINY, max_model_len=2048)
            await server.first_token(f"m{number}")
        await server.register("big", TEXT_MODEL, max_model_len=2048)
        await server.first_token("big")
        alone = await _rate(server, seconds)
        loads = 0

        async def load() -> None:
            nonlocal loads
            while True:
                await server.unload("big")
                await server.first_token("big")
                loads += 1

        loading = asyncio.create_task(load())
        beside = await _rate(server, seconds)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    return {"alone": alone, "beside": beside, "loads": loads}


async def _rate(server: Server, seconds: float) -> float:
    done = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await server.first_token(f"m{number % MODELS}", f"{number} {done}")
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return done / (time.perf_counter() - began)
