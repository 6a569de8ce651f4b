"""What is wrong with a command line, as one sentence that names what is right."""

from __future__ import annotations

import difflib
import os

import click

_NUMBERS = ("a valid integer", "a whole number"), ("a valid float", "a number")  # click calls a limit a range


def explained(error: click.ClickException) -> str:
    """Return click's sentence, with the nearest flag, and the variable a wrong value came from."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        return f"There is no option {error.option_name}.{_nearest(error.option_name, error.ctx)}"
    said = error.format_message()
    if isinstance(error, click.BadParameter):
        if (variable := _variable(error)) is not None:
            said = f"{variable}: {error.message}"
        for theirs, ours in _NUMBERS:
            said = said.replace(f"{theirs} range.", f"{ours}.").replace(f"{theirs}.", f"{ours}.")
    return said if said.endswith((".", "?", "!")) else f"{said}."


def _nearest(flag: str, context: click.Context) -> str:
    shown = [
        name
        for option in context.command.params
        if isinstance(option, click.Option) and not option.hidden
        for name in (*option.opts, *option.secondary_opts)
    ]
    near = difflib.get_close_matches(flag, shown, 1, 0.5)
    return f" Did you mean {near[0]}?" if near else ""


def _variable(error: click.BadParameter) -> str | None:
    """Return the environment variable that holds the wrong value; None where the command line does."""
    param, context = error.param, error.ctx
    if param is None or context is None or not isinstance(param, click.Option) or param.name is None:
        return None
    if context.get_parameter_source(param.name) is not click.core.ParameterSource.ENVIRONMENT:
        return None
    names = [param.envvar] if isinstance(param.envvar, str) else param.envvar or ()
    return next((name for name in names if os.environ.get(name)), None)
