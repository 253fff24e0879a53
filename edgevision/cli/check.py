"""`edgevision check`: every fault of a config at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import new_app

app = new_app()


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The config, a YAML file.")],
) -> None:
    """Check a config and show every fault at once, with file, line, what was found and the fix.

    Opens no camera, broker or model weights. Exit status 0: it is good; 2: it has faults.

    \b
    Example:
      edgevision check deploy/edgevision.yaml
    """
    from edgevision.config import load

    config = load(file)
    typer.echo(
        f"{file}: good: device {config.device}, {len(config.cameras)} camera(s), {len(config.models)} model(s), "
        + (f"broker {config.mqtt.where}" if config.mqtt else "no broker")
    )
