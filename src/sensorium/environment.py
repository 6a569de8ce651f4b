"""The environment variables that are read: ours, and the names that other programs gave the same thing.

The first name that is set, and not empty, counts; a flag on the command line counts before all of them.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Variable(NamedTuple):
    """One setting: our name, the other programs' names in the order they are looked at, and what it says."""

    name: str
    old: tuple[str, ...]
    about: str


VARIABLES = (
    Variable("SENSORIUM_API_KEY", ("VLLM_API_KEY",), "Key that requests must bring; of `serve`, `deploy` and `chat`."),
    Variable("SENSORIUM_ADMIN_KEY", (), "Key for registering, loading and removing models; of `serve` and `models`."),
    Variable("SENSORIUM_REGISTRY", (), "Where registered models are kept: a file, a database's URL, or none."),
    Variable("SENSORIUM_MEMORY_BUDGET", (), "Memory that models may take together."),
    Variable("SENSORIUM_DEVICE_MEMORY_BUDGET", (), "The same for the memory of each GPU."),
    Variable("SENSORIUM_MODELS", (), "models.toml: models to register at start."),
    Variable("SENSORIUM_URL", (), "`models`: the server to talk to."),
    Variable("SENSORIUM_HOST", (), "Address to listen on."),
    Variable("SENSORIUM_PORT", (), "Port to listen on."),
    Variable("SENSORIUM_LOG_LEVEL", ("VLLM_LOGGING_LEVEL",), "debug, info, warning or error."),
    Variable("SENSORIUM_CLUSTER_TOKEN", (), "`serve`, `worker`: the secret that a cluster shares."),
    Variable("SENSORIUM_RAY_ADDRESS", ("RAY_ADDRESS",), "`serve --cluster ray`: host:port of the Ray cluster."),
    Variable("SENSORIUM_MANAGER_URL", ("MANAGER_URL",), "`worker`: the gateway, such as http://gateway:8000."),
    Variable("SENSORIUM_WORKER_ID", ("WORKER_ID",), "`worker`: what this machine is called in the cluster."),
    Variable("SENSORIUM_WORKER_HOST", ("WORKER_HOST",), "`worker`: address to listen on."),
    Variable("SENSORIUM_WORKER_PORT", ("WORKER_PORT",), "`worker`: port to listen on."),
    Variable("SENSORIUM_PUBLIC_URL", ("PUBLIC_URL",), "`worker`: where the gateway reaches it, if not there."),
    Variable("SENSORIUM_VLLM_PYTHON", (), "The Python interpreter that has vLLM, for models with `--engine vllm`."),
    Variable("SENSORIUM_HUB", (), "huggingface or modelscope: where hub ids are looked up."),
    Variable("SENSORIUM_IMAGE_FETCH_TIMEOUT", ("VLLM_IMAGE_FETCH_TIMEOUT",), "Seconds to fetch a picture in."),
    Variable("SENSORIUM_VIDEO_FETCH_TIMEOUT", ("VLLM_VIDEO_FETCH_TIMEOUT",), "Seconds to fetch a video in."),
    Variable("SENSORIUM_AUDIO_FETCH_TIMEOUT", ("VLLM_AUDIO_FETCH_TIMEOUT",), "Seconds to fetch a sound in."),
    Variable(
        "SENSORIUM_ENGINE_TIMEOUT",
        ("VLLM_ENGINE_ITERATION_TIMEOUT_S",),
        "Seconds that one step of the engine may take before its worker is ended and replaced.",
    ),
    Variable("SENSORIUM_MODEL_TYPE", ("MODEL_TYPE",), "`start_server`: what the checkpoint is; must fit config.json."),
    Variable("SENSORIUM_CHECKPOINT_PATH", ("CHECKPOINT_PATH",), "`start_server`: the model's folder."),
    Variable("SENSORIUM_TOKENIZER_PATH", ("TOKENIZER_PATH",), "`start_server`: the tokenizer's folder, if another."),
    Variable("SENSORIUM_START_PORT", ("START_PORT",), "`start_server`: port to listen on."),
    Variable("SENSORIUM_MAX_SEQ_LEN", ("MAX_SEQ_LEN",), "`start_server`: longest prompt and answer; 0: the model's."),
    Variable("SENSORIUM_ACT_TYPE", ("ACT_TYPE",), "`start_server`: numbers to compute with: FP16, BF16, FP32."),
    Variable("SENSORIUM_WEIGHT_TYPE", ("WEIGHT_TYPE",), "`start_server`: the same, where ACT_TYPE is not set."),
    Variable("SENSORIUM_TP_SIZE", ("TP_SIZE",), "`start_server`: devices a model runs on; only 1 is served."),
    Variable("SENSORIUM_WORLD_SIZE", ("WORLD_SIZE",), "`start_server`: the same."),
    Variable("SENSORIUM_CONCURRENCY_LIMIT", ("CONCURRENCY_LIMIT",), "`start_server`: requests inside at once."),
    Variable("SENSORIUM_LORA_INFO", ("LORA_INFO",), '`start_server`: adapters as JSON: {"name": "folder"}.'),
    Variable(
        "SENSORIUM_GENERATION_CONFIG_PATH",
        ("GENERATION_CONFIG_PATH",),
        "`start_server`: folder whose generation_config.json replaces the checkpoint's.",
    ),
)
# Read elsewhere, under these names only: by us, by the hubs' clients, or by torch.
STANDARD = (
    ("SENSORIUM_HOME", "Folder of downloaded models and state (default: the platform's cache folder)."),
    ("USE_HF", "1: `deploy` looks hub ids up on Hugging Face; otherwise on ModelScope, as swift does."),
    ("VLLM_USE_MODELSCOPE", "1: `serve` looks hub ids up on ModelScope."),
    ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1: adapters may be loaded from any folder while serving."),
    ("HF_TOKEN, HF_ENDPOINT", "Account and address of Hugging Face."),
    ("MODELSCOPE_API_TOKEN, MODELSCOPE_ENDPOINT, MODELSCOPE_DOMAIN", "Account and address of ModelScope."),
    ("HF_HUB_OFFLINE", "1: no hub is asked; only models that are there complete are served."),
    (
        "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "The way to hubs and other servers. Not to servers of this machine; media are fetched without a proxy.",
    ),
    ("OMP_NUM_THREADS", "Threads to compute with, at most, where no flag says it."),
    ("OMP_WAIT_POLICY, GOMP_SPINCOUNT", "How long threads wait awake for each other (default: a spin count of 10000)."),
    ("CUDA_VISIBLE_DEVICES", "The GPUs that exist for this process; `--device cuda:0` is the first of them."),
)
# What the same scripts set, and why it has no effect here. Named in one line when a server starts.
UNUSED = {
    "PYTORCH_NPU_ALLOC_CONF": "there is no NPU",
    "ASCEND_RT_VISIBLE_DEVICES": "there is no NPU",
    "FT_SERVER_TEST": "the log is on the terminal always",
}
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def names(name: str) -> list[str]:
    """Return all names under which `name` is looked up, ours first.

    Raises:
        KeyError: it is not in the table.
    """
    by_name = {row.name: [row.name, *row.old] for row in VARIABLES}
    return by_name[name]


def flag(name: str) -> bool | None:
    """Return what a yes-or-no variable says; None where it is not set.

    Raises:
        ValueError: it says neither; the message has the words that are known.
    """
    value = os.environ.get(name, "").strip().lower()
    if value and value not in (*_YES, *_NO):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join((*_YES, *_NO))}.")
    return value in _YES if value else None
