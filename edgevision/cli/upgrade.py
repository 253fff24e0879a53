"""`edgevision upgrade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import new_app

app = new_app()


@app.command()
def upgrade(
    prefix: Annotated[Path, typer.Option(metavar="DIR", help="The root that was installed to.")] = Path("/"),
    program: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The edgevision that the units start; by default this one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Renew the service's files after another version was installed with pip, and restart it.

    Files that somebody has changed, and the config, stay as they are.

    \b
    Example:
      sudo /opt/edgevision/bin/edgevision upgrade
    """
    from edgevision.installation.jobs import upgrade as job
    from edgevision.installation.steps import Hand

    job(Hand(root=prefix, dry_run=dry_run, say=typer.echo), program=program)
