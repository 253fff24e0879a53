"""`edgevision health`: for a container's HEALTHCHECK and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import new_app

app = new_app()

MAX_AGE_S = 30.0
"""The watchman writes its file every second; one this old was written by nobody who still lives."""


@app.command()
def health(
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The daemon's runtime folder; by default $RUNTIME_DIRECTORY.")
    ] = None,
) -> None:
    """Say whether the daemon on this machine makes progress. Exit status 0: it does; 1: it does not, or does not run.

    \b
    Example:
      edgevision health --folder /run/edgevision          # of edgevision@line3: /run/edgevision-line3
    """
    import json

    from edgevision.clock import SYSTEM_CLOCK
    from edgevision.environment import kernel_boot_id, runtime_dir
    from edgevision.errors import UsageError

    where = folder or runtime_dir()
    if where is None:
        raise UsageError("needs --folder, or RUNTIME_DIRECTORY in the environment, such as /run/edgevision")
    file = where / "health.json"
    try:
        found = json.loads(file.read_bytes())
        healthy, reason = bool(found["healthy"]), str(found["reason"])
        age_s = (SYSTEM_CLOCK.monotonic_ns() - int(found["monotonic_ns"])) / 1e9
        boot = found["boot"]
    except (OSError, ValueError, KeyError, TypeError) as failure:
        typer.echo(f"not healthy: {file}: cannot be read: {getattr(failure, 'strerror', None) or repr(failure)}")
        raise typer.Exit(1) from None
    if boot != kernel_boot_id() or age_s > MAX_AGE_S:
        healthy, reason = False, f"{file} is old: the daemon does not run"
    typer.echo(f"{'healthy' if healthy else 'not healthy'}: {reason}")
    raise typer.Exit(0 if healthy else 1)
