"""`edgevision quantize`: a float model in 8 bits, with the proof of what that cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from edgevision.host.quantize.job import Outcome

app = new_app()


@app.command()
def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A float model's name or folder, or an .onnx or .tflite file.")
    ],
    evaluate: Annotated[
        Path,
        typer.Option(
            metavar="DATASET", help="Labelled pictures to prove it on: COCO JSON, YOLO, VOC, a folder per class."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder that the new model's folder is made in.")
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Pictures to measure ranges on, such as the camera will see; no labels needed."
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="x86, x86-vnni, openvino, arm64, jetson, litert, litert-edgetpu; auto looks at this machine's CPU."
        ),
    ] = "auto",
    max_drop: Annotated[
        float, typer.Option(min=0, max=100, help="The budget: points of AP, top-1 or mIoU that may be lost.")
    ] = 1.0,
    like: Annotated[str | None, typer.Option(help="For a bare model file: a model that is built alike.")] = None,
    name: Annotated[str | None, typer.Option(help="The new model's name; MODEL-int8-TARGET by default.")] = None,
    calibration_pictures: Annotated[
        int, typer.Option(min=1, max=100_000, help="Pictures to draw from --calibration.")
    ] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    prove: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Try no recipe: hold this finished 8-bit file against the budget."),
    ] = None,
    allow_drop: Annotated[
        bool, typer.Option("--allow-drop", help="Package the best one even if it is over the budget; it is recorded.")
    ] = False,
    allow_float: Annotated[
        bool,
        typer.Option(
            "--allow-float", help="Package a model of which less than 90 % of the convolutions run as integers."
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate on so many pictures, a seeded stratified choice.")
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="IoU of the model's NMS when it is evaluated; its own by default."),
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="The dataset's format; found out by default.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The part to look at, where the dataset has several.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of one inference, when it is timed.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="To time each candidate beside float.")] = 4.0,
    index_offset: Annotated[
        int, typer.Option(help="With --by-index: added to the dataset's numbers; 1 for models with a background class.")
    ] = 0,
    by_index: Annotated[bool, typer.Option("--by-index", help="Match classes by number instead of name.")] = False,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Leave out what is faulty and go on; it is counted.")
    ] = False,
) -> None:
    """Make a float model 8-bit for a device, and prove what that cost.

    Recipes that fit the device are tried one by one; each is loaded as the daemon would load it, evaluated on your pictures,
    counted (how many convolutions really run as integers) and timed beside the float model. What loses more than the budget
    is not packaged. Beside the model's folder stands a report with every candidate. Interrupted, it goes on where it was.

    Exit status 4 where no candidate holds what is asked for.

    \b
    Examples:
      edgevision quantize yolox-nano --calibration pictures/ --evaluate val/instances.json --target openvino -o models/
      edgevision quantize parts.onnx --like yolox-nano --calibration line3/ --evaluate labelled/ --max-drop 0.5 -o models/
      edgevision quantize parts.tflite --like efficientnet-lite0 --target litert --calibration p/ --evaluate q/ -o models/
      edgevision quantize parts.onnx --like yolox-nano --prove bought-int8.onnx --evaluate labelled/ -o models/
    """
    from edgevision import logs
    from edgevision.errors import UsageError
    from edgevision.host.dataset.formats import read
    from edgevision.host.quantize.job import Request, refusal
    from edgevision.host.quantize.job import quantize as quantize_model
    from edgevision.host.quantize.targets import check_target_name

    logs.configure(level="warning")
    check_target_name(target)
    if calibration is None and prove is None:
        raise UsageError("--calibration DIR is missing: pictures such as the camera will see, to measure ranges on")
    request = Request(
        model=model,
        like=like,
        calibration=calibration,
        target=target,
        max_drop=max_drop,
        out=out,
        name=name,
        calibration_pictures=calibration_pictures,
        seed=seed,
        prove=prove,
        allow_drop=allow_drop,
        allow_float=allow_float,
        limit=limit,
        iou=iou,
        threads=threads,
        latency_s=seconds,
        by_index=by_index or index_offset != 0,
        index_offset=index_offset,
        skip_faulty=skip_faulty,
    )
    data = read(evaluate, format_name, split=split)
    outcome = quantize_model(request, data, say=_say, warn=_warn)
    _print(outcome)
    if outcome.folder is None:
        raise refusal(outcome)


def _print(outcome: Outcome) -> None:
    from rich.markup import escape
    from rich.table import Table

    from edgevision.host.quantize.report import frontier_cells, verdict_line

    header, rows = frontier_cells(outcome.document)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(header):
        table.add_column(title, justify="left" if place in {0, len(header) - 1} else "right", overflow="fold")
    for cells in rows:
        table.add_row(*(escape(cell) for cell in cells), style="bold" if cells[-1] == "packaged" else "")
    out = console()
    out.print(table)
    out.print(escape(verdict_line(outcome.document)), style="bold")
    for remark in outcome.document["verdict"]["remarks"]:
        out.print(escape(f"- {remark}"))
    if outcome.folder is not None:
        out.print(escape(f"model:  {outcome.folder}"))
    out.print(escape(f"report: {outcome.report / 'report.md'}"))


def _say(text: str) -> None:
    typer.echo(f"edgevision: {text}", err=True)


def _warn(text: str) -> None:
    typer.echo(f"edgevision: warning: {text}", err=True)
