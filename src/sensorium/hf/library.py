"""The transformers library: the only file that imports it. Code of a checkpoint never runs, the network is not used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer as Backend

from sensorium.errors import ConfigurationError
from sensorium.prompt.tokenizer import Tokenizer

log = logging.getLogger(__name__)
_KERNELS = ("attn_implementation", "experts_implementation")
_PACKAGES = ("torchvision", "num2words", "sentencepiece", "tiktoken", "timm", "accelerate", "einops", "protobuf")
_HERE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}

T = TypeVar("T")


def architecture(config: Mapping[str, Any]) -> str:
    """Return `architectures[0]` of config.json.

    Raises:
        ConfigurationError: it names none.
    """
    found = config.get("architectures")
    if not isinstance(found, list) or not found:
        raise ConfigurationError("config.json names no architecture (key 'architectures'), so it cannot be loaded.")
    return str(found[0])


def takes_media(config: Mapping[str, Any]) -> bool:
    """Whether the library has this architecture, and has it as one that sees or hears.

    Raises:
        ConfigurationError: the library is not installed, or cannot serve this architecture.
    """
    library = _library()
    from transformers.models.auto import modeling_auto

    name = architecture(config)
    if name in _names(modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES):
        return True
    if name in _names(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return False
    own = " The checkpoint brings code of its own for it, which never runs here." if config.get("auto_map") else ""
    raise ConfigurationError(
        f"Architecture {name!r} is neither a native family nor a text or multimodal model of transformers "
        f"{library.__version__}.{own} If a newer transformers has it, upgrade that."
    )


def load_model(path: Path, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    """Return the model of checkpoint folder `path`, with all of its weights, ready to generate.

    `.bin` files are read by the library's `torch.load(weights_only=True, mmap=True)`.

    Raises:
        ConfigurationError: it cannot be loaded, or tensors are missing.
    """
    library = _library()
    _refuse_kernels(config)
    auto = library.AutoModelForMultimodalLM if takes_media(config) else library.AutoModelForCausalLM

    def load() -> Any:
        return auto.from_pretrained(str(path), dtype=dtype, output_loading_info=True, weights_only=True, **_HERE)

    with _without_bars(library):
        model, told = _tried("weights", path, config, load)
    missing = sorted(told.get("missing_keys") or ())
    if missing:
        raise ConfigurationError(
            f"{path} lacks {len(missing)} tensors that {architecture(config)} needs: {', '.join(missing[:3])} ... "
            "The checkpoint is incomplete, or of another kind than its config.json says."
        )
    if model.config.is_encoder_decoder:
        raise ConfigurationError(
            f"{architecture(config)} is an encoder-decoder; the engine transformers serves models with a decoder only."
        )
    return model.to(device).eval()


def load_processor(path: Path, config: Mapping[str, Any]) -> Any:
    """Return what turns text and media into the model's inputs: the checkpoint's own processor.

    Raises:
        ConfigurationError: it cannot be loaded, or takes no media.
    """
    library = _library()
    processor = _tried("processor", path, config, lambda: library.AutoProcessor.from_pretrained(str(path), **_HERE))
    has = {name for name in ("image_processor", "video_processor", "feature_extractor") if hasattr(processor, name)}
    if not has or getattr(processor, "tokenizer", None) is None:
        raise ConfigurationError(
            f"{path} has no processor for media (preprocessor_config.json), which {architecture(config)} needs."
        )
    return processor


def load_tokenizer(path: Path, config: Mapping[str, Any], processor: Any | None) -> Tokenizer:
    """Return the checkpoint's tokenizer as the library reads it; with a `processor`, a copy of that one's.

    A copy, because the library changes settings of its own while others encode.

    Raises:
        ConfigurationError: it cannot be loaded, or is not of the fast kind.
    """
    library = _library()
    theirs = processor.tokenizer if processor is not None else None
    if theirs is None:
        theirs = _tried("tokenizer", path, config, lambda: library.AutoTokenizer.from_pretrained(str(path), **_HERE))
    backend = getattr(theirs, "backend_tokenizer", None)
    if not isinstance(backend, Backend):
        raise ConfigurationError(
            f"{path} has a tokenizer ({type(theirs).__name__}) without tokenizer.json; save it as one."
        )
    if processor is not None:
        backend = Backend.from_str(backend.to_str())
    backend.no_padding()
    backend.no_truncation()
    return Tokenizer(backend, dict(theirs.special_tokens_map))


def _library() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ConfigurationError(
            "The engine transformers needs the package of that name: pip install 'sensorium[transformers]'."
        ) from None
    return transformers


def _names(mapping: Mapping[str, Any]) -> set[str]:
    return {name for names in mapping.values() for name in ((names,) if isinstance(names, str) else names)}


def _tried(what: str, path: Path, config: Mapping[str, Any], load: Callable[[], T]) -> T:
    """Call the library, whose messages go to the log, not to the user."""
    try:
        return load()
    except Exception as error:  # whatever it and what it loads raise
        log.warning("transformers could not load the %s of %s", what, path, exc_info=True)
        words = str(error).lower() if isinstance(error, ImportError) else ""
        needed = next((name for name in _PACKAGES if name in words), "")
        hint = f"it needs another package: pip install {needed}" if needed else "the log says why"
        raise ConfigurationError(
            f"transformers {_library().__version__} cannot load the {what} of {path}, a {architecture(config)} "
            f"({type(error).__name__}); {hint}."
        ) from error


def _refuse_kernels(config: Mapping[str, Any]) -> None:
    """A checkpoint may name an attention kernel on the hub, which is code."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            _refuse_kernels(value)
        elif name.endswith(_KERNELS) and "/" in str(value):
            raise ConfigurationError(
                f"config.json asks for code from the hub ({name}: {value!r}), which never runs here. Remove that line."
            )


@contextmanager
def _without_bars(library: Any) -> Iterator[None]:
    settings = library.utils.logging
    shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            settings.enable_progress_bar()
