"""Changed copies of the pictures, and the sheet on which to look at them first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli.dataset._options import FormatName, Link, Seed, SkipFaulty, Source, Split, To
from edgevision.cli.dataset._reading import read_usable, warn


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
    data = read_usable(source, format_name, split, skip_faulty=skip_faulty)
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
    warn((*data.notes, *(f"{lost} cannot be held by {to or data.format}" for lost in written.lost)))
    if written.alone:
        warn((f"{written.alone} copies were to be mixed and had no other picture to be mixed with",))
    typer.echo(
        f"{out}: {written.originals} pictures and {written.copies} changed copies written; "
        f"{written.dropped_boxes} boxes dropped because too little of the object is left"
    )
