"""The command line: one file a subcommand, imported only when that subcommand is asked for.

A subcommand's file holds a typer `app`; what it needs beyond typer it imports inside its function, so that `--help` is
quick and needs no camera, runtime, broker or SDK.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from edgevision.cli._app import new_app

COMMANDS = (
    "demo",
    "run",
    "consume",
    "check",
    "baseline",
    "doctor",
    "install",
    "upgrade",
    "uninstall",
    "health",
    "predict",
    "models",
    "inspect",
    "dataset",
    "quantize",
    "evaluate",
    "parity",
    "benchmark",
    "compare",
    "schema",
)
"""In the order in which a new user meets them."""


class _LazyGroup(TyperGroup):
    """Knows its subcommands by name and imports one when it is used."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  typer's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  typer's signature
        if cmd_name not in COMMANDS:
            return None
        command = get_command(importlib.import_module(f"edgevision.cli.{cmd_name}").app)
        command.name = cmd_name
        return command


app = new_app(cls=_LazyGroup, no_args_is_help=True)


def _show_version(value: bool) -> None:
    if value:
        from edgevision._version import __version__

        typer.echo(f"edgevision {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Camera frames in, INT8 model, detections out over MQTT.

    Try it: edgevision demo
    """
