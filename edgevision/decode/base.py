"""What a decoder is: a model's output tensors become predictions in frame pixels. One file a model family.

A decoder is made with the output `TensorSpec`s by *role* (`boxes`, `scores` ...), as the manifest names them: nothing is
guessed from shapes. It never sees a runtime, and all of them hand corner boxes to the one NMS in `geometry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgevision.types import ImageTransform, Predictions, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeContext:
    """What every decoder is told beside its own options: thresholds (manifest, overridden by the config) and labels."""

    labels: tuple[str, ...] = ()
    confidence: float = 0.25
    """Predictions below are dropped."""
    iou: float = 0.45
    """Two boxes of one class that overlap more are one object."""
    class_agnostic: bool = False
    """And so are two of different classes."""
    max_detections: int = 100
    top_k: int = 5
    """How many classes a classifier names."""
    classes: frozenset[int] | None = None
    """Only these class ids; None is all."""
    class_confidence: Mapping[int, float] = field(default_factory=dict)
    """Thresholds of single classes, in place of `confidence`."""
    activation: Literal["softmax", "sigmoid", "none"] = "none"
    """What must still be applied to the scores."""


class Decoder(Protocol):
    """Output tensors and the way back to frame pixels in, predictions out."""

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Predictions:
        """Decode one inference; the result shares no memory with `tensors`."""
        ...
