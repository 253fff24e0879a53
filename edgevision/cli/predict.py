"""`edgevision predict`: a model on pictures, folders and videos, without a camera or a broker."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevision.cli._app import console, new_app
from edgevision.cli._tiling import Tile, TileLevels, TileMerge, TileOverlap, tiling_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgevision.errors import ImageError
    from edgevision.pipeline import Model
    from edgevision.types import Frame, Predictions, StageTimes

app = new_app()


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name or folder, or an .onnx or .tflite file.")
    ],
    inputs: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER|VIDEO...", help="What to look at.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line for each picture or frame.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write pictures with boxes or labels drawn into this folder.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="onnxrt, litert or openvino.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of one inference.")] = 2,
    confidence: Annotated[float | None, typer.Option(min=0, max=1, help="Drop predictions below this.")] = None,
    iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="Boxes of one class that overlap more are one object.")
    ] = None,
    class_agnostic: Annotated[
        bool | None,
        typer.Option("--class-agnostic/--class-aware", help="Whether boxes of different classes suppress each other."),
    ] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="At most so many objects in a picture.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.001, help="Look at this many frames per second of a video.")
    ] = None,
    like: Annotated[str | None, typer.Option(help="For a bare model file: a model that is built alike.")] = None,
    tile: Tile = None,
    tile_overlap: TileOverlap = None,
    tile_levels: TileLevels = None,
    tile_merge: TileMerge = None,
) -> None:
    """Run a model on pictures, folders of pictures, and videos.

    A picture that cannot be read is told, the others go on, and the exit status is 6.

    \b
    Examples:
      edgevision predict efficientnet-lite0 photo.jpg
      edgevision predict yolox-nano pictures/ --save drawn/
      edgevision predict yolox_nano.onnx line.mp4 --like yolox-nano --fps 2 --json
      edgevision predict defects panel-12mp.png --tile 640x640 --tile-overlap 0.3
    """
    from edgevision import assembly, logs
    from edgevision.environment import default_state_dir
    from edgevision.errors import ImageError, StateError, UsageError

    logs.configure(level="warning")
    missing = [str(path) for path in inputs if not path.exists()]
    if missing:
        raise UsageError(f"{missing[0]}: no such file or folder")
    empty = [path for path in inputs if _is_empty(path)]
    if empty:
        raise UsageError(f"{empty[0]}: holds no picture")
    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise StateError(f"{save}: cannot be made: {failure.strerror or failure}") from failure
    loaded = assembly.load_model(
        model,
        backend=backend,
        threads=threads,
        confidence=confidence,
        iou=iou,
        class_agnostic=class_agnostic,
        max_detections=max_detections,
        tiling=tiling_of(tile, tile_overlap, tile_levels, tile_merge),
        like=like,
        prober=assembly.Prober(state_dir=default_state_dir()),
    )
    report = _JsonLines() if as_json else _Table()
    saved = None if save is None else _Folder(save)
    unreadable = sum(_look_at(loaded, path, fps, report, saved) for path in inputs)
    report.close()
    loaded.close()
    if unreadable:
        raise ImageError(f"{unreadable} of the inputs could not be looked at and were left out")


def _is_empty(path: Path) -> bool:
    from edgevision.capture.images import image_files
    from edgevision.errors import CaptureError

    try:
        return path.is_dir() and not image_files(path)
    except CaptureError:
        return False  # it cannot be listed: told when its turn comes, and the others go on


def _look_at(loaded: Model, path: Path, fps: float | None, report: _JsonLines | _Table, saved: _Folder | None) -> int:
    """One input, all of it; gives how many of its pictures could not be looked at."""
    from edgevision.errors import CaptureError, ImageError

    faults = 0
    try:
        for name, frame in _frames(path, fps):
            try:
                if isinstance(frame, ImageError):
                    raise frame
                predictions, times = loaded.run(frame)
            except ImageError as failure:
                faults += 1
                typer.echo(f"edgevision: warning: {failure}", err=True)
                continue
            report.add(name, frame, predictions, times)
            if saved is not None:
                saved.add(name, frame, predictions)
    except CaptureError as failure:
        faults += 1
        typer.echo(f"edgevision: warning: {failure}", err=True)
    return faults


def _frames(path: Path, fps: float | None) -> Iterator[tuple[str, Frame | ImageError]]:
    """Every picture of an input with a name for it; a picture that cannot be read comes as its error."""
    from edgevision import registry
    from edgevision.capture.base import SourceContext
    from edgevision.capture.images import IMAGE_SUFFIXES, image_files

    if path.is_dir():
        for file in image_files(path):
            yield str(file), _picture(file)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        yield str(path), _picture(path)
    else:
        plugin = registry.load("capture", "opencv")
        options = plugin.Options.model_validate({"url": str(path), "pace": "max"})
        source = plugin.create(options, SourceContext(camera=str(path), fps=fps))
        for frame in source.frames():
            yield f"{path}#{frame.sequence}", frame


def _picture(file: Path) -> Frame | ImageError:
    import time

    from edgevision.capture.images import read_image
    from edgevision.errors import ImageError
    from edgevision.types import Frame

    try:
        image = read_image(file)
    except ImageError as failure:
        return failure
    return Frame(
        image=image,
        camera=str(file),
        sequence=0,
        captured_at_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
    )


def _rows(predictions: Predictions) -> list[dict[str, Any]]:
    from edgevision.messages import prediction_items

    return [item.model_dump(exclude={"track_id"}) for item in prediction_items(predictions)]


class _JsonLines:
    """One JSON object a line."""

    def add(self, name: str, frame: Frame, predictions: Predictions, times: StageTimes) -> None:
        height, width = frame.image.shape[:2]
        line = {
            "file": name,
            "width": width,
            "height": height,
            "predictions": _rows(predictions),
            "latency_ms": {
                "preprocess": round(times.preprocess_ns / 1e6, 3),
                "inference": round(times.inference_ns / 1e6, 3),
                "decode": round(times.decode_ns / 1e6, 3),
            },
        }
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is held back."""


class _Table:
    """A table for people, printed when all is done."""

    def __init__(self) -> None:
        from rich.table import Table
        from rich.text import Text

        self._plain = Text  # names and labels are not rich's markup, whatever brackets they hold
        self._table = Table(box=None, pad_edge=False, header_style="bold")
        self._table.add_column("picture", overflow="fold")
        self._table.add_column("label")
        self._table.add_column("confidence", justify="right")  # of a segmentation, the share of the picture
        self._table.add_column("box (xyxy px)")
        self._table.add_column("ms", justify="right")

    def add(self, name: str, _frame: Frame, predictions: Predictions, times: StageTimes) -> None:
        spent_ms = f"{(times.preprocess_ns + times.inference_ns + times.decode_ns) / 1e6:.1f}"
        rows = _rows(predictions)
        if not rows:
            self._table.add_row(self._plain(name), "(nothing)", "", "", spent_ms)
        for index, row in enumerate(rows):
            box = " ".join(f"{edge:.0f}" for edge in row.get("xyxy", ()))
            first = index == 0
            sure = (
                f"{row['share']:.1%}" if "share" in row else f"{row['confidence']:.3f}" if "confidence" in row else ""
            )
            label = row["label"] if "label" in row else f"vector of {row['size']} numbers"
            self._table.add_row(
                self._plain(name if first else ""), self._plain(label), sure, box, spent_ms if first else ""
            )

    def close(self) -> None:
        console().print(self._table)


class _Folder:
    """Pictures drawn into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[str] = set()

    def add(self, name: str, frame: Frame, predictions: Predictions) -> None:
        from edgevision.drawing import draw, encode_jpeg
        from edgevision.errors import StateError

        stem = self._free(name)
        target = self._folder / f"{stem}.jpg"
        temporary = self._folder / f".{stem}.part"
        try:
            temporary.write_bytes(encode_jpeg(draw(frame.image, predictions), 92))
            temporary.replace(target)
        except OSError as failure:
            temporary.unlink(missing_ok=True)
            raise StateError(f"{target}: cannot be written: {failure.strerror or failure}") from failure

    def _free(self, name: str) -> str:
        """A name that no other picture of this call has: those of two cameras' folders may be called alike."""
        video = re.fullmatch(r"(.*)#(\d+)", name, re.DOTALL)  # any other # is part of a picture's name
        path, number = (video[1], f"-{int(video[2]):06d}") if video else (name, "")
        first = stem = Path(path).name.replace(".", "_") + number
        count = 1
        while stem in self._used:
            count += 1
            stem = f"{first}-{count}"
        self._used.add(stem)
        return stem
