"""The options that say how a model is run, shared by the commands, and the settings they become."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args

import click
import msgspec

from sensorium.settings import GIB, MIB, Engine, EngineSettings, MediaLimits
from sensorium.terminal.values import Bytes, Device, Dtype, Limits, ProcessorOptions, Template

BUNDLED = "tiny-vl"
BUNDLED_AUDIO = "tiny-audio"
Command = Callable[..., Any]

_BESIDE_BYTES = 32 * MIB  # of KV cache: some 16 000 tokens of tiny-audio
_AT_LEAST_1 = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0.0, min_open=True)
_MEDIA = MediaLimits()
_DEFAULT = EngineSettings("")

_RUN = (
    click.option(
        "--engine",
        type=click.Choice(list(get_args(Engine))),
        default=_DEFAULT.engine,
        help="auto: native, or transformers for architectures that native does not know.",
    ),
    click.option("--dtype", type=Dtype(), default="auto", help="Numbers to compute with."),
    click.option("--device", type=Device(), default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--max-model-len", type=_AT_LEAST_1, help="Longest prompt and answer together, in tokens."),
    click.option(
        "--mm-processor-kwargs", type=ProcessorOptions(), default={}, help='JSON: {"max_pixels": 1003520, "fps": 1}.'
    ),
    click.option("--min-pixels", type=_AT_LEAST_1, help="Smallest picture; smaller ones are enlarged."),
    click.option("--max-pixels", type=_AT_LEAST_1, help="Largest picture; larger ones are shrunk."),
    click.option("--chat-template", type=Template(), help="A file or the template itself; default: the model's."),
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option("--seed", type=int, help="For requests that bring none; default: a new one for each."),
    click.option("--threads", "num_threads", type=_AT_LEAST_1, help="Threads to compute with; default: all cores."),
    click.option("--trust-remote-code", is_flag=True, help="Not needed: every model's code is built in."),
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
        "--limit-mm-per-prompt", type=Limits(), default={}, help='{"image": 5} or image=5; default: no limit.'
    ),
    click.option("--tensor-parallel-size", type=click.IntRange(1, 1), default=1, hidden=True),
    click.option("--max-image-bytes", type=Bytes(), default=_MEDIA.max_bytes, help="Of the encoded file."),
    click.option("--max-image-pixels", type=_AT_LEAST_1, default=_MEDIA.max_pixels, help="Width times height."),
    click.option("--max-video-bytes", type=Bytes(), default=_MEDIA.max_video_bytes, help="Of the encoded file."),
    click.option("--max-video-frames", type=_AT_LEAST_1, default=_MEDIA.max_video_frames, help="Taken from a video."),
    click.option("--max-frame-pixels", type=_AT_LEAST_1, default=_MEDIA.max_frame_pixels, help="Of a video's picture."),
    click.option("--max-video-seconds", type=_SECONDS, default=_MEDIA.max_video_s, help="Longest video."),
    click.option("--max-audio-bytes", type=Bytes(), default=_MEDIA.max_audio_bytes, help="Of the encoded file."),
    click.option("--max-audio-seconds", type=_SECONDS, default=_MEDIA.max_audio_s, help="Longest sound."),
    click.option("--allow-private-media", is_flag=True, help="Fetch from private and loopback addresses too."),
    click.option(
        "--allowed-local-media-path",
        type=click.Path(exists=True, file_okay=False, resolve_path=True),
        help="Folder below which file:// URLs may point.",
    ),
)


def run_options(command: Command) -> Command:
    """Add the options of every command that loads a model."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_RUN), command)


def serve_options(command: Command) -> Command:
    """Add the options that matter only to a server."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_SERVE), command)


def engine_settings(model: str, options: dict[str, Any], name: str = "") -> EngineSettings:
    """Return the settings that the options of `run_options` and `serve_options` describe."""
    if options["trust_remote_code"]:
        click.echo("--trust-remote-code is not needed and has no effect: no code of a checkpoint is run.", err=True)
    pixels = {name: value for name in ("min_pixels", "max_pixels") if (value := options[name]) is not None}
    processor = {**options["mm_processor_kwargs"], **pixels}
    if processor.get("min_pixels", 1) > processor.get("max_pixels", processor.get("min_pixels", 1)):
        raise click.UsageError(
            f"min_pixels is {processor['min_pixels']}, more than max_pixels, {processor['max_pixels']}.",
        )
    common = ("engine", "dtype", "device", "max_model_len", "chat_template", "revision", "seed", "num_threads")
    serving = (
        "max_num_seqs",
        "max_num_batched_tokens",
        "gpu_memory_utilization",
        "enable_prefix_caching",
        "limit_mm_per_prompt",
    )
    given = {field: options[field] for field in (*common, *serving) if field in options}
    if options.get("block_size"):
        given["block_size"] = int(options["block_size"])
    if "kv_cache_memory" in options:
        given["kv_cache_bytes"] = options["kv_cache_memory"]
        given["encoder_cache_bytes"] = options["encoder_cache_memory"]
        given["media"] = media_limits(options)
    return EngineSettings(model, name=name or model, mm_processor_kwargs=processor, **given)


def bundled_audio_settings(beside: EngineSettings) -> EngineSettings:
    """Return settings for the bundled model that hears, served beside the one that sees.

    It takes over what is said about the machine and the server, not what is said about pictures and templates.
    """
    return msgspec.structs.replace(
        beside,
        model=BUNDLED_AUDIO,
        name=BUNDLED_AUDIO,
        revision=None,
        chat_template=None,
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
        allow_private=options["allow_private_media"],
        allowed_local_path=options["allowed_local_media_path"],
    )
