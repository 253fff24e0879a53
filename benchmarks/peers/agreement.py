"""Whether a peer computes the same: its predictions against the careful script's; standard library only."""

from __future__ import annotations

import statistics

from peer import Prediction

OVERLAP = 0.5
"""Two boxes of one class with at least this IoU are one object."""


def agreement(found: list[list[Prediction]], expected: list[list[Prediction]]) -> float | None:
    """The mean over pictures of F1 (boxes) or of the same first class (no boxes); None without any prediction."""
    scores = [one_picture(ours, theirs) for ours, theirs in zip(found, expected, strict=True) if ours or theirs]
    return round(statistics.mean(scores), 4) if scores else None


def one_picture(found: list[Prediction], expected: list[Prediction]) -> float:
    """One picture's F1, matched greedily, most confident first."""
    if not found or not expected:
        return 0.0
    if found[0][2] is None:
        # Quantised scores have ties: any of the classes that share the first place is right.
        first = {label for label, score, _ in expected if score >= expected[0][1] * (1 - 1e-6)}
        return float(found[0][0] in first)
    left = list(expected)
    matched = 0
    for label, _, box in sorted(found, key=lambda prediction: -prediction[1]):
        overlaps = [(iou(box, other), number) for number, (name, _, other) in enumerate(left) if name == label]
        best = max(overlaps, default=(0.0, -1))
        if best[0] >= OVERLAP:
            matched += 1
            del left[best[1]]
    return 2 * matched / (len(found) + len(expected))


def iou(first: tuple[float, float, float, float] | None, second: tuple[float, float, float, float] | None) -> float:
    """Intersection over union of two xyxy boxes."""
    if first is None or second is None:
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared)
