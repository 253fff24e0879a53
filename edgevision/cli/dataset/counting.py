"""What a dataset holds, and what is wrong with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console
from edgevision.cli.dataset._options import FormatName, Source, Split

if TYPE_CHECKING:
    from edgevision.host.dataset.stats import Statistics

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def stats(
    source: Source,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 6 where there is any fault.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not decode the pictures: damage inside a file is not found.")
    ] = False,
    format_name: FormatName = None,
    split: Split = None,
) -> None:
    """Count labels, sizes and shapes, and list everything that is wrong.

    \b
    Examples:
      edgevision dataset stats line3/
      edgevision dataset stats annotations/instances.json --strict --json
    """
    from edgevision.errors import ImageError
    from edgevision.host.dataset import read
    from edgevision.host.dataset.stats import statistics
    from edgevision.host.progress import progress

    data = read(source, format_name, split=split)
    with progress("opening pictures", len(data)) as advance:
        found = statistics(data, decode=not quick, advance=advance)
    if as_json:
        typer.echo(json.dumps(found.document(), indent=2, ensure_ascii=False))
    else:
        _print_statistics(found)
    if strict and found.faults:
        raise ImageError(f"{found.source}: {len(found.faults)} faults")


def _print_statistics(found: Statistics) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_row("dataset", escape(found.source))
    facts.add_row("format", f"{found.format}, for {found.task}" + (f", role {found.role}" if found.role else ""))
    facts.add_row("digest", found.digest)
    facts.add_row("pictures", f"{found.pictures}, {found.unlabelled_pictures} of them without a label")
    sizes = ", ".join(f"{width}x{height} ({count})" for width, height, count in found.picture_sizes[:5])
    more = len(found.picture_sizes) - 5
    facts.add_row("picture sizes", sizes + (f" and {more} more" if more > 0 else ""))
    if found.task == "detection":
        facts.add_row("boxes", f"{found.boxes}, {found.crowd_boxes} crowd, {found.difficult_boxes} difficult")
    spreads = (
        ("boxes a picture", found.boxes_per_picture),
        ("width / height", found.box_aspect),
        ("side / picture's side", found.box_side_share),
    )
    for name, spread in spreads:
        if spread is not None:
            facts.add_row(name, f"{spread.least:.3g} to {spread.greatest:.3g}, median {spread.median:.3g}")
    if found.imbalance is not None:
        facts.add_row("imbalance", f"{found.imbalance:.1f} to 1")
    out.print(facts)
    if found.task != "segmentation":
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("label", overflow="fold")
        boxes = ("boxes", "small", "medium", "large") if found.task == "detection" else ()
        for title in ("pictures", *boxes):
            table.add_column(title, justify="right")
        for count in sorted(found.labels, key=lambda label: -label.pictures):
            numbers = (count.boxes, count.small, count.medium, count.large) if boxes else ()
            table.add_row(escape(count.label), *(str(number) for number in (count.pictures, *numbers)))
        out.print()
        out.print(table)
    for line in (*found.remarks, *found.notes):
        out.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    for fault in found.faults:
        out.print(f"fault: {fault}", markup=False, highlight=False, soft_wrap=True)
    typer.echo(f"{len(found.faults)} faults")
