"""Datasets made by hand, for tests that are not about reading labels."""

import csv
import json
from pathlib import Path

from edgevision.host.dataset.base import Box, Dataset, Sample


def coco_dataset(annotations: Path, pictures: Path) -> Dataset:
    """COCO JSON, well-formed, with every category in the order of its id."""
    raw = json.loads(annotations.read_text())
    categories = sorted(raw["categories"], key=lambda item: item["id"])
    number = {item["id"]: index for index, item in enumerate(categories)}
    boxes = {}
    for item in raw["annotations"]:
        left, top, width, height = item["bbox"]
        boxes.setdefault(item["image_id"], []).append(
            Box(
                label_id=number[item["category_id"]],
                xyxy=(left, top, left + width, top + height),
                crowd=bool(item["iscrowd"]),
                area_px=item["area"],
            )
        )
    samples = [
        Sample(
            name=item["file_name"],
            path=pictures / item["file_name"],
            width=item["width"],
            height=item["height"],
            boxes=tuple(boxes.get(item["id"], ())),
        )
        for item in raw["images"]
    ]
    return Dataset(
        source=annotations,
        format="coco",
        task="detection",
        labels=tuple(item["name"] for item in categories),
        samples=tuple(sorted(samples, key=lambda sample: sample.name)),
    )


def imagenet_dataset(folder: Path, labels: tuple[str, ...], offset: int = 0) -> Dataset:
    """labels.csv of class numbers; `labels` are the model's own names, which begin `offset` classes earlier."""
    with (folder / "labels.csv").open() as stream:
        rows = sorted((row["file"], int(row["class_index"]) + offset) for row in csv.DictReader(stream))
    samples = [
        Sample(name=name, path=folder / name, width=224, height=224, label_id=label_id) for name, label_id in rows
    ]
    return Dataset(source=folder, format="folders", task="classification", labels=labels, samples=tuple(samples))
