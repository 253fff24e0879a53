"""`edgevision doctor`: what is right and wrong with this machine and a config, each fault with its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import console, new_app

app = new_app()

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", metavar="FILE", help="A config; also one with faults.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at runtimes, providers, cameras, OpenCV, broker, clock, disk, heat, folders and models; name each fault's fix.

    Every check runs in a process of its own and within a limit of its own, so that a driver that hangs costs one line. The
    broker is really connected to, under another client id than the daemon's. Nothing is published and nothing changed.
    Exit status 0: no fault; 1: at least one.

    \b
    Examples:
      edgevision doctor
      edgevision doctor -c /etc/edgevision/edgevision.yaml
    """
    import json

    from edgevision.doctor import examine
    from edgevision.doctor.findings import STATES

    findings = examine(config)
    worst = max(findings, key=lambda finding: STATES.index(finding.state)).state if findings else "ok"
    if as_json:
        counts = {state: sum(finding.state == state for finding in findings) for state in STATES}
        document = {"worst": worst, "counts": counts, "findings": [finding.document() for finding in findings]}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("", "part", "what", "found"):
            table.add_column(title, overflow="fold")
        for finding in findings:
            words = escape(finding.found) + (f"\n  -> {escape(finding.fix)}" if finding.fix else "")
            colour = _COLOURS[finding.state]
            table.add_row(f"[{colour}]{finding.state}[/{colour}]", finding.part, escape(finding.subject), words)
        console().print(table)
        counts_text = ", ".join(f"{sum(one.state == state for one in findings)} {state}" for state in STATES)
        typer.echo(counts_text)
    raise typer.Exit(1 if worst == "fault" else 0)
