"""`edgevision evaluate`: how good a model is on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console, new_app
from edgevision.cli._tiling import Tile, TileLevels, TileMerge, TileOverlap, tiling_of

if TYPE_CHECKING:
    from edgevision.assembly import ModelSettings
    from edgevision.host.evaluate.job import Outcome
    from edgevision.pipeline import Model

app = new_app()


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name or folder, or an .onnx or .tflite file.")
    ],
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Labelled pictures: COCO JSON, YOLO, VOC, or a folder per class.")
    ],
    against: Annotated[
        str | None, typer.Option(metavar="MODEL2", help="A second model, beside the first on the same pictures.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Look at so many pictures, a seeded stratified choice.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    format_name: Annotated[
        str | None, typer.Option("--format", help="The dataset's format; found out by default.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The part to look at, where the dataset has several.")] = None,
    backend: Annotated[str | None, typer.Option(help="onnxrt, litert or openvino, for MODEL.")] = None,
    against_backend: Annotated[str | None, typer.Option(help="onnxrt, litert or openvino, for MODEL2.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of one inference.")] = 2,
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Drop what is below this: detections (0.01 by default, AP needs the unsure), pixels (the model's own).",
        ),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="IoU of the model's NMS; the model's own by default, 0.65 is COCO's custom."),
    ] = None,
    class_agnostic: Annotated[
        bool | None,
        typer.Option("--class-agnostic/--class-aware", help="Whether boxes of different classes suppress each other."),
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Detections a picture at most; COCO's 100 by default.")
    ] = None,
    like: Annotated[str | None, typer.Option(help="For a bare model file: a model that is built alike.")] = None,
    tile: Tile = None,
    tile_overlap: TileOverlap = None,
    tile_levels: TileLevels = None,
    tile_merge: TileMerge = None,
    corrupt: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Also on spoiled pictures: blur,noise,dark,bright,jpeg,fog,occlusion, or all."
        ),
    ] = None,
    severity: Annotated[str, typer.Option(metavar="LIST", help="How spoiled: 3, 1,3,5 or 1-5.")] = "1-5",
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")] = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Write plots into this folder.")] = None,
    index_offset: Annotated[
        int, typer.Option(help="With --by-index: added to the dataset's numbers; 1 for models with a background class.")
    ] = 0,
    by_index: Annotated[bool, typer.Option("--by-index", help="Match classes by number instead of name.")] = False,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Leave out what is faulty and go on; it is counted.")
    ] = False,
) -> None:
    """Measure a model's accuracy on your own pictures, through the very code that the daemon runs.

    \b
    Examples:
      edgevision evaluate yolox-nano instances.json --iou 0.65
      edgevision evaluate efficientnet-lite0 pictures/ --limit 200 --plots plots/
      edgevision evaluate yolox-nano line3/ --corrupt blur,dark --severity 1,3,5 --json result.json
      edgevision evaluate mine.onnx line3/ --like yolox-nano --against mine_int8.tflite
      edgevision evaluate defects panels/ --tile 640x640
    """
    from dataclasses import replace

    from edgevision import logs
    from edgevision.host.dataset.formats import read
    from edgevision.host.evaluate import run
    from edgevision.host.evaluate.files import check_writable, write_json
    from edgevision.host.evaluate.job import Choices, evaluate_models
    from edgevision.host.evaluate.robustness import parse_corruptions, parse_severities

    logs.configure(level="warning")
    choices = Choices(
        limit=limit,
        seed=seed,
        by_index=by_index or index_offset != 0,
        index_offset=index_offset,
        skip_faulty=skip_faulty,
        corruptions=parse_corruptions(corrupt) if corrupt is not None else (),
        severities=parse_severities(severity),
    )
    if as_json is not None:
        check_writable(as_json)
    if plots is not None:
        from edgevision.host.evaluate.plots import check_drawable

        check_drawable(plots)
    data = read(dataset, format_name, split=split)
    settings = run.settings_for(
        data.task,
        backend=backend,
        threads=threads,
        confidence=confidence,
        iou=iou,
        class_agnostic=class_agnostic,
        max_detections=max_detections,
        tiling=tiling_of(tile, tile_overlap, tile_levels, tile_merge),
    )
    models = [_load(model, settings, like, only=against is None)]
    if against is not None:
        models.append(_load(against, replace(settings, backend=against_backend), like, only=False))
    outcome = evaluate_models(models, data, choices, settings=settings, warn=_warn)
    names = _names(models)
    if as_json is not None:  # before anything is printed: a terminal that fails must not cost the work
        write_json(as_json, outcome.document())
    _print(outcome, names)
    if plots is not None:
        from edgevision.host.evaluate.plots import draw

        for name, part in zip(names, outcome.models, strict=True):
            for path in draw(plots, name, part.evaluation, part.slices):
                typer.echo(f"drawn: {path}", err=True)
    for one in models:
        one.close()


def _print(outcome: Outcome, names: list[str]) -> None:
    from edgevision.host.evaluate import tables
    from edgevision.host.evaluate.remarks import remarks

    out = console()
    out.print(tables.header(outcome.facts))
    for part in outcome.models:
        out.print(tables.evaluation(part.model, part.evaluation, remarks(part.evaluation)))
        if part.slices:
            out.print(tables.robustness(part.slices, part.evaluation))
    if outcome.comparison is not None:
        first, second = (part.evaluation for part in outcome.models)
        out.print(tables.comparison(first, second, outcome.comparison, (names[0], names[1])))


def _load(name: str, settings: ModelSettings, like: str | None, *, only: bool) -> Model:
    """Of two models, `--like` describes those that are bare files."""
    from edgevision.assembly import Prober, load_model
    from edgevision.environment import default_state_dir
    from edgevision.model_store import BACKEND_BY_SUFFIX

    bare = Path(name).suffix.lower() in BACKEND_BY_SUFFIX
    prober = Prober(state_dir=default_state_dir())
    return load_model(name, like=like if bare or only else None, settings=settings, prober=prober)


def _names(models: list[Model]) -> list[str]:
    """A name for each that tells them apart."""
    names = [one.name for one in models]
    if len(set(names)) < len(names):
        names = [f"{one.name}-{one.backend_name}" for one in models]
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names, 1)]
    return names


def _warn(text: str) -> None:
    typer.echo(f"edgevision: warning: {text}", err=True)
