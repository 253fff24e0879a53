"""The same pictures and labels written anew: in another format, or several datasets as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli.dataset._options import FormatName, Link, Out, SkipFaulty, Source, Split, To
from edgevision.cli.dataset._reading import read_usable, warn


def convert(
    source: Source,
    out: Out,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="coco, yolo, voc, folders, csv or masks.")],
    format_name: FormatName = None,
    split: Split = None,
    link: Link = False,
    skip_faulty: SkipFaulty = False,
) -> None:
    """Write a dataset in another format. What that format cannot hold is told with its number.

    \b
    Examples:
      edgevision dataset convert instances.json --to yolo --out line3-yolo/
      edgevision dataset convert labelled/ --to csv --out line3-csv/
    """
    from edgevision.host.dataset import write

    data = read_usable(source, format_name, split, skip_faulty=skip_faulty)
    written = write(data, out, to, link=link, made={"by": "edgevision dataset convert", "source": str(data.source)})
    warn((*data.notes, *(f"{lost} cannot be held by {to}" for lost in written.lost)))
    typer.echo(f"{out}: {len(data)} pictures written as {to}")


def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="DATASET...", help="Two or more; the first keeps its names.")
    ],
    out: Out,
    to: To = None,
    link: Link = False,
    skip_faulty: SkipFaulty = False,
) -> None:
    """Join datasets: labels by name, pictures of one name told apart, copies left out.

    \b
    Example:
      edgevision dataset merge line3/ line4/ --out both/
    """
    from edgevision.host.dataset import merge as merging
    from edgevision.host.dataset import write

    datasets = [read_usable(source, None, None, skip_faulty=skip_faulty) for source in sources]
    merged = merging.merge(datasets)
    target = to or datasets[0].format
    made = {"by": "edgevision dataset merge", "sources": [str(data.source) for data in datasets]}
    written = write(merged.dataset, out, target, link=link, made=made)
    warn((*(note for data in datasets for note in data.notes), *merged.remarks))
    warn(f"{lost} cannot be held by {target}" for lost in written.lost)
    typer.echo(
        f"{out}: {len(merged.dataset)} pictures with {len(merged.dataset.labels)} labels written as {target}; "
        f"{merged.renamed} renamed, {merged.copies} copies left out"
    )
