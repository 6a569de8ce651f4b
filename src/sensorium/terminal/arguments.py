"""Spellings of the command line: `--a_b` for `--a-b`, and options that take several values in a row."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_SEVERAL = ("--served-model-name", "--api-key", "--admin-key", "--lora-modules")
_SWITCHES = ("--merge-lora", "--enable-lora", "--vllm-enable-lora")  # flags behind which ms-swift writes true or false
_DOTTED = "--limit-mm-per-prompt."


def is_server(target: str) -> bool:
    """Whether `target` is a server rather than a model: http(s)://..., or host:port, which no hub id looks like."""
    if target.startswith(("http://", "https://")):
        return True
    return re.fullmatch(r"[\w.-]+:\d+(/v1)?/?", target) is not None and not os.path.exists(target)


def normalise(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as click reads them.

    `--max_model_len=8` becomes `--max-model-len=8`, `--served-model-name a b` (vLLM's form) becomes
    `--served-model-name a --served-model-name b`, `--limit-mm-per-prompt.image 2`, also vLLM's, becomes
    `--limit-mm-per-prompt image=2`, and `--merge_lora true` (ms-swift's) becomes `--merge-lora`.
    Nothing behind `--` is touched.
    """
    result: list[str] = []
    repeated: str | None = None  # the option whose further values we are reading
    given = 0
    for position, argument in enumerate(arguments):
        if argument == "--":
            return [*result, *arguments[position:]]
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            name = name.replace("_", "-")
            if name.startswith(_DOTTED):
                kind = name.removeprefix(_DOTTED).removesuffix(".count")
                name, equals, value = _DOTTED[:-1], "=", f"{kind}={value}"
            if name in _SWITCHES and value.lower() in ("true", "false"):
                equals, value, name = "", "", name if value.lower() == "true" else name.replace("--", "--no-", 1)
            result.append(name + equals + value)
            repeated, given = (name, 0) if name in (*_SEVERAL, *_SWITCHES) and not equals else (None, 0)
        elif repeated in _SWITCHES:
            if argument.lower() not in ("true", "false"):
                result.append(argument)
            elif argument.lower() == "false":
                result[-1] = result[-1].replace("--", "--no-", 1)
            repeated = None
        elif repeated is not None and not argument.startswith("-"):
            result += [repeated, argument] if given else [argument]
            given += 1
        elif result and result[-1].startswith(f"{_DOTTED[:-1]}=") and result[-1].endswith("="):
            result[-1] += argument
        else:
            result.append(argument)
            repeated = None
    return result
