"""What tiling finds on a large picture, against what the small pictures in it give by themselves.

Pictures of an evaluation set are laid side by side, unscaled, into mosaics of 4000x3000, which are made here and never stored.
A mosaic is looked at in tiles, and as a whole, as without tiling; what was found is given back to the picture that its centre
lies in, and scored as if that picture had been looked at alone: COCO's AP (confidence 0.01, NMS 0.65), and precision and recall
at the model's own threshold (IoU 0.5). The pictures looked at one by one, through the same model, are the measure of it.

    python benchmarks/tiling.py ../shared/images/coco-val/instances.json ../shared/models/yolox_nano.onnx --like yolox-nano
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import Detections, Model, Tiling, assembly, logs
from edgevision.capture.images import read_image
from edgevision.host.benchmark.machine import environment
from edgevision.host.dataset.base import Dataset, Sample
from edgevision.host.dataset.formats import read
from edgevision.host.evaluate import detection

CONFIDENCE, IOU = 0.01, 0.65

TILINGS = (
    Tiling(size=(640, 640), overlap=0.2, levels=1),
    Tiling(size=(640, 640), overlap=0.4, levels=1),
    Tiling(size=(640, 640), overlap=0.4, levels=1, merge="nms"),
    Tiling(size=(512, 512), overlap=0.3),
    Tiling(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A picture and where its left upper corner lies in the mosaic."""

    sample: Sample
    left: int
    top: int


def layouts(samples: Sequence[Sample], size: tuple[int, int]) -> Iterator[list[Placed]]:
    """Mosaics of `size` (width, height), filled in rows; a picture that no longer fits begins the next."""
    placed: list[Placed] = []
    left = top = row = 0
    for sample in samples:
        if left + sample.width > size[0]:
            left, top, row = 0, top + row, 0
        if top + sample.height > size[1]:
            yield placed
            placed, left, top, row = [], 0, 0, 0
        placed.append(Placed(sample=sample, left=left, top=top))
        left, row = left + sample.width, max(row, sample.height)
    if placed:
        yield placed


def paint(placed: Sequence[Placed], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The mosaic, (H, W, 3); what no picture covers is grey."""
    mosaic = np.full((size[1], size[0], 3), 114, np.uint8)
    for one in placed:
        image = read_image(one.sample.path)
        mosaic[one.top : one.top + image.shape[0], one.left : one.left + image.shape[1]] = image
    return mosaic


def given_back(found: Detections, placed: Sequence[Placed]) -> list[Detections]:
    """What was found in a mosaic, by the picture that each box's centre lies in, in that picture's pixels."""
    x, y = (found.xyxy[:, 0] + found.xyxy[:, 2]) / 2, (found.xyxy[:, 1] + found.xyxy[:, 3]) / 2
    parts = []
    for one in placed:
        inside = (x >= one.left) & (x < one.left + one.sample.width)
        inside &= (y >= one.top) & (y < one.top + one.sample.height)
        parts.append(
            Detections(
                xyxy=found.xyxy[inside] - np.array((one.left, one.top) * 2, np.float32),
                confidence=found.confidence[inside],
                class_id=found.class_id[inside],
            )
        )
    return parts


def figures(data: Dataset, samples: Sequence[Sample], answers: Sequence[Detections], own: float) -> dict[str, Any]:
    """AP, and precision and recall at the model's own threshold."""
    result = detection.score(samples, answers, data.labels, own_threshold=own)
    rates = result.overall
    assert rates is not None
    precision = None if rates.precision is None else round(rates.precision, 4)
    return {"ap": round(result.ap or 0.0, 4), "precision": precision, "recall": round(rates.recall, 4)}


def looked_at(model: Model, mosaics: Sequence[list[Placed]], size: tuple[int, int]) -> tuple[list[Detections], float]:
    """What a model finds in each picture when it is shown the mosaics, and seconds for one mosaic."""
    answers: list[Detections] = []
    spent_s = 0.0
    for placed in mosaics:
        picture = paint(placed, size)
        began = time.perf_counter()
        found = model.predict(picture)
        spent_s += time.perf_counter() - began
        assert isinstance(found, Detections)
        answers += given_back(found, placed)
    return answers, spent_s / len(mosaics)


def measure(
    load: Callable[[Tiling | None], Model],
    data: Dataset,
    samples: Sequence[Sample],
    size: tuple[int, int],
    tilings: Sequence[Tiling],
) -> dict[str, Any]:
    """Every tiling on the same mosaics.

    Args:
        load: makes the model, at `CONFIDENCE` and `IOU`, with or without tiling.
        data: whose labels are the model's.
        samples: of it.
        size: width, height of a mosaic.
        tilings: to try.
    """
    mosaics = list(layouts(samples, size))
    placed = [one.sample for mosaic in mosaics for one in mosaic]
    model = load(None)
    if model.labels != data.labels:
        raise SystemExit("the model's labels are not the data set's")
    own = model.manifest.thresholds.confidence
    began = time.perf_counter()
    alone = [found for one in placed if isinstance(found := model.predict(read_image(one.path)), Detections)]
    alone_s = (time.perf_counter() - began) / len(mosaics)
    single = figures(data, placed, alone, own) | {"seconds": round(alone_s, 3)}
    answers, spent_s = looked_at(model, mosaics, size)
    whole = figures(data, placed, answers, own) | {"seconds": round(spent_s, 3)}
    model.close()
    rows = []
    for tiling in tilings:
        tiled = load(tiling)
        answers, spent_s = looked_at(tiled, mosaics, size)
        row = figures(data, placed, answers, own)
        assert tiled.tiles is not None
        rows.append({
            "tiling": tiling.model_dump(),
            "passes": len(tiled.tiles.planned),
            **row,
            "ap_of_single": round(row["ap"] / single["ap"], 4),
            "recall_of_single": round(row["recall"] / single["recall"], 4),
            "seconds": round(spent_s, 3),
        })  # fmt: skip
        tiled.close()
    return {"mosaic": list(size), "mosaics": len(mosaics), "pictures": len(placed), "threshold": own, "single": single,
            "whole": whole, "tiled": rows}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="labelled pictures, as `edgevision evaluate` takes them")
    parser.add_argument("model", help="a model's name or file")
    parser.add_argument("--like", help="for a bare file: a model that is built alike")
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"), help="of a mosaic")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures here")
    given = parser.parse_args()
    logs.configure(level="error")

    def load(tiling: Tiling | None) -> Model:
        settings = assembly.ModelSettings(
            threads=given.threads, tiling=tiling, confidence=CONFIDENCE, iou=IOU, max_detections=10_000
        )
        return assembly.load_model(given.model, like=given.like, settings=settings)

    data = read(given.dataset)
    found = measure(load, data, data.samples, tuple(given.size), TILINGS)
    for name in ("single", "whole"):
        row = found[name]
        print(f"{name:34} AP {row['ap']:.4f}, precision {row['precision']}, recall {row['recall']:.4f}")
    for row in found["tiled"]:
        tiling = row["tiling"]
        name = f"{tiling['size']} x{tiling['levels']} {tiling['overlap']} {tiling['merge']}"
        print(
            f"{name:34} AP {row['ap']:.4f} ({row['ap_of_single']:.3f}), precision {row['precision']}, recall "
            f"{row['recall']:.4f} ({row['recall_of_single']:.3f}), {row['passes']} passes, {row['seconds']:.2f} s a mosaic"
        )
    if given.json:
        machine = environment()
        machine.pop("host", None)
        document = {"model": Path(given.model).name, "threads": given.threads, "environment": machine, **found}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
