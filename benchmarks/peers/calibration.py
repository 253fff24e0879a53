"""Calibration pictures as YOLOX's input, for the two plain recipes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand
import cv2
import numpy as np

SIZE = 416


def tensors(folder: Path) -> Iterator[Any]:
    """(1, 3, 416, 416) float32 of every picture."""
    for file in sorted(folder.iterdir()):
        picture = cv2.imread(str(file)) if file.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp"} else None
        if picture is not None:
            yield by_hand.letterbox(picture.astype(np.uint8), SIZE)[0]


def paths() -> tuple[Path, Path, Path]:
    """Model, calibration folder and output of a recipe's command line."""
    model, folder, output = map(Path, sys.argv[1:])
    return model, folder, output
