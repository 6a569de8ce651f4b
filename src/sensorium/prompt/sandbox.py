"""A jinja environment set up like transformers', in which no template can run or grow without end.

Templates come with checkpoints, so they are other people's code. Jinja's sandbox keeps them from reaching
Python; the ceilings here keep them from using up time and memory: every loop step and macro call is counted, and
strings are measured where they are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from sensorium.prompt import ceilings
from sensorium.prompt.ceilings import TemplateTooBig

MAX_STEPS = 1_000_000  # loop steps and macro calls of one rendering
MAX_SECONDS = 1.5  # of this thread's processor time for one rendering
_TICK, _CONCAT = "_sensorium_tick", "_sensorium_concat"

_budget: ContextVar[list[float]] = ContextVar("budget")


class TemplateRefusal(Exception):
    """The template itself refused the messages: `raise_exception(...)`."""


class Generation(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for training; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja's interface

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the body of the tag."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _SafeNamespace(Namespace):
    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a template cannot store the attribute {name!r}")


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates. Source of the set-up: transformers `_compile_jinja_template`."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        extensions: list[Any] = [Generation, jinja2.ext.loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=ceilings.printable)
        for name, function in list(self.filters.items()):
            self.filters[name] = ceilings.measured(name, function)
        self.filters["tojson"] = ceilings.tojson
        del self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _refuse,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "namespace": _SafeNamespace,
            "dict": dict,
            _TICK: _tick,
            _CONCAT: ceilings.concat,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        repeated: list[Any] = list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)))
        for node in repeated:
            node.body.insert(0, nodes.ExprStmt(_call(_TICK, [], node.lineno)).set_lineno(node.lineno))
        self._guard_concat(tree)
        return tree

    def _guard_concat(self, node: nodes.Node) -> None:
        for name, value in node.iter_fields():
            if isinstance(value, nodes.Concat):
                setattr(node, name, _call(_CONCAT, value.nodes, value.lineno))
            elif isinstance(value, list):
                value[:] = [_call(_CONCAT, v.nodes, v.lineno) if isinstance(v, nodes.Concat) else v for v in value]
        for child in node.iter_child_nodes():
            self._guard_concat(child)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` if its result cannot be huge."""
        ceilings.check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Give the template `"...".format`, unless the text asks for huge fields."""
        if isinstance(getattr(value, "__self__", None), str) and value.__name__ in ("format", "format_map"):
            ceilings.check_string(value.__name__, value.__self__, (), {})
        return super().wrap_str_format(value)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what the template calls; methods of strings only where the result cannot be huge."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            ceilings.check_string(__obj.__name__, owner, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


def start_rendering() -> None:
    """Give the rendering that follows in this thread a fresh count of steps and seconds."""
    _budget.set([MAX_STEPS, time.thread_time() + MAX_SECONDS])


def _tick() -> None:
    budget = _budget.get()
    budget[0] -= 1
    if budget[0] < 0 or (budget[0] % 256 == 0 and time.thread_time() > budget[1]):
        raise TemplateTooBig


def _call(name: str, args: list[nodes.Expr], line: int) -> nodes.Call:
    call = nodes.Call(nodes.Name(name, "load"), args, [], None, None)
    call.set_lineno(line)
    return call


def _refuse(message: object) -> None:
    raise TemplateRefusal(str(message)[:500])
