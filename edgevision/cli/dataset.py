"""`edgevision dataset`: look at labelled pictures, split, convert, merge and augment them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgevision.host.dataset.base import Dataset
    from edgevision.host.dataset.split import Plan
    from edgevision.host.dataset.stats import Statistics

app = new_app(no_args_is_help=True)

Source = Annotated[
    Path, typer.Argument(metavar="DATASET", help="A folder, a COCO JSON, a YOLO data.yaml or a labels.csv.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The new folder; must not exist or be empty.")]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="coco, yolo, voc, folders, csv or masks; by default what is there is looked at."),
]
Split = Annotated[str | None, typer.Option(help="train, val or test, where the dataset has several parts.")]
To = Annotated[
    str | None, typer.Option("--to", metavar="FORMAT", help="Format of what is written; by default the same.")
]
Link = Annotated[
    bool,
    typer.Option(
        "--link", help="Hard-link the pictures instead of copying: no space, but an edit in place shows in both."
    ),
]
SkipFaulty = Annotated[
    bool, typer.Option("--skip-faulty", help="Leave out what is faulty and go on; it is told and counted.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def dataset() -> None:
    """Look at labelled pictures; split, convert, merge and augment them.

    Formats: coco (JSON), yolo (text labels), voc (XML), folders (one for each class), csv (labels.csv), masks.
    A folder may hold a dataset.yaml; `role: test` in it marks a held-out test set, whose uses are counted.

    \b
    Example:
      edgevision dataset stats line3/
    """


@app.command()
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


@app.command()
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
    data = _read(source, format_name, part, skip_faulty=skip_faulty)
    with progress("looking for near-duplicates", len(data)) as advance:
        bits = near_duplicates if near_duplicates >= 0 else None
        plan = plan_split(data, seed=seed, ratios=shares, bits=bits, advance=advance)
    _print_plan(plan, data)
    if out is not None and not dry_run:
        write_split(plan, data, out, to or data.format, link=link)
        typer.echo(f"{out}: written: {', '.join(plan.parts)}")


@app.command()
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

    data = _read(source, format_name, split, skip_faulty=skip_faulty)
    written = write(data, out, to, link=link, made={"by": "edgevision dataset convert", "source": str(data.source)})
    _warn((*data.notes, *(f"{lost} cannot be held by {to}" for lost in written.lost)))
    typer.echo(f"{out}: {len(data)} pictures written as {to}")


@app.command()
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

    datasets = [_read(source, None, None, skip_faulty=skip_faulty) for source in sources]
    merged = merging.merge(datasets)
    target = to or datasets[0].format
    made = {"by": "edgevision dataset merge", "sources": [str(data.source) for data in datasets]}
    written = write(merged.dataset, out, target, link=link, made=made)
    _warn((*(note for data in datasets for note in data.notes), *merged.remarks))
    _warn(f"{lost} cannot be held by {target}" for lost in written.lost)
    typer.echo(
        f"{out}: {len(merged.dataset)} pictures with {len(merged.dataset.labels)} labels written as {target}; "
        f"{merged.renamed} renamed, {merged.copies} copies left out"
    )


@app.command()
def augment(
    source: Source,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The new folder; must not exist or be empty.")] = None,
    operations: Annotated[
        str,
        typer.Option(
            "--ops", help="Of rotate, flip, vflip, brightness, noise, erase, mixup, cutmix; each copy has some."
        ),
    ] = "rotate,flip,brightness,noise,erase",
    copies: Annotated[int, typer.Option(min=1, max=100, help="Changed copies of each picture.")] = 1,
    seed: Seed = 0,
    originals: Annotated[bool, typer.Option(help="Write the pictures themselves too.")] = True,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write a sheet of samples with their boxes; works without --out."),
    ] = None,
    to: To = None,
    format_name: FormatName = None,
    split: Split = None,
    link: Link = False,
    skip_faulty: SkipFaulty = False,
) -> None:
    """Make changed copies of the pictures, with boxes kept on their objects. Look at --preview before you train.

    \b
    Examples:
      edgevision dataset augment line3/ --preview sheet.png
      edgevision dataset augment line3-split/train --out more/ --copies 3 --ops rotate,brightness,cutmix
    """
    from edgevision.errors import UsageError
    from edgevision.host.dataset.augment import Augmenter
    from edgevision.host.dataset.augmented import check, contact_sheet, save_sheet, write_augmented
    from edgevision.host.progress import progress

    if out is None and preview is None:
        raise UsageError("give --out DIR, or --preview FILE.png to look at samples only")
    if preview is not None and preview.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise UsageError(f"{preview}: must end in .png or .jpg")
    names = [name.strip() for name in operations.split(",") if name.strip()]
    augmenter = Augmenter(names, seed=seed)
    data = _read(source, format_name, split, skip_faulty=skip_faulty)
    check(data, names)
    if preview is not None:
        save_sheet(contact_sheet(data, Augmenter(names, seed=seed), seed=seed), preview)
        typer.echo(f"{preview}: written; look whether the boxes are on their objects")
    if out is None:
        return
    made = {
        "by": "edgevision dataset augment",
        "source": str(data.source),
        "source_digest": data.digest(),
        "operations": names,
        "copies": copies,
        "seed": seed,
    }
    with progress("augmenting", len(data)) as advance:
        written = write_augmented(
            data,
            out,
            to or data.format,
            augmenter,
            copies=copies,
            originals=originals,
            link=link,
            made=made,
            advance=advance,
        )
    _warn((*data.notes, *(f"{lost} cannot be held by {to or data.format}" for lost in written.lost)))
    if written.alone:
        _warn((f"{written.alone} copies were to be mixed and had no other picture to be mixed with",))
    typer.echo(
        f"{out}: {written.originals} pictures and {written.copies} changed copies written; "
        f"{written.dropped_boxes} boxes dropped because too little of the object is left"
    )


def _read(source: Path, format_name: str | None, split: str | None, *, skip_faulty: bool) -> Dataset:
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


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(f"edgevision: warning: {line}", err=True)


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
    _warn(plan.remarks)


def _pictures_with(data: Dataset) -> dict[int, int]:
    """In how many pictures each label occurs."""
    from collections import Counter

    counts: Counter[int] = Counter()
    for sample in data.samples:
        counts.update({box.label_id for box in sample.boxes})
        if sample.label_id is not None:
            counts[sample.label_id] += 1
    return counts


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
