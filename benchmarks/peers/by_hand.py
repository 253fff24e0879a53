"""What a careful engineer writes by hand around a runtime: letterbox, decode, non-maximum suppression, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from peer import CONFIDENCE, IOU, MOST, Prediction


def letterbox(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.float32], float]:
    """(1, 3, size, size) float32 BGR 0-255, padded with 114 on the right and below, and the scale."""
    scale = min(size / image.shape[0], size / image.shape[1])
    height, width = round(image.shape[0] * scale), round(image.shape[1] * scale)
    canvas = np.full((size, size, 3), 114, np.uint8)
    cv2.resize(image, (width, height), dst=canvas[:height, :width])
    # Planes while it is still bytes: widening first costs seven times as much.
    return np.ascontiguousarray(canvas.transpose(2, 0, 1))[None].astype(np.float32), scale


def yolox_decoder(size: int) -> Callable[[NDArray[np.float32], float], list[Prediction]]:
    """A decoder of YOLOX's rows (x, y, w, h, objectness, class scores): strides 8, 16, 32."""
    cells, steps = [], []
    for stride in (8, 16, 32):
        side = size // stride
        cells.append(np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2))
        steps.append(np.full((side * side, 1), stride))
    grid, stride_of = np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)

    def decode(rows: NDArray[np.float32], scale: float) -> list[Prediction]:
        near = np.flatnonzero(rows[:, 4] >= CONFIDENCE)
        rows = rows[near]
        best = rows[:, 5:].argmax(1)
        score = rows[:, 4] * rows[np.arange(len(rows)), 5 + best]
        keep = score >= CONFIDENCE
        rows, best, score, near = rows[keep], best[keep], score[keep], near[keep]
        center = (rows[:, :2] + grid[near]) * stride_of[near] / scale
        wide = np.exp(rows[:, 2:4]) * stride_of[near] / scale
        left_top = center - wide / 2
        kept = cv2.dnn.NMSBoxesBatched(
            np.hstack([left_top, wide]).tolist(), score.tolist(), best.tolist(), CONFIDENCE, IOU
        )
        return [
            (int(best[i]), float(score[i]), (*left_top[i].tolist(), *(left_top[i] + wide[i]).tolist()))
            for i in list(kept)[:MOST]
        ]

    return decode


def clip(found: list[Prediction], image: NDArray[np.uint8]) -> list[Prediction]:
    """Boxes that end at the picture's edge."""
    height, width = image.shape[:2]
    return [
        (label, score, box and (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)))
        for label, score, box in found
    ]


def message(found: list[Prediction]) -> tuple[list[Prediction], bytes]:
    """What was found, and as the JSON that is sent."""
    rows: list[dict[str, Any]] = [{"class_id": label, "confidence": score, "xyxy": box} for label, score, box in found]
    return found, json.dumps({"detections": rows}).encode()
