"""ms-swift's client functions out of the installed package, unchanged, without the rest of it.

`import swift.llm` imports a trainer: torch, transformers 4, datasets, peft, trl and more. Its client is two files,
which are loaded here as they lie in site-packages; of the two modules that they take names from, `History` is a type,
and `history_to_messages` is one function, which is cut out of its file.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import typing
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

_PARENT = "swift.llm.utils"


def _module(name: str, path: Path | None = None) -> ModuleType:
    made = ModuleType(name)
    made.__path__ = [str(path)] if path else []
    sys.modules[name] = made
    return made


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def _cut_out(path: Path, names: tuple[str, ...], into: ModuleType) -> None:
    """Run the named functions and assignments of a file, and nothing else of it."""
    tree = ast.parse(path.read_text())
    wanted = [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name in names)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names)
    ]
    assert len(wanted) == len(names), f"{path} has changed"
    vars(into).update(vars(typing))
    vars(into)["History"] = list
    exec(compile(ast.Module(wanted, []), str(path), "exec"), vars(into))


def load_client() -> ModuleType:
    """Return swift.llm.utils.client_utils of the installed ms-swift 2.6.1."""
    assert distribution("ms-swift").version == "2.6.1"
    folder = Path(str(distribution("ms-swift").locate_file("swift"))) / "llm" / "utils"
    for name in ("swift", "swift.llm", _PARENT):
        _module(name, folder)
    vars(_module(f"{_PARENT}.template"))["History"] = list
    _cut_out(folder / "utils.py", ("Messages", "history_to_messages"), _module(f"{_PARENT}.utils"))
    _load(f"{_PARENT}.protocol", folder / "protocol.py")
    return _load(f"{_PARENT}.client_utils", folder / "client_utils.py")
