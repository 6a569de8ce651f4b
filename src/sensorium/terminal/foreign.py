"""Flags of vLLM and ms-swift that Sensorium takes without acting on them, or refuses by name.

A flag stays here while no answer depends on it. One on which answers depend is served, or refused with what to do.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import click

from sensorium.environment import UNUSED

Command = Callable[..., Any]
_NOTED = "sensorium.noted"


class Foreign(NamedTuple):
    """One flag.

    Attributes:
        flag: with dashes.
        why: why it has no effect, or why it is refused: the end of a sentence, or what to do.
        allowed: the values (in any case) that ask for nothing else than what happens anyway; None: any value does.
            Others are refused. () refuses all.
        takes: a value; nothing; or bool: nothing, or true or false (as swift's switches).
    """

    flag: str
    why: str
    allowed: tuple[str, ...] | None = None
    takes: Literal["value", "nothing", "bool"] = "value"


_OWN_ENGINE = "the engine is Sensorium's own"
_OWN_CACHE = "memory is planned otherwise"
_LOGS = "the log is Sensorium's own"
_ONE = "a model runs on one device"
_NO_CODE = "no code of a checkpoint runs"
_TLS = "TLS is not served; put a proxy that does in front"

REMOTE_CODE = Foreign("--trust-remote-code", _NO_CODE, takes="nothing")
VLLM = (
    REMOTE_CODE,
    Foreign("--distributed-executor-backend", _ONE),
    Foreign("--worker-use-ray", _ONE, takes="nothing"),
    Foreign("--pipeline-parallel-size", _ONE, ("1",)),
    Foreign("--data-parallel-size", _ONE, ("1",)),
    Foreign("--enable-expert-parallel", _ONE, takes="nothing"),
    Foreign("--max-parallel-loading-workers", _OWN_ENGINE),
    Foreign("--enforce-eager", _OWN_ENGINE, takes="nothing"),
    Foreign("--no-enforce-eager", _OWN_ENGINE, takes="nothing"),
    Foreign("--compilation-config", _OWN_ENGINE),
    Foreign("--max-seq-len-to-capture", _OWN_ENGINE),
    Foreign("--num-scheduler-steps", _OWN_ENGINE),
    Foreign("--async-scheduling", _OWN_ENGINE, takes="nothing"),
    Foreign("--use-v2-block-manager", _OWN_ENGINE, takes="nothing"),
    Foreign("--disable-custom-all-reduce", _ONE, takes="nothing"),
    Foreign("--enable-chunked-prefill", "prompts are always cut into chunks", takes="nothing"),
    Foreign("--no-enable-chunked-prefill", "prompts are always cut into chunks", takes="nothing"),
    Foreign("--swap-space", _OWN_CACHE),
    Foreign("--cpu-offload-gb", _OWN_CACHE, ("0",)),
    Foreign("--num-gpu-blocks-override", _OWN_CACHE),
    Foreign("--preemption-mode", _OWN_ENGINE),
    Foreign("--disable-mm-preprocessor-cache", "media are kept by their content", takes="nothing"),
    Foreign("--mm-processor-cache-gb", "give --encoder-cache-memory"),
    Foreign("--additional-config", "it is for NPUs"),
    Foreign("--disable-log-stats", _LOGS, takes="nothing"),
    Foreign("--disable-log-requests", _LOGS, takes="nothing"),
    Foreign("--enable-log-requests", _LOGS, takes="nothing"),
    Foreign("--max-log-len", _LOGS),
    Foreign("--uvicorn-log-level", _LOGS),
    Foreign("--disable-uvicorn-access-log", _LOGS, takes="nothing"),
    Foreign("--disable-frontend-multiprocessing", "the server is one process", takes="nothing"),
    Foreign("--api-server-count", "the server is one process", ("1",)),
    Foreign("--guided-decoding-backend", "there is no guided decoding"),
    Foreign("--max-logprobs", "the most is 20", ("20",)),
    Foreign("--download-dir", "set SENSORIUM_HOME"),
    Foreign("--task", "only text is generated", ("auto", "generate")),
    Foreign("--runner", "only text is generated", ("auto", "generate")),
    Foreign("--response-role", "answers are the assistant's", ("assistant",)),
    Foreign("--load-format", "the files decide", ("auto", "safetensors", "pt")),
    Foreign("--config-format", "config.json is read", ("auto", "hf")),
    Foreign("--tokenizer-mode", "there is one way to read a tokenizer", ("auto", "slow", "hf")),
    Foreign("--model-impl", "give --engine native or transformers", ("auto",)),
    Foreign("--chat-template-content-format", "the template decides", ("auto",)),
    Foreign("--quantization", "quantized weights are not served yet", ("none",)),
    Foreign("--kv-cache-dtype", "keys and values have the model's numbers", ("auto",)),
    Foreign("--rope-scaling", "put it into config.json", ()),
    Foreign("--rope-theta", "put it into config.json", ()),
    Foreign("--hf-overrides", "put them into config.json", ()),
    Foreign("--speculative-config", "there is no speculative decoding"),
    Foreign("--speculative-model", "there is no speculative decoding"),
    Foreign("--enable-auto-tool-choice", "tools are not served yet", (), takes="nothing"),
    Foreign("--tool-call-parser", "tools are not served yet", ()),
    Foreign("--reasoning-parser", "reasoning is not told apart yet", ()),
    Foreign("--allowed-media-domains", "hosts cannot be listed yet; private addresses are refused already", ()),
    Foreign("--middleware", "code from elsewhere is not loaded", ()),
    Foreign("--root-path", "let the proxy strip the path", ()),
    Foreign("--ssl-keyfile", _TLS, ()),
    Foreign("--ssl-certfile", _TLS, ()),
    Foreign("--ssl-ca-certs", _TLS, ()),
)
SWIFT = (
    Foreign("--infer-backend", _OWN_ENGINE, ("auto", "pt", "vllm", "lmdeploy")),
    Foreign("--sft-type", "the files in --ckpt_dir decide"),
    Foreign("--enforce-eager", _OWN_ENGINE, takes="bool"),
    Foreign("--disable-custom-all-reduce", _ONE, takes="bool"),
    Foreign("--use-flash-attn", _OWN_ENGINE, takes="bool"),
    Foreign("--device-map-config", _ONE),
    Foreign("--device-map-config-path", _ONE),
    Foreign("--device-max-memory", _ONE),
    Foreign("--merge-device-map", _ONE),
    Foreign("--tp", _ONE, ("1",)),
    Foreign("--cache-max-entry-count", _OWN_CACHE),
    Foreign("--vision-batch-size", _OWN_ENGINE),
    Foreign("--local-repo-path", _NO_CODE),
    Foreign("--custom-register-path", _NO_CODE, ()),
    Foreign("--verbose", _LOGS, takes="bool"),
    Foreign("--log-interval", _LOGS),
    Foreign("--owned-by", "model cards say sensorium"),
    Foreign("--stream", "each request says it", takes="bool"),
    Foreign("--save-safetensors", "nothing is saved", takes="bool"),
    Foreign("--eval-human", "nothing is evaluated", takes="bool"),
    Foreign("--load-dataset-config", "there is no data set", takes="bool"),
    Foreign("--ignore-args-error", "wrong flags are refused", ("false",), takes="bool"),
    Foreign("--num-beams", "answers are sampled, not searched", ("1",)),
    Foreign("--max-length", "give --max_model_len", ("-1",)),
    Foreign("--truncation-strategy", "prompts that are too long are refused", ("delete",)),
    Foreign("--quant-method", "quantized weights are not served yet", ()),
    Foreign("--quantization-bit", "quantized weights are not served yet", ("0",)),
    Foreign("--quant-policy", "keys and values have the model's numbers", ("0",)),
    Foreign("--rope-scaling", "put it into config.json", ()),
    Foreign("--model-kwargs", "give --mm-processor-kwargs", ()),
    Foreign("--stop-words", "send `stop` with the request", ()),
    Foreign("--tools-prompt", "tools are not served yet", ("react_en",)),
    Foreign("--hub-token", "set MODELSCOPE_API_TOKEN or HF_TOKEN: everybody on this machine sees flags", ()),
)


def foreign_options(rows: Sequence[Foreign]) -> Callable[[Command], Command]:
    """Return a decorator that adds these flags, hidden, to a command; of two rows for one flag the first counts."""
    by_flag = {row.flag: row for row in reversed(rows)}
    return lambda command: functools.reduce(lambda wrapped, row: _option(row)(wrapped), by_flag.values(), command)


def note(what: str, why: str) -> None:
    """Remember that the user gave something that has no effect; `noted` says it."""
    click.get_current_context().meta.setdefault(_NOTED, []).append(f"{what} ({why})")


def noted() -> str | None:
    """Return one line that names all that was given without effect, variables included; None if nothing was."""
    entries = list(click.get_current_context().meta.get(_NOTED, ()))
    entries += [f"{name} ({why})" for name, why in UNUSED.items() if os.environ.get(name)]
    return f"Without effect here: {', '.join(entries)}." if entries else None


def _option(row: Foreign) -> Callable[[Command], Command]:
    def took(ctx: click.Context, param: click.Parameter, value: str | bool | None) -> None:
        if not value:
            return
        written = row.flag if value is True else f"{row.flag} {value}"
        if row.allowed is not None and str(value).lower() not in row.allowed:
            right = f"; it may be {' or '.join(row.allowed)}" if row.allowed else ""
            raise click.UsageError(f"{written} cannot be served{right}: {row.why}.", ctx)
        note(written, row.why)

    more: dict[str, dict[str, Any]] = {
        "value": {},
        "nothing": {"is_flag": True},
        "bool": {"is_flag": False, "flag_value": "true"},
    }
    return click.option(row.flag, hidden=True, expose_value=False, callback=took, **more[row.takes])
