"""Values of options: how they are written, and what to say when they are not."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import click

from sensorium.errors import InvalidRequest
from sensorium.settings import DTYPES, SAME_DTYPES, media_counts, parse_bytes, parse_idle_ttl
from sensorium.types import SamplingParams

_PROCESSOR = ("min_pixels", "max_pixels", "max_patches", "max_dynamic_patch", "max_slice_nums")
_FRAMES = ("fps", "num_frames", "max_frames")  # of videos; all but fps are whole numbers
_MOST_FPS = 1000
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens", "do_sample")


class Bytes(click.ParamType[int]):
    """A number of bytes: 1073741824, 512MiB, 2GiB, 1.5g. Units are powers of 1024."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class IdleTtl(click.ParamType[float]):
    """How long a model may be unused: 90, 10m, 2h, never."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_idle_ttl(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Limits(click.ParamType[dict[str, int]]):
    """How many media items a request may have: '{"image": 5, "video": {"count": 2}}' or image=5,video=2."""

    name = "limits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        if isinstance(value, dict):
            return value
        text = str(value).strip()
        if text.startswith("{"):
            limits = _json_object(self, text, param, ctx)
        else:
            limits = dict(pair.partition("=")[::2] for pair in text.split(","))
        try:
            return media_counts(limits)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ProcessorOptions(click.ParamType[dict[str, float]]):
    """Options of the processors: '{"max_pixels": 1003520, "fps": 1}'."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        options = value if isinstance(value, dict) else _json_object(self, str(value), param, ctx)
        known = (*_PROCESSOR, *_FRAMES)
        for name, number in options.items():
            if name not in known:
                self.fail(f"{name!r} is not an option of the processor; they are {', '.join(known)}.", param, ctx)
            fraction = name == "fps" and isinstance(number, float) and 0 < number <= _MOST_FPS
            if not fraction and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                kind = f"a number above 0 and up to {_MOST_FPS}" if name == "fps" else "a whole number above 0"
                self.fail(f"{name} is {number!r}; it must be {kind}.", param, ctx)
        if "fps" in options and "num_frames" in options:
            self.fail("fps and num_frames exclude each other; give one of them.", param, ctx)
        return options


class LoraModule(click.ParamType[tuple[str, str]]):
    """An adapter: name=folder, or vLLM's {"name": "sql", "path": "/adapters/sql"}."""

    name = "name=folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        text = str(value).strip()
        if text.startswith("{"):
            given = _json_object(self, text, param, ctx)
            name, path = given.get("name"), given.get("path")
        else:
            name, _, path = text.partition("=")
        if not (isinstance(name, str) and isinstance(path, str) and name and path):
            self.fail(f'{text!r} names no adapter; write name=folder, or {{"name": ..., "path": ...}}.', param, ctx)
        return name, path


class EngineArg(click.ParamType[tuple[str, Any]]):
    """An option of another program: name=value; what is JSON is read as that, everything else is text."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is no option; write name=value, such as enforce_eager=true.", param, ctx)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


class Seconds(click.ParamType[float]):
    """A time above 0."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r} is no time; write seconds, such as 10 or 2.5.", param, ctx)
        return seconds


class SamplingDefaults(click.ParamType[dict[str, Any]]):
    """Sampling defaults by the names of generation_config.json: '{"temperature": 0.2, "max_new_tokens": 512}'."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        options = value if isinstance(value, dict) else _json_object(self, str(value), param, ctx)
        for name, given in options.items():
            if name not in _SAMPLING:
                self.fail(f"{name!r} is no sampling default; they are {', '.join(_SAMPLING)}.", param, ctx)
            kind = bool if name == "do_sample" else int if name in ("top_k", "max_new_tokens") else (int, float)
            if not isinstance(given, kind) or isinstance(given, bool) != (kind is bool):
                self.fail(
                    f"{name} is {given!r}; it must be {'true or false' if kind is bool else 'a number'}.", param, ctx
                )
        fields = {name: given for name, given in options.items() if name != "do_sample"}
        if "max_new_tokens" in fields:
            fields["max_tokens"] = fields.pop("max_new_tokens")
        try:
            SamplingParams(**fields)
        except InvalidRequest as error:
            self.fail(error.message.replace("max_tokens", "max_new_tokens"), param, ctx)
        return options


class GenerationConfig(click.ParamType[str]):
    """Where sampling defaults come from: auto (the checkpoint), vllm (nowhere), or a folder."""

    name = "auto|vllm|folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text not in ("auto", "vllm") and not (Path(text).expanduser() / "generation_config.json").is_file():
            self.fail(f"{text!r} is neither auto nor vllm, nor a folder with generation_config.json.", param, ctx)
        return text


class Device(click.ParamType[str]):
    """Where to compute: auto, cpu, cuda, cuda:N."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value)):
            self.fail(f"{value!r} is not one of auto, cpu, cuda, cuda:N.", param, ctx)
        return str(value)


class Template(click.ParamType[str]):
    """A chat template: a file, or the template itself."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if "{" not in text and not Path(text).is_file():
            self.fail(f"there is no file {text!r}, and it is no template either (it has no braces).", param, ctx)
        return text


class Dtype(click.Choice[str]):
    """The numbers to compute with, also by the names that vLLM, swift and rtp-llm give them, in any case."""

    def __init__(self) -> None:
        super().__init__([*DTYPES, *SAME_DTYPES], case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        chosen = super().convert(value, param, ctx)
        return SAME_DTYPES.get(chosen, chosen)


def _json_object(
    kind: click.ParamType[Any], text: str, param: click.Parameter | None, ctx: click.Context | None
) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        kind.fail(f"{text!r} is not a JSON object.", param, ctx)
    return value
