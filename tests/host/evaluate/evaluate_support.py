"""Datasets and models made by hand, for tests that are not about reading labels or running networks."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevision.host.dataset.base import Box, Dataset, Sample
from edgevision.manifest import Manifest
from edgevision.pipeline import Model
from edgevision.types import Frame, ImageTransform, ModelInput, Predictions, Tensors, TensorSpec


def coco_dataset(annotations: Path, pictures: Path) -> Dataset:
    """COCO JSON, well-formed, with every category in the order of its id."""
    raw = json.loads(annotations.read_text())
    categories = sorted(raw["categories"], key=lambda item: item["id"])
    number = {item["id"]: index for index, item in enumerate(categories)}
    boxes: dict[int, list[Box]] = {}
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


def imagenet_dataset(folder: Path) -> Dataset:
    """labels.csv of class numbers."""
    with (folder / "labels.csv").open() as stream:
        rows = sorted((row["file"], int(row["class_index"])) for row in csv.DictReader(stream))
    samples = [
        Sample(name=name, path=folder / name, width=224, height=224, label_id=label_id) for name, label_id in rows
    ]
    labels = tuple(map(str, range(1000)))
    return Dataset(source=folder, format="csv", task="classification", labels=labels, samples=tuple(samples))


class _Pixels:
    """A preprocessor that hands the picture on, and a backend that hands its input on."""

    inputs = outputs = (TensorSpec(name="pixels", shape=(-1, -1, 3), dtype=np.dtype(np.uint8), layout="NHWC"),)

    def __call__(self, frame: Frame) -> ModelInput:
        height, width = frame.image.shape[:2]
        transform = ImageTransform(
            frame_size=(width, height),
            input_size=(width, height),
            scale=(1, 1),
            offset=(0, 0),
            region=(0, 0, width, height),
        )
        return ModelInput(tensors={"pixels": frame.image}, transform=transform)

    def run(self, tensors: Tensors) -> Tensors:
        return tensors

    def close(self) -> None:
        """Holds nothing."""


def made_up_model(
    task: str, labels: tuple[str, ...], answer: Callable[[NDArray[np.uint8]], Predictions], *, name: str = "made-up"
) -> Model:
    """A real `pipeline.Model` whose decoder looks at the pixels itself."""
    manifest = Manifest.model_validate(
        {
            "name": name,
            "version": "1",
            "task": task,
            "family": "test",
            "files": {"test": {"path": "none", "sha256": "0" * 64, "size": 1}},
            "input": {"size": (100, 100), "resize": "stretch"},
            "outputs": {"pixels": "pixels"},
            "thresholds": {"confidence": 0.5},
            "licence": "none",
            "source": "test",
        }
    )
    pixels = _Pixels()
    return Model(
        manifest=manifest,
        labels=labels,
        backend_name="test",
        threads=1,
        preprocessor=pixels,
        backend=pixels,
        decoder=lambda tensors, _transform: answer(tensors["pixels"]),
    )
