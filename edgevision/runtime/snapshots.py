"""Pictures on the image topic, JPEGs and class maps, encoded in a thread of their own.

Encoding takes as long as an inference; it must not hold up the model's other cameras. One frame may wait for the encoder; a
newer one takes its place and the older is counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edgevision.clock import Clock
from edgevision.config import SnapshotSection
from edgevision.drawing import draw, encode_jpeg, palette, shrink
from edgevision.errors import ImageError
from edgevision.messages import CameraState, Composer, class_map_png
from edgevision.runtime.tally import Tally
from edgevision.types import Detections, Frame, Message, Predictions, Segmentation, label_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    frame: Frame
    predictions: Predictions
    state: CameraState
    dropped: int


class Snapshots:
    """One camera's pictures."""

    def __init__(
        self,
        section: SnapshotSection,
        *,
        camera: str,
        composer: Composer,
        publish: Callable[[Message], None],
        clock: Clock,
        tally: Tally,
    ) -> None:
        """Starts its thread at once; what it leaves out is counted in `tally`."""
        self._tally = tally
        self._section = section
        self._camera = camera
        self._composer = composer
        self._publish = publish
        self._clock = clock
        self._next_ns = 0
        self._job: _Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"snapshots-{camera}", daemon=True)
        self._thread.start()

    def offer(self, frame: Frame, predictions: Predictions, *, state: CameraState, dropped: int) -> None:
        """Take a picture if it is time for one; never blocks."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns:
            return
        always = self._section.when == "always" and self._section.what != "crops"
        if not always and not len(predictions):
            return
        self._next_ns = now_ns + int(self._section.interval_s * 1e9)
        with self._changed:
            if self._job is not None:
                self._tally.snapshots_dropped += 1
            self._job = _Job(frame=frame, predictions=predictions, state=state, dropped=dropped)
            self._changed.notify()

    def close(self) -> None:
        """End after the picture in hand."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(5.0)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._job is None and not self._closed:
                    self._changed.wait()
                job, self._job = self._job, None
            if job is None:
                return
            try:
                self._send(job)
            except ImageError as failure:
                self._left_out()
                fields = {"camera": self._camera, "reason": str(failure)}
                _log.warning("snapshot left out", extra={"fields": fields})
            except Exception:  # noqa: BLE001  the top of this thread: a picture that cannot be drawn must not end all pictures
                self._left_out()
                _log.exception("snapshot failed unexpectedly", extra={"fields": {"camera": self._camera}})

    def _left_out(self) -> None:
        with self._changed:  # the model's thread counts as well
            self._tally.snapshots_dropped += 1

    def _send(self, job: _Job) -> None:
        section, frame = self._section, job.frame
        height, width = frame.image.shape[:2]
        if section.what == "frame":
            image = draw(frame.image, job.predictions) if section.draw else frame.image
            jpeg = encode_jpeg(shrink(image, section.max_width), section.quality)
            whole = (0.0, 0.0, float(width), float(height))
            self._publish(
                self._composer.image(jpeg, frame, state=job.state, dropped=job.dropped, what="frame", xyxy=whole)
            )
            return
        if section.what == "mask":
            if isinstance(job.predictions, Segmentation):
                png = class_map_png(job.predictions.class_map, palette(job.predictions.background))
                whole = (0.0, 0.0, float(width), float(height))
                self._publish(
                    self._composer.image(png, frame, state=job.state, dropped=job.dropped, what="mask", xyxy=whole)
                )
            return
        if not isinstance(job.predictions, Detections):
            return
        found = job.predictions
        rows = zip(found.xyxy.tolist(), found.class_id.tolist(), found.confidence.tolist(), strict=True)
        for (left, top, right, bottom), class_id, confidence in list(rows)[: section.max_crops]:
            x1, y1 = max(0, int(left)), max(0, int(top))
            x2, y2 = min(width, max(x1 + 1, round(right))), min(height, max(y1 + 1, round(bottom)))
            if x1 >= x2 or y1 >= y2:
                continue
            jpeg = encode_jpeg(shrink(frame.image[y1:y2, x1:x2], section.max_width), section.quality)
            self._publish(
                self._composer.image(
                    jpeg,
                    frame,
                    state=job.state,
                    dropped=job.dropped,
                    what="crop",
                    xyxy=(float(x1), float(y1), float(x2), float(y2)),
                    label=label_of(found.labels, class_id),
                    confidence=round(confidence, 4),
                )
            )
