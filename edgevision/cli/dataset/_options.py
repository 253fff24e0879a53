"""The arguments and options that several of the dataset commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
