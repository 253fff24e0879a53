"""One dataset becomes three: for training, validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console
from edgevision.cli.dataset._options import FormatName, Link, Seed, SkipFaulty, Source, Split, To
from edgevision.cli.dataset._reading import read_usable, warn

if TYPE_CHECKING:
    from edgevision.host.dataset.base import Dataset
    from edgevision.host.dataset.split import Plan


def split(
    source: Source,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The new folder; must not exist or be empty.")] = None,
    ratios: Annotated[str, typer.Option(help="Shares of training, validation and test.")] = "70/15/15",
    seed: Seed = 0,
    near_duplicates: Annotated[
        int,
        typer.Option(min=-1, max=64, help="Bits of 64 in which near-duplicates may differ; -1 does not look for them."),
    ] = 10,
    to: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the parts and write nothing.")] = False,
    format_name: FormatName = None,
    part: Split = None,
    link: Link = False,
    skip_faulty: SkipFaulty = False,
) -> None:
    """Split into training, validation and test, stratified by label, with no near-duplicate across a border.

    Writes three folders, each a dataset of its own with a dataset.yaml; the test set is marked as held out.

    \b
    Examples:
      edgevision dataset split line3/ --dry-run
      edgevision dataset split line3/ --out line3-split/ --seed 7
      edgevision dataset split line3/ --out line3-split/ --ratios 80/20/0
    """
    from edgevision.errors import UsageError
    from edgevision.host.dataset.split import plan_split, write_split
    from edgevision.host.progress import progress

    if out is None and not dry_run:
        raise UsageError("give --out DIR, or --dry-run to write nothing")
    shares = _ratios(ratios)
    data = read_usable(source, format_name, part, skip_faulty=skip_faulty)
    with progress("looking for near-duplicates", len(data)) as advance:
        bits = near_duplicates if near_duplicates >= 0 else None
        plan = plan_split(data, seed=seed, ratios=shares, bits=bits, advance=advance)
    _print_plan(plan, data)
    if out is not None and not dry_run:
        write_split(plan, data, out, to or data.format, link=link)
        typer.echo(f"{out}: written: {', '.join(plan.parts)}")


def _ratios(text: str) -> tuple[float, float, float]:
    from edgevision.errors import UsageError

    try:
        train, validation, test = (float(part) for part in text.replace(",", "/").split("/"))
    except ValueError:
        raise UsageError(f"--ratios: {text!r} must be three numbers such as 70/15/15") from None
    if not all(0 <= share < 1e9 for share in (train, validation, test)):
        raise UsageError(f"--ratios: {text!r} must be numbers from 0")
    return train, validation, test


def _print_plan(plan: Plan, data: Dataset) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("label", overflow="fold")
    for role in plan.parts:
        table.add_column(role, justify="right")
    counts = {role: _pictures_with(part) for role, part in plan.parts.items()}
    table.add_row("(pictures)", *(str(len(part)) for part in plan.parts.values()))
    for index, label in enumerate(data.labels):
        table.add_row(escape(label), *(str(counts[role].get(index, 0)) for role in plan.parts))
    console().print(table)
    if plan.bits is None:
        typer.echo("near-duplicates were not looked for")
    else:
        typer.echo(
            f"near-duplicates: {plan.duplicates} pictures in {plan.duplicate_groups} groups, each kept in one part"
        )
    warn(plan.remarks)


def _pictures_with(data: Dataset) -> dict[int, int]:
    """In how many pictures each label occurs."""
    from collections import Counter

    counts: Counter[int] = Counter()
    for sample in data.samples:
        counts.update({box.label_id for box in sample.boxes})
        if sample.label_id is not None:
            counts[sample.label_id] += 1
    return counts
