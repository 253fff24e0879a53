"""Rule `presence`: an object or class comes and goes.

It says `appeared` when a label has been seen in `frames` frames running, and `disappeared` when it has been missing for
as many: one flickering frame is no event. What it finds first is told, whichever it is, also at the start: what an earlier run
said may no longer be true. A classifier sees a label when it is its first choice, or with several labels at once when it is one
of them; a segmentation when enough of the picture is of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from edgevision import registry
from edgevision.errors import UsageError
from edgevision.events.base import Rule, RuleContext
from edgevision.types import UNSEEN, Classifications, Detections, Embedding, Event, Frame, Predictions, Segmentation


class Options(registry.Options):
    """What the user may set."""

    label: str
    """The class to watch for."""
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Count only predictions that are at least this sure; a segmentation has no such number."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of a segmentation: count the label only where at least this share of the picture is of it."""
    frames: Annotated[int, Field(ge=1, le=10_000)] = 3
    """How many frames running must agree before it is an event."""


class Presence:
    """Watches for one label on one camera."""

    def __init__(self, options: Options, context: RuleContext, class_id: int) -> None:
        """`class_id` is the label's."""
        self._options = options
        self._context = context
        self._class_id = class_id
        self._present: bool | None = None
        """None: not known; the first answer that lasts is told, whichever it is."""
        self._disagreeing = 0
        self._candidate = False

    def update(self, frame: Frame, predictions: Predictions) -> Sequence[Event]:
        """`appeared` or `disappeared`, once each time."""
        surest = self._surest(predictions)
        found = surest is not None
        if found == self._present:
            self._disagreeing = 0
            return ()
        self._disagreeing = self._disagreeing + 1 if found == self._candidate else 1
        self._candidate = found
        if self._disagreeing < self._options.frames:
            return ()
        self._present, self._disagreeing = found, 0
        confidence, box = surest if surest is not None else (None, None)
        event = Event(
            kind="appeared" if self._present else "disappeared",
            camera=self._context.camera,
            rule=self._context.name,
            occurred_at_ns=frame.captured_at_ns,
            label=self._options.label,
            confidence=confidence,
            box=box,
        )
        return (event,)

    def reset(self) -> None:
        """Whether it is there is unknown."""
        self._present, self._disagreeing = None, 0

    def _covering(self, found: Segmentation) -> tuple[None, tuple[float, float, float, float]] | None:
        """No confidence, and the box around all pixels of the label; None where there are too few."""
        pixels = found.class_map == self._class_id
        count = int(np.count_nonzero(pixels))
        if count == 0 or count < self._options.share * np.count_nonzero(found.class_map != UNSEEN):
            return None
        rows, columns = pixels.any(axis=1).nonzero()[0], pixels.any(axis=0).nonzero()[0]
        return None, (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))

    def _surest(self, predictions: Predictions) -> tuple[float | None, tuple[float, float, float, float] | None] | None:
        """Confidence and box of the surest prediction of the label; None where there is none. Predictions come sorted."""
        if isinstance(predictions, Segmentation):
            return self._covering(predictions)
        if isinstance(predictions, Embedding):
            return None  # which has no labels: `create` has refused the rule
        candidates = predictions.class_id
        if isinstance(predictions, Classifications) and not predictions.multi_label:
            candidates = candidates[:1]
        matches = (candidates == self._class_id).nonzero()[0]
        if len(matches) == 0 or predictions.confidence[matches[0]] < self._options.confidence:
            return None
        first = int(matches[0])
        box = None
        if isinstance(predictions, Detections):
            left, top, right, bottom = predictions.xyxy[first].tolist()
            box = (left, top, right, bottom)
        return float(predictions.confidence[first]), box


def create(options: Options, context: RuleContext) -> Rule:
    """Make the rule.

    Raises:
        UsageError: the camera's model has no such label.
    """
    if options.label not in context.labels:
        problem = registry.unknown_name("label", options.label, list(context.labels))
        raise UsageError(f"rule {context.name!r} of camera {context.camera!r}: {problem}")
    return Presence(options, context, context.labels.index(options.label))
