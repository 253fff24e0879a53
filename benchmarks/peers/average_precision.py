"""COCO AP of a YOLOX file with edgevision's own decoder, as JSON.

python average_precision.py MODEL FOLDER; the folder holds the pictures and instances.json.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgevision import assembly
from edgevision.types import Detections

CONFIDENCE, IOU, MOST = 0.01, 0.65, 100
"""YOLOX's own settings of an evaluation."""


def average_precision(model_file: Path, folder: Path) -> float:
    """AP at IoU 0.50 to 0.95 over all classes."""
    truth = COCO(str(folder / "instances.json"))
    by_name = {entry["name"]: number for number, entry in truth.cats.items()}
    model = assembly.load_model(
        model_file, like="yolox-nano", threads=2, confidence=CONFIDENCE, iou=IOU, max_detections=MOST
    )
    numbers = [by_name[label] for label in model.labels]
    found = []
    for number, entry in truth.imgs.items():
        result = model.predict(folder / entry["file_name"])
        assert isinstance(result, Detections)
        for label, score, box in zip(result.class_id, result.confidence, result.xyxy, strict=True):
            left, top, right, bottom = box.tolist()
            found.append(
                {
                    "image_id": number,
                    "category_id": numbers[int(label)],
                    "score": float(score),
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
    if not found:
        return 0.0
    judge = COCOeval(truth, truth.loadRes(found), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return float(judge.stats[0])


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        figure = average_precision(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({"ap": round(figure, 4)}))
