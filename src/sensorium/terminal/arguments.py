"""Spellings of the command line: `--a_b` for `--a-b`, and options that take several values in a row."""

from __future__ import annotations

from collections.abc import Sequence

_SEVERAL = ("--served-model-name", "--api-key", "--lora-modules")
_DOTTED = "--limit-mm-per-prompt."


def normalise(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as click reads them.

    `--max_model_len=8` becomes `--max-model-len=8`, and `--served-model-name a b` (vLLM's form) becomes
    `--served-model-name a --served-model-name b`. `--limit-mm-per-prompt.image 2`, also vLLM's, becomes
    `--limit-mm-per-prompt image=2`. Nothing behind `--` is touched.
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
            result.append(name + equals + value)
            repeated, given = (name, 0) if name in _SEVERAL and not equals else (None, 0)
        elif repeated is not None and not argument.startswith("-"):
            result += [repeated, argument] if given else [argument]
            given += 1
        elif result and result[-1].startswith(f"{_DOTTED[:-1]}=") and result[-1].endswith("="):
            result[-1] += argument
        else:
            result.append(argument)
            repeated = None
    return result
