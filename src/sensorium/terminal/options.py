"""The options that say how a model is run, shared by the commands, and the settings they become."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from sensorium.environment import flag, names
from sensorium.registry.engine_args import check_engine_args
from sensorium.settings import GIB, MIB, Engine, EngineSettings, Hub, MediaLimits
from sensorium.terminal.foreign import note, noted
from sensorium.terminal.values import (
    Bytes,
    Device,
    Dtype,
    EngineArg,
    GenerationConfig,
    Limits,
    LoraModule,
    ProcessorOptions,
    SamplingDefaults,
    Seconds,
    Template,
)

BUNDLED = "tiny-vl"
BUNDLED_AUDIO = "tiny-audio"
Command = Callable[..., Any]

_BESIDE_BYTES = 32 * MIB  # of KV cache: some 16 000 tokens of tiny-audio
_SECONDS = Seconds()
_AT_LEAST_1 = click.IntRange(min=1)
_MEDIA = MediaLimits()
_DEFAULT = EngineSettings("")

_HUB = (
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option(
        "--hub",
        type=click.Choice(list(get_args(Hub))),
        envvar=names("SENSORIUM_HUB"),
        help="Where hub ids are looked up; default: huggingface.",
    ),
)
_RUN = (
    click.option(
        "--engine",
        type=click.Choice(list(get_args(Engine))),
        default=_DEFAULT.engine,
        help="auto: native, or transformers for architectures that native does not know. vllm, remote: other servers.",
    ),
    click.option(
        "--engine-python",
        envvar=names("SENSORIUM_VLLM_PYTHON"),
        help="--engine vllm: the Python interpreter that has vLLM.",
    ),
    click.option(
        "--engine-arg",
        "engine_args",
        type=EngineArg(),
        multiple=True,
        help="--engine vllm: an option of its own, name=value, values as JSON; may be repeated.",
    ),
    click.option("--base-url", help="--engine remote: the OpenAI-compatible server: https://example.com/v1."),
    click.option("--remote-api-key", help="--engine remote: its key, or env:NAME for the variable that holds it."),
    click.option("--remote-timeout", type=_SECONDS, help="--engine remote: how long it may be silent; default: 600."),
    click.option("--dtype", type=Dtype(), default="auto", help="Numbers to compute with."),
    click.option("--device", type=Device(), default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--max-model-len", type=_AT_LEAST_1, help="Longest prompt and answer together, in tokens."),
    click.option(
        "--mm-processor-kwargs", type=ProcessorOptions(), default={}, help='JSON: {"max_pixels": 1003520, "fps": 1}.'
    ),
    click.option("--min-pixels", type=_AT_LEAST_1, help="Smallest picture; smaller ones are enlarged."),
    click.option("--max-pixels", type=_AT_LEAST_1, help="Largest picture; larger ones are shrunk."),
    click.option("--chat-template", type=Template(), help="A file or the template itself; default: the model's."),
    *_HUB,
    click.option("--tokenizer", help="Folder with another tokenizer than the model's own."),
    click.option("--generation-config", type=GenerationConfig(), default="auto", help="Sampling defaults from there."),
    click.option(
        "--override-generation-config",
        type=SamplingDefaults(),
        default={},
        help='Single sampling defaults, as JSON: {"temperature": 0.2, "max_new_tokens": 512}.',
    ),
    click.option("--seed", type=int, help="For requests that bring none; default: a new one for each."),
    click.option("--threads", "num_threads", type=_AT_LEAST_1, help="Threads, at most; default: all cores."),
)

_SERVE = (
    click.option("--max-num-seqs", type=_AT_LEAST_1, default=_DEFAULT.max_num_seqs, help="Answers written at once."),
    click.option("--max-num-batched-tokens", type=_AT_LEAST_1, help="Tokens computed in one step."),
    click.option("--block-size", type=click.Choice(["8", "16", "32", "64", "128"]), help="Tokens per KV block."),
    click.option("--kv-cache-memory", type=Bytes(), help="Memory for the KV cache: 2GiB."),
    click.option(
        "--gpu-memory-utilization",
        type=click.FloatRange(0.0, 1.0, min_open=True),
        default=_DEFAULT.gpu_memory_utilization,
        help="Share of the GPU's memory to use.",
    ),
    click.option("--enable-prefix-caching/--no-enable-prefix-caching", default=True, help="Keep computed prompts."),
    click.option("--encoder-cache-memory", type=Bytes(), default=_DEFAULT.encoder_cache_bytes, help="For pictures."),
    click.option(
        "--limit-mm-per-prompt",
        type=Limits(),
        multiple=True,
        help='{"image": 5} or image=5,video=2; may be repeated; default: no limit.',
    ),
    click.option(
        "--tensor-parallel-size", type=_AT_LEAST_1, default=1, help="--engine vllm: GPUs the model is cut over."
    ),
    click.option(
        "--image-fetch-timeout",
        type=_SECONDS,
        default=_MEDIA.fetch_timeout_s,
        envvar=names("SENSORIUM_IMAGE_FETCH_TIMEOUT"),
        help="Seconds to fetch a picture in.",
    ),
    click.option(
        "--video-fetch-timeout",
        type=_SECONDS,
        default=_MEDIA.fetch_video_timeout_s,
        envvar=names("SENSORIUM_VIDEO_FETCH_TIMEOUT"),
        help="Seconds to fetch a video in.",
    ),
    click.option(
        "--audio-fetch-timeout",
        type=_SECONDS,
        default=_MEDIA.fetch_audio_timeout_s,
        envvar=names("SENSORIUM_AUDIO_FETCH_TIMEOUT"),
        help="Seconds to fetch a sound in.",
    ),
    click.option("--max-image-bytes", type=Bytes(), default=_MEDIA.max_bytes, help="Of the encoded file."),
    click.option("--max-image-pixels", type=_AT_LEAST_1, default=_MEDIA.max_pixels, help="Width times height."),
    click.option("--max-video-bytes", type=Bytes(), default=_MEDIA.max_video_bytes, help="Of the encoded file."),
    click.option("--max-video-frames", type=_AT_LEAST_1, default=_MEDIA.max_video_frames, help="Taken from a video."),
    click.option("--max-frame-pixels", type=_AT_LEAST_1, default=_MEDIA.max_frame_pixels, help="Of a video's picture."),
    click.option("--max-video-seconds", type=_SECONDS, default=_MEDIA.max_video_s, help="Longest video."),
    click.option("--max-audio-bytes", type=Bytes(), default=_MEDIA.max_audio_bytes, help="Of the encoded file."),
    click.option("--max-audio-seconds", type=_SECONDS, default=_MEDIA.max_audio_s, help="Longest sound."),
    click.option(
        "--lora-modules", type=LoraModule(), multiple=True, help='Adapters: name=folder, or {"name": ..., "path": ...}.'
    ),
    click.option(
        "--enable-lora/--no-enable-lora",
        "--vllm-enable-lora/--no-vllm-enable-lora",
        default=False,
        help="Not needed: adapters cost nothing until one is asked for.",
    ),
    click.option("--max-loras", type=_AT_LEAST_1, default=_DEFAULT.max_loras, help="Adapters kept in memory."),
    click.option(
        "--max-lora-rank",
        "--vllm-max-lora-rank",
        type=_AT_LEAST_1,
        default=_DEFAULT.max_lora_rank,
        help="Largest rank an adapter may have.",
    ),
    click.option("--allow-private-media", is_flag=True, help="Fetch from private and loopback addresses too."),
    click.option(
        "--allowed-local-media-path",
        type=click.Path(exists=True, file_okay=False, resolve_path=True),
        help="Folder below which file:// URLs may point.",
    ),
)


def hub_options(command: Command) -> Command:
    """Add the options that say where a hub id is looked up."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_HUB), command)


def chosen_hub(options: dict[str, Any]) -> Hub:
    """Return the hub that options and environment ask for."""
    return options["hub"] or ("modelscope" if yes_or_no("VLLM_USE_MODELSCOPE") else "huggingface")


def run_options(command: Command) -> Command:
    """Add the options of every command that loads a model."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_RUN), command)


def serve_options(command: Command) -> Command:
    """Add the options that matter only to a server."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_SERVE), command)


def engine_settings(model: str, options: dict[str, Any], name: str = "") -> EngineSettings:
    """Return the settings that the options of `run_options` and `serve_options` describe.

    What was given without effect is named in one line on standard error.
    """
    if _given("gpu_memory_utilization") and not options["device"].startswith("cuda"):
        note(f"--gpu-memory-utilization {options['gpu_memory_utilization']:g}", "unless the model is on a GPU")
    if _given("tensor_parallel_size") and options["engine"] != "vllm":
        if options["tensor_parallel_size"] > 1:
            raise click.UsageError(
                "--tensor-parallel-size above 1 needs --engine vllm: else a model runs on one device."
            )
        note("--tensor-parallel-size 1", "a model runs on one device")
    if line := noted():
        click.echo(line, err=True)
    pixels = {name: value for name in ("min_pixels", "max_pixels") if (value := options[name]) is not None}
    processor = {**options["mm_processor_kwargs"], **pixels}
    if processor.get("min_pixels", 1) > processor.get("max_pixels", processor.get("min_pixels", 1)):
        raise click.UsageError(
            f"min_pixels is {processor['min_pixels']}, more than max_pixels, {processor['max_pixels']}.",
        )
    common = (
        *(
            "engine",
            "engine_python",
            "base_url",
            "dtype",
            "device",
            "max_model_len",
            "chat_template",
            "revision",
            "seed",
            "num_threads",
        ),
        *("generation_config", "override_generation_config"),
    )
    serving = (
        "max_num_seqs",
        "max_num_batched_tokens",
        "gpu_memory_utilization",
        "enable_prefix_caching",
        "limit_mm_per_prompt",
        "enable_lora",
        "max_loras",
        "max_lora_rank",
        "tensor_parallel_size",
    )
    given = {field: options[field] for field in (*common, *serving) if field in options}
    if "limit_mm_per_prompt" in given:  # of a kind that is named twice, the last counts
        given["limit_mm_per_prompt"] = functools.reduce(operator.or_, given["limit_mm_per_prompt"], {})
    if options.get("block_size"):
        given["block_size"] = int(options["block_size"])
    if "lora_modules" in options:
        given["lora_modules"] = _lora_modules(options["lora_modules"])
    if "kv_cache_memory" in options:
        given["kv_cache_bytes"] = options["kv_cache_memory"]
        given["encoder_cache_bytes"] = options["encoder_cache_memory"]
        given["media"] = media_limits(options)
    given["engine_args"] = dict(options["engine_args"])
    if options["engine"] == "vllm":
        check_engine_args(given["engine_args"], trusted=options.get("trust_engine_args", False))
    given["api_key"], given["timeout_s"] = options["remote_api_key"], options["remote_timeout"]
    tokenizer = _tokenizer(options["tokenizer"], model)
    return EngineSettings(
        model, name=name or model, hub=chosen_hub(options), tokenizer=tokenizer, mm_processor_kwargs=processor, **given
    )


def _tokenizer(folder: str | None, model: str) -> str | None:
    """Return the folder of another tokenizer than the model's own.

    Raises:
        UsageError: it is not there.
    """
    if folder is None or folder == model or os.path.realpath(folder) == os.path.realpath(model):
        return None
    if not Path(folder).expanduser().is_dir():
        raise click.UsageError(f"there is no folder {folder!r} to take the tokenizer from.")
    return folder


def _given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def yes_or_no(variable: str) -> bool | None:
    """Return what an environment variable says; None where it is not set.

    Raises:
        UsageError: it says neither yes nor no.
    """
    try:
        return flag(variable)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _lora_modules(modules: Sequence[tuple[str, str]]) -> dict[str, str]:
    for name, path in modules:
        if [other for other, _ in modules].count(name) > 1:
            raise click.UsageError(f"two adapters are called {name!r}.")
        if not Path(path).expanduser().is_dir():
            raise click.UsageError(f"the adapter {name!r}: there is no folder {path!r}.")
    return {name: str(Path(path).expanduser().absolute()) for name, path in modules}


def bundled_audio_settings(beside: EngineSettings) -> EngineSettings:
    """Return settings for the bundled model that hears, served beside the one that sees.

    It takes over what is said about the machine and the server, not what fits the other model only: its tokenizer,
    template, adapters and options of pictures.
    """
    return msgspec.structs.replace(
        beside,
        model=BUNDLED_AUDIO,
        name=BUNDLED_AUDIO,
        revision=None,
        tokenizer=None,
        chat_template=None,
        lora_modules={},
        lora="",
        mm_processor_kwargs={},
        max_model_len=None,
        kv_cache_bytes=_BESIDE_BYTES,
    )


def media_limits(options: dict[str, Any]) -> MediaLimits:
    """Return the ceilings for media that the options describe."""
    return MediaLimits(
        max_bytes=options["max_image_bytes"],
        max_pixels=options["max_image_pixels"],
        max_video_bytes=options["max_video_bytes"],
        max_audio_bytes=options["max_audio_bytes"],
        max_frame_pixels=options["max_frame_pixels"],
        max_video_frames=options["max_video_frames"],
        max_video_s=options["max_video_seconds"],
        max_audio_s=options["max_audio_seconds"],
        # Three bytes a pixel, decoded and converted once each, beside the decoder's own needs.
        decode_memory_bytes=max(_MEDIA.decode_memory_bytes, 8 * options["max_image_pixels"] + GIB // 2),
        fetch_timeout_s=options["image_fetch_timeout"],
        fetch_video_timeout_s=options["video_fetch_timeout"],
        fetch_audio_timeout_s=options["audio_fetch_timeout"],
        allow_private=options["allow_private_media"],
        allowed_local_path=options["allowed_local_media_path"],
    )
