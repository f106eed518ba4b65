"""What the commands share: --json, -v, -q; talk goes to stderr, results to stdout."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from avfeat import config

if TYPE_CHECKING:
    from rich.console import Console

_UNLIMITED = 10_000  # columns

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: str, words: str) -> Callable[[F], F]:
    """Add --json to a command, as ``AVFEAT_<COMMAND>_JSON`` too."""
    variable = f"{config.ENVIRONMENT}_{command.upper()}_JSON"
    return click.option("--json", "as_json", is_flag=True, envvar=variable, help=words)


def _remember(ctx: click.Context, _: click.Parameter, value: int) -> int:
    ctx.meta["avfeat.verbose"] = value
    ctx.meta["avfeat.command"] = ctx.command.name
    return value


verbose_option = click.option(
    "-v", "--verbose", count=True, callback=_remember, help="Say more; tracebacks on errors."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only errors and results.")


def talk_console(*, quiet: bool = False) -> Console:
    """Console for talk: stderr."""
    from rich.console import Console

    return Console(
        stderr=True,
        quiet=quiet,
        highlight=False,
        color_system=_colours(),
        soft_wrap=not sys.stderr.isatty(),  # one message, one line of the log
    )


class _Trimmed:
    """A stream whose lines end without the blanks that fill up the last column of a table."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write; rich hands over whole lines."""
        return self._stream.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def results_console() -> Console:
    """Console for results: stdout; away from a terminal, lines are as long as they need be."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(
        file=None if terminal else cast(IO[str], _Trimmed(sys.stdout)),
        highlight=False,
        emoji=False,
        width=None if terminal or "COLUMNS" in os.environ else _UNLIMITED,
        color_system=_colours(),
    )


def _colours() -> Literal["auto"] | None:
    """No styles at all where NO_COLOR is set; rich alone would still print bold and dim."""
    return None if os.environ.get("NO_COLOR") else "auto"


def print_json(document: Any) -> None:
    """Print a document to stdout."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False))
