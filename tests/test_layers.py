"""The layer rule of ARCHITECTURE.md, read from the imports themselves."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "sensorium").rglob("*.py"))
}

# What a part may import at run time, beside the standard library and `sensorium.{types,errors,settings}`.
VALUES = {"sensorium.types", "sensorium.errors", "sensorium.settings"}
ALLOWED = {
    "sensorium.types": {"msgspec", "sensorium.sampling_values"},
    "sensorium.sampling_values": set(),
    "sensorium.errors": {"msgspec"},
    "sensorium.settings": {"msgspec", "platformdirs"},
    "sensorium.protocol": {"sensorium.protocol", "pydantic", "msgspec"},
    "sensorium.engine.blocks": set(),
    "sensorium.engine.encoder_cache": set(),
    "sensorium.engine.sequence": {"sensorium.families.family", "numpy"},
    "sensorium.engine.scheduler": {"sensorium.engine", "sensorium.families.family"},
    "sensorium.model": {"sensorium.model", "sensorium.families.family", "torch", "numpy", "safetensors"},
    "sensorium.media.sampling": {"sensorium.media.check"},
    "sensorium.families": {
        "sensorium.families",
        "sensorium.model",
        "sensorium.media.sampling",
        "torch",
        "numpy",
        "PIL",
    },
    "sensorium.lora": {
        "sensorium.lora",
        "sensorium.model",
        "sensorium.families",
        "sensorium.registry.hub",
        "torch",
        "safetensors",
    },
    "sensorium.output": {"sensorium.output", "sensorium.prompt", "tokenizers"},
    "sensorium.prompt": {"sensorium.prompt", "tokenizers", "jinja2", "msgspec"},
}
# What may never be reached by importing the front, however indirectly: the gateway starts in a fraction of a second.
GATEWAY = ("sensorium.server.app", "sensorium.server.run", "sensorium.registry.pool", "sensorium.cli")
HEAVY = {
    "sqlalchemy",
    "psycopg",
    "torch",
    "transformers",
    "tokenizers",
    "PIL",
    "numpy",
    "safetensors",
    "jinja2",
    "av",
    "soundfile",
    "soxr",
}


@cache
def imports(module: str) -> frozenset[str]:
    """Modules imported when `module` is: top-level statements, but not those under TYPE_CHECKING."""
    found: set[str] = set()
    pending: list[ast.stmt] = list(ast.parse(FILES[module].read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            name = node.module or ""
            found.update(f"{name}.{a.name}" if f"{name}.{a.name}" in FILES else name for a in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            pending += node.body + node.orelse
        elif isinstance(node, ast.Try):
            pending += node.body
    return frozenset(found)


def within(name: str, parts: set[str]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts)


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    import sys

    modules = [module for module in FILES if within(module, {part})]
    assert modules, f"{part} is gone: mend the table"
    for module in modules:
        for name in imports(module):
            root = name.split(".")[0]
            allowed = root in sys.stdlib_module_names or within(name, ALLOWED[part] | VALUES) or name == "sensorium"
            assert allowed, f"{module} imports {name}"


@pytest.mark.parametrize("entry", GATEWAY)
def test_the_gateway_reaches_nothing_heavy(entry: str) -> None:
    seen: set[str] = set()
    pending = [(entry, entry)]
    while pending:
        module, way = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imports(module):
            assert name.split(".")[0] not in HEAVY, f"{way} -> {name}"
            if name in FILES:
                pending.append((name, f"{way} -> {name}"))


def test_nothing_imports_what_is_only_for_tests() -> None:
    """Nor a package that belongs to one file: it is imported within that file's functions."""
    owners = {"transformers": "sensorium.hf.library", "ray": "sensorium.cluster.ray"}
    for module in FILES:
        for node in ast.walk(ast.parse(FILES[module].read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if owners.get(name.split(".")[0]) == module:
                    continue
                forbidden = {"transformers", "pickle", "marshal", "shelve", "ray", "vllm", "torchvision", "torchaudio"}
                assert name.split(".")[0] not in forbidden, f"{module} imports {name}"


def test_packages_that_need_not_be_there_are_imported_within_functions() -> None:
    for module in ("sensorium.hf.library", "sensorium.cluster.ray"):
        assert not {name.split(".")[0] for name in imports(module)} & {"transformers", "ray"}


def test_nothing_evaluates_text() -> None:
    for module in FILES:
        for node in ast.walk(ast.parse(FILES[module].read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, f"{module} calls {node.func.id}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"{module}: torch.load without weights_only"


def test_files_can_be_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(SOURCE)): n for path in FILES.values() if (n := len(path.read_text().splitlines())) > 340
    }
    assert not long


def test_the_map_names_every_file() -> None:
    text = (SOURCE.parent / "ARCHITECTURE.md").read_text()
    for path in FILES.values():
        name = path.relative_to(SOURCE / "sensorium").as_posix()
        if path.read_text():
            assert f"`{name}`" in text, f"{name} is missing in ARCHITECTURE.md"
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    for name in (row for row in rows if row.endswith(".py") and "," not in row):
        assert (SOURCE / "sensorium" / name).exists(), f"{name} is gone"
