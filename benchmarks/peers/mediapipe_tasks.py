"""MediaPipe Tasks: its object detector and its image classifier on the same .tflite files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from peer import CONFIDENCE, Looker, Prediction

REQUIREMENTS = ("mediapipe",)
TASKS = ("ssd-tflite", "mobilenet-tflite")
NOTE = "has no option for threads; prepares the picture in its own way; stops at predictions"


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import cv2
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    cv2.setNumThreads(1)
    base = BaseOptions(model_asset_path=str(model))

    def picture(image: Any) -> Any:
        return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    if task == "ssd-tflite":
        detector = vision.ObjectDetector.create_from_options(
            vision.ObjectDetectorOptions(base_options=base, score_threshold=CONFIDENCE, max_results=10)
        )
        names = labels_inside(model)
        return Looker(look=lambda image: detector.detect(picture(image)), tell=lambda result: objects(result, names))
    classifier = vision.ImageClassifier.create_from_options(
        vision.ImageClassifierOptions(base_options=base, max_results=5)
    )
    return Looker(look=lambda image: classifier.classify(picture(image)), tell=classes)


def labels_inside(model: Path) -> list[str]:
    """The labels that the file carries, by class: its results have names in place of numbers."""
    with zipfile.ZipFile(model) as archive:
        (name,) = archive.namelist()
        return archive.read(name).decode().splitlines()


def objects(result: Any, names: list[str]) -> list[Prediction]:
    """Predictions of an object detector's result."""
    found: list[Prediction] = []
    for detection in result.detections:
        box, best = detection.bounding_box, detection.categories[0]
        xyxy = (box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height)
        found.append((names.index(best.category_name), best.score, xyxy))
    return found


def classes(result: Any) -> list[Prediction]:
    """Predictions of a classifier's result."""
    return [(entry.index, entry.score, None) for entry in result.classifications[0].categories]
