"""Settings, frozen once parsed. What a worker needs is a value that can be sent to it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import platformdirs

Engine = Literal["auto", "native", "transformers", "vllm", "remote"]
Hub = Literal["huggingface", "modelscope"]
Cluster = Literal["none", "join", "ray"]

MIB = 1 << 20
GIB = 1 << 30


class MediaLimits(msgspec.Struct, frozen=True):
    """Ceilings for one media item; a request can only lower them."""

    max_bytes: int = 20 * MIB  # of an encoded picture, one frame of a list included
    max_video_bytes: int = 64 * MIB
    max_audio_bytes: int = 25 * MIB
    max_request_bytes: int = 256 * MIB  # of all items of one request
    max_pixels: int = 64_000_000  # width * height, checked from the header before anything is decoded
    max_aspect_ratio: int = 200  # Qwen's processor refuses more; so does every family of the tile kind
    max_frame_pixels: int = 36_000_000  # of a video's picture; 8K is 33 million
    max_video_frames: int = 768  # taken from one video
    max_video_pixels: int = 300_000_000  # of all frames taken from one video, after downscaling
    max_video_s: float = 3600.0
    max_audio_s: float = 600.0
    decode_timeout_s: float = 10.0  # of a picture
    decode_clip_timeout_s: float = 30.0  # of a video or a sound
    decode_memory_bytes: int = 1 * GIB  # RLIMIT_AS of a decoding child
    fetch_timeout_s: float = 10.0  # whole download, redirects included
    fetch_video_timeout_s: float = 30.0
    fetch_audio_timeout_s: float = 10.0
    max_redirects: int = 3
    allow_private: bool = False  # loopback, private and link-local addresses
    allowed_local_path: str | None = None  # file:// URLs are refused unless below this folder


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DTYPES = ("auto", "bfloat16", "float16", "float32")
SAME_DTYPES = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}


def parse_bytes(text: str) -> int:
    """Return a number of bytes, written 1073741824, 512MiB, 2GiB or 1.5g. Units are powers of 1024.

    Raises:
        ValueError: it is none; the text is for the user.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 512MiB, 2GiB or a number of bytes.")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_idle_ttl(text: str) -> float:
    """Return seconds, written 90, 90s, 10m, 2h or 1d; "never" is -1.

    Raises:
        ValueError: it is no time; the text is for the user.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if text.strip().lower() in ("never", "-1"):
        return -1.0
    if match is None:
        raise ValueError(f"{text!r} is no time; write seconds (90), 10m, 2h, or never.")
    return float(match[1]) * _TIMES[match[2]]


MODALITIES = ("image", "video", "audio")


def media_counts(given: Mapping[str, Any]) -> dict[str, int]:
    """Return how many items of each kind a request may have, from vLLM's forms: {"image": 5, "video": {"count": 2}}.

    What else stands beside a count says how vLLM measures memory. A kind without a count has no limit.

    Raises:
        ValueError: a kind is not known, or a number is none; the text is for the user.
    """
    counts: dict[str, int] = {}
    for name, value in given.items():
        kind, count = str(name).strip(), value
        if kind not in MODALITIES:
            raise ValueError(f"{name!r} is no kind of media; kinds are {', '.join(MODALITIES)}.")
        if isinstance(value, Mapping):
            if "count" not in value:
                continue
            count = value["count"]
        if isinstance(count, bool) or not re.fullmatch(r"\d{1,9}", str(count).strip()):
            raise ValueError(f"the limit of {kind!r} is {count!r}; write a whole number, 0 or more.")
        counts[kind] = int(str(count))
    return counts


class EngineSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """All a worker has to know to load one model and run it. None means: choose for me."""

    model: str  # a local directory, or a hub id such as Qwen/Qwen3-VL-2B-Instruct
    name: str = ""  # the name in responses; default: `model`
    revision: str | None = None
    hub: Hub = "huggingface"  # where a hub id is looked up
    tokenizer: str | None = None  # a folder whose tokenizer and chat template replace the checkpoint's
    engine: Engine = "auto"  # native: ours; transformers: that library's; vllm: a process of it; remote: a URL
    engine_args: dict[str, Any] = {}  # of the engine vllm: its own options, by their names there
    engine_python: str | None = None  # the interpreter that has vllm; default: SENSORIUM_VLLM_PYTHON
    base_url: str | None = None  # of the engine remote: an OpenAI-compatible server, with its /v1
    api_key: str | None = None  # ... and its key
    timeout_s: float | None = None  # ... and how long it may be silent
    tensor_parallel_size: int = 1  # of the engine vllm
    dtype: str = "auto"  # auto | bfloat16 | float16 | float32
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    kv_cache_bytes: int | None = None
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool = True
    encoder_cache_bytes: int = 256 * MIB
    encoder_share: float = 1.0  # encoder time per step, relative to the rest of the step, while others compute
    limit_mm_per_prompt: dict[str, int] = {}
    mm_processor_kwargs: dict[str, Any] = {}  # server-wide max_pixels, fps, ...
    chat_template: str | None = None  # a file or the template itself; default: the checkpoint's
    system: str | None = None  # first message of conversations that bring no system message
    generation_config: str = "auto"  # sampling defaults: auto: the checkpoint's; vllm: none; or a folder that has them
    override_generation_config: dict[str, Any] = {}  # of single ones: temperature, top_p, max_new_tokens, ...
    num_threads: int | None = None
    seed: int | None = None  # of requests that bring none; None: a new one for each
    media: MediaLimits = MediaLimits()
    enable_lora: bool = False  # vLLM's; here adapters cost nothing until one is asked for
    lora_modules: dict[str, str] = {}  # name -> folder of an adapter, read at start
    lora: str = ""  # folder of the adapter of requests that name none; `model` may be such a folder itself
    max_loras: int = 8  # adapters kept in memory; those in use count, but are never put away
    max_lora_rank: int = 512


class Needs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker takes of a machine. None: not said; a cluster goes by estimates."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory_bytes: int | None = None
    worker_id: str | None = None  # this machine of the cluster and no other


class ServerSettings(msgspec.Struct, frozen=True):
    """What the gateway needs beside its models."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    max_body_bytes: int = 64 * MIB
    max_queued: int = 256  # requests waiting or running, over all models; more are refused with Retry-After
    grace_s: float = 30.0  # SIGTERM: how long running requests may take to finish
    preload: bool = True
    lora_root: str | None = None  # adapters may be loaded from below this folder while serving
    lora_anywhere: bool = False  # ... and from everywhere
    stalled_after_s: float = 600.0  # an engine that is in one step for longer is killed
    admin_keys: tuple[str, ...] = ()  # where there are any, only they may register, load and remove models
    registry: str | None = None  # where registered models are kept: a file or a database's URL; None: nowhere
    models_file: str | None = None  # models.toml: registered at start
    memory_budget: int | None = None  # bytes that models may take together; None: four fifths of the memory
    device_memory_budget: int | None = None  # ... of each accelerator; None: nine tenths
    idle_ttl_s: float = 300.0  # of registered models that say nothing else: unused for so long, they are unloaded
    trust_engine_args: bool = False  # registrations may carry options with which an engine runs code from elsewhere
    trust_request_chat_template: bool = False  # run templates that come with requests, in the sandbox
    cluster: Cluster = "none"  # join: workers of other machines may join; ray: Ray places workers, and they may join
    ray_address: str = "auto"  # host:port, auto or local
    cluster_token: str | None = None  # what workers that join have to know; None: the one in home()
    media: MediaLimits = MediaLimits()


def home() -> Path:
    """Folder for state and caches: `SENSORIUM_HOME`, or the platform's user cache folder."""
    return Path(os.environ.get("SENSORIUM_HOME") or platformdirs.user_cache_dir("sensorium"))


NOWHERE = "none"  # as the registry's place: registered models end with the server


def registry_file() -> str:
    """Return where registered models are kept if nobody says."""
    return str(home() / "registry.db")
