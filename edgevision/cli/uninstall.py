"""`edgevision uninstall`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import new_app

app = new_app()


@app.command()
def uninstall(
    prefix: Annotated[Path, typer.Option(metavar="DIR", help="The root that was installed to.")] = Path("/"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Stop the service and remove exactly what `install` wrote; state, models and a changed config stay.

    \b
    Example:
      sudo /opt/edgevision/bin/edgevision uninstall --dry-run
    """
    from edgevision.installation.jobs import uninstall as job
    from edgevision.installation.steps import Hand

    job(Hand(root=prefix, dry_run=dry_run, say=typer.echo))
