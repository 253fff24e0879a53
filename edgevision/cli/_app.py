"""How every subcommand's typer app is made, so that they all look alike."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def new_app(**settings: Any) -> typer.Typer:
    """A plain app: no completion options, no boxes around help, errors left to `__main__`."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def console() -> Console:
    """Standard output for tables: as wide as the terminal, and wide enough for a whole line where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)
