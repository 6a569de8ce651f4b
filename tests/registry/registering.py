"""Changes a registry without end, and says each change that was acknowledged: a process to be killed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple

from sensorium.registry.catalog import Catalog
from sensorium.registry.spec import ModelSpec
from sensorium.settings import EngineSettings

FILE = "/models.toml"
IN_FILE = 8


class Step(NamedTuple):
    """One change: what is done, and to which alias, or to all of a file."""

    kind: str
    number: int


def steps(first: int) -> Iterator[Step]:
    """Yield the changes, from a number on."""
    for number in itertools.count(first):
        yield Step("put", number)
        yield Step("replace", number)
        if number % 3 == 0:
            yield Step("apply", number)
        if number - 2 >= first:
            yield Step("remove", number - 2)


def spec(alias: str, number: int) -> ModelSpec:
    """Return a spec that is a few pages long, and says its number at both ends."""
    settings = EngineSettings(f"/models/{number}", name=alias, seed=number, system=f"{number} " * 2000)
    return ModelSpec(alias, settings, model_name=str(number))


def do(step: Step, catalog: Catalog) -> None:
    """Make one change."""
    number = step.number
    if step.kind == "put":
        catalog.put(spec(f"m{number}", number))
    elif step.kind == "replace":
        catalog.put(spec("shared", number), replace=True)
    elif step.kind == "apply":
        catalog.apply(FILE, [spec(f"file{place}", number) for place in range(IN_FILE)])
    else:
        catalog.remove(f"m{number}")


def expect(step: Step, there: dict[str, int]) -> dict[str, int]:
    """Return what is registered after a change: alias -> number."""
    if step.kind == "put":
        return {**there, f"m{step.number}": step.number}
    if step.kind == "replace":
        return {**there, "shared": step.number}
    if step.kind == "apply":
        return {**there, **{f"file{place}": step.number for place in range(IN_FILE)}}
    return {alias: number for alias, number in there.items() if alias != f"m{step.number}"}


if __name__ == "__main__":
    opened = Catalog(sys.argv[1])
    for each in steps(int(sys.argv[2])):
        do(each, opened)
        sys.stdout.write(f"{each.kind} {each.number}\n")
        sys.stdout.flush()
