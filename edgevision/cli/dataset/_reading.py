"""A dataset as the commands that write take it, and how they warn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgevision.host.dataset.base import Dataset


def read_usable(source: Path, format_name: str | None, split: str | None, *, skip_faulty: bool) -> Dataset:
    """A dataset without faults, or whose faults are told."""
    from edgevision.errors import UsageError
    from edgevision.host.dataset import read, refuse_faults

    data = read(source, format_name, split=split)
    refuse_faults(data, skip_faulty=skip_faulty)
    for fault in data.faults:
        typer.echo(f"edgevision: warning: {fault}", err=True)
    if data.faults:
        typer.echo(f"edgevision: warning: {source}: {len(data.faults)} faults; what they name is left out", err=True)
    if not data.samples:
        raise UsageError(f"{source}: holds no picture that can be used")
    return data


def warn(lines: Iterable[str]) -> None:
    """Say each line on standard error."""
    for line in lines:
        typer.echo(f"edgevision: warning: {line}", err=True)
