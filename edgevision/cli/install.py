"""`edgevision install`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import new_app

app = new_app()


@app.command()
def install(
    prefix: Annotated[
        Path, typer.Option(metavar="DIR", help="Write below another root, for a package; runs nothing.")
    ] = Path("/"),
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="The first config; by default the sample.")
    ] = None,
    program: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The edgevision that the units start; by default this one.")
    ] = None,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it as well.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Make edgevision a service of this machine: units, user, device rules, a first config; then start it.

    Needs root. A config that is there is never touched, and a second run changes nothing. What is written is recorded in
    /etc/edgevision/installed.json.

    \b
    Examples:
      sudo /opt/edgevision/bin/edgevision install --dry-run
      sudo /opt/edgevision/bin/edgevision install --config line3.yaml
    """
    from edgevision.installation.jobs import install as job
    from edgevision.installation.steps import Hand

    if config is not None:
        from edgevision.config import load

        load(config)  # a config with faults would be a service that restarts for ever
    job(Hand(root=prefix, dry_run=dry_run, say=typer.echo), program=program, config=config, start=start)
