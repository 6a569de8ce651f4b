"""Read a tokenizer's files into one `tokenizers.Tokenizer` and the settings beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from sensorium.errors import ConfigurationError
from sensorium.prompt import tiktoken_file
from sensorium.prompt.sentencepiece_backend import read_sentencepiece_backend

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_json(path: Path) -> Any:
    """Return the parsed file, or {} where there is none.

    Raises:
        ConfigurationError: the file cannot be read or is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid JSON; download it again.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}).") from error


def read_backend(path: Path) -> tuple[Backend, dict[str, str]]:
    """Build the tokenizer of checkpoint folder `path` the way transformers' AutoTokenizer does.

    Returns:
        The tokenizer, without padding and truncation, and its named special tokens ("eos_token": "<|im_end|>").

    Raises:
        ConfigurationError: files are missing or unusable; the message names them.
    """
    config = read_json(path / "tokenizer_config.json")
    names = read_json(path / "special_tokens_map.json") | {k: v for k, v in config.items() if v is not None}
    if _only_sentencepiece(path):
        backend, config, own_names = _sentencepiece(path, config)
        names = own_names | names
    else:
        backend = _vocabulary(path)
    backend.no_padding()
    backend.no_truncation()
    named = {name: _content(names[name]) for name in _NAMED if names.get(name)}
    _add_tokens(backend, config, names)
    if "add_bos_token" in config or "add_eos_token" in config:
        bos = named.get("bos_token") if config.get("add_bos_token") else None
        eos = named.get("eos_token") if config.get("add_eos_token") else None
        backend.post_processor = _template(backend, bos, eos)
    return backend, named


def _only_sentencepiece(path: Path) -> bool:
    others = (path / "tokenizer.json").is_file() or (path / "vocab.json").is_file()
    return (path / "tokenizer.model").is_file() and not others


def _sentencepiece(path: Path, config: dict[str, Any]) -> tuple[Backend, dict[str, Any], dict[str, str]]:
    """Read tokenizer.model the way transformers 4's tokenizers in Python do, which run it on the text between tokens.

    Returns:
        The tokenizer, tokenizer_config.json with what those tokenizers assume where it is silent, and the names the
        model file has for special tokens.
    """
    listed = config.get("added_tokens_decoder") or {
        str(token_id): {"content": text, "special": False}
        for text, token_id in read_json(path / "added_tokens.json").items()
    }
    # Only Llama's class knows the newer way, and the first files do not say which they want: the older one.
    llama = str(config.get("tokenizer_class", "")).removesuffix("Fast") == "LlamaTokenizer"
    backend, names = read_sentencepiece_backend(
        path / "tokenizer.model",
        {int(token_id): _content(token) for token_id, token in listed.items()},
        legacy=not llama or config.get("legacy") is not False,
        prefix=config.get("add_prefix_space") is not False,
        strip=llama,
    )
    return backend, {"add_bos_token": True, **config, "added_tokens_decoder": listed}, names


def _vocabulary(path: Path) -> Backend:
    file, vocab, merges = path / "tokenizer.json", path / "vocab.json", path / "merges.txt"
    try:
        if file.is_file():
            return Backend.from_file(str(file))
        if vocab.is_file() and merges.is_file():
            return tiktoken_file.byte_level(BPE.from_file(str(vocab), str(merges)))
    except Exception as error:  # the library raises bare Exception for whatever is wrong with a file
        broken = file if file.is_file() else vocab
        raise ConfigurationError(f"{broken} is not a tokenizer this version can read; download it again.") from error
    ranks = path / tiktoken_file.NAME
    if ranks.is_file():
        return tiktoken_file.read_tiktoken(ranks, sees="visual" in read_json(path / "config.json"))
    hint = ""
    if any(path.glob("*.model")) or any(path.glob("*.tiktoken")):
        hint = " It holds only another library's tokenizer; save it as tokenizer.json with transformers first."
    raise ConfigurationError(
        f"{path} has no tokenizer.json, no tokenizer.model, and no vocab.json with merges.txt.{hint}"
    )


def _add_tokens(backend: Backend, config: dict[str, Any], names: dict[str, Any]) -> None:
    listed = config.get("added_tokens_decoder") or {}
    for token_id in sorted(listed, key=int):
        token = _added(listed[token_id])
        # tokenizer.json wins where both speak; one call per token keeps the ids in the listed order.
        if backend.get_added_tokens_decoder().get(int(token_id)) is None:
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != int(token_id):
            raise ConfigurationError(
                f"tokenizer_config.json gives {token.content!r} the id {token_id}, but the vocabulary gives it "
                f"{backend.token_to_id(token.content)}. The files do not belong together."
            )
    extra = names.get("extra_special_tokens") or names.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra
    special = [names[name] for name in _NAMED if names.get(name)] + [
        value for name, value in names.items() if name.endswith("_token") and name not in _NAMED and _is_token(value)
    ]
    backend.add_special_tokens([_added(value, special=True) for value in (*special, *extra) if value])


def _is_token(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and "content" in value)


def _content(value: Any) -> str:
    return str(value["content"] if isinstance(value, dict) else value)


def _added(value: Any, special: bool | None = None) -> AddedToken:
    flags = value if isinstance(value, dict) else {}
    is_special = bool(flags.get("special", False)) if special is None else special
    return AddedToken(
        _content(value),
        single_word=flags.get("single_word", False),
        lstrip=flags.get("lstrip", False),
        rstrip=flags.get("rstrip", False),
        normalized=flags.get("normalized", not is_special),
        special=is_special,
    )


def _template(backend: Backend, bos: str | None, eos: str | None) -> processors.TemplateProcessing:
    single = [*([bos] if bos else []), "$A", *([eos] if eos else [])]
    ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys((bos, eos)) if token]
    return processors.TemplateProcessing(single=single, pair=[*single, "$B:1"], special_tokens=ids)
