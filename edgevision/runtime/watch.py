"""Watches one camera's pictures: measures them, asks `Health` what they mean, and makes the baseline of its sharpness.

Used by the camera's own thread, before a model sees the frame, so that every result carries what was true of its picture.
"""

from __future__ import annotations

import logging
from array import array
from pathlib import Path
from statistics import median
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from edgevision import picture
from edgevision.clock import Clock
from edgevision.config import CameraSection, HealthSection
from edgevision.errors import StateError
from edgevision.messages import timestamp
from edgevision.runtime.baseline import Baseline, BaselineFile
from edgevision.runtime.health import Health, Measures, Verdict
from edgevision.types import Frame

_log = logging.getLogger(__name__)

SHARPNESS_EVERY_S = 1.0


class Watching(TypedDict):
    """What a `Camera` is told of its watching."""

    watch: PictureWatch | None
    watch_files: bool
    late_after_s: float | None


def watching(camera: CameraSection, state_dir: Path, clock: Clock) -> Watching:
    """A camera's watch, as its config has it."""
    section = camera.health
    late_after_s = section.late_after_s
    if late_after_s is not None and camera.fps is not None:
        late_after_s = max(late_after_s, 2.5 / camera.fps)
    if section.check == "never":
        return Watching(watch=None, watch_files=False, late_after_s=None)
    file = BaselineFile(path=state_dir / "cameras" / camera.name / "baseline.json")
    watch = PictureWatch(camera.name, section, late_after_s=late_after_s, baseline=file, clock=clock)
    return Watching(watch=watch, watch_files=section.check == "always", late_after_s=late_after_s)


_BASELINE_SAMPLES = 120


class PictureWatch:
    """One camera's."""

    def __init__(
        self, name: str, section: HealthSection, *, late_after_s: float | None, baseline: BaselineFile, clock: Clock
    ) -> None:
        """Reads the baseline's file; one that cannot be read is told, and `blurred` is off."""
        self._name = name
        self._section = section
        self._health = Health(section, late_after_s=late_after_s)
        self._file = baseline
        self._clock = clock
        self._rows: NDArray[np.uint8] | None = None
        self._sharpness_at_ns: int | None = None
        self._samples = array("d")
        self._sample_at_ns = 0
        self._good_since_ns: int | None = None
        self._baseline: Baseline | None = None
        self._learns = section.blurred_below is not None
        self._told_size = False
        if self._learns:
            self._load()

    def restart(self) -> None:
        """The source was opened again."""
        self._rows = None
        self._health.restart()

    def idle(self) -> None:
        """The source has looked, and no picture is due."""
        self._health.idle()

    def see(self, frame: Frame) -> Verdict:
        """Look at one frame."""
        section, image = self._section, frame.image
        rows = picture.sample_rows(image)
        before, self._rows = self._rows, rows
        dark, bright = picture.shares(rows, dark_level=section.dark_level, bright_level=section.overexposed_level)
        verdict = self._health.see(
            Measures(
                mono_ns=frame.captured_mono_ns,
                dark_share=dark,
                bright_share=bright,
                difference=None if before is None else picture.difference(rows, before),
                sharpness=self._relative_sharpness(frame),
            )
        )
        if not verdict.trusted:
            self._forget_samples()
        return verdict

    def _load(self) -> None:
        try:
            self._baseline = self._file.load()
        except StateError as failure:
            self._learns = False
            _log.warning("camera has no baseline", extra={"fields": {"camera": self._name, "reason": str(failure)}})
        if self._baseline is not None:
            self._learns = False

    def _relative_sharpness(self, frame: Frame) -> float | None:
        """Sharpness as a share of the baseline, once a second; None where it is not measured."""
        now_ns, baseline = frame.captured_mono_ns, self._baseline
        due = self._sharpness_at_ns is None or now_ns - self._sharpness_at_ns >= SHARPNESS_EVERY_S * 1e9
        if not due or not (self._learns or baseline is not None):
            return None
        self._sharpness_at_ns = now_ns
        height, width = frame.image.shape[:2]
        if baseline is not None and (width, height) != (baseline.width, baseline.height):
            self._tell_size(width, height, baseline)
            return None
        value = picture.sharpness(frame.image)
        if value is None:
            return None
        if baseline is not None:
            return value / baseline.sharpness
        self._learn(value, now_ns, width, height)
        return None

    def _learn(self, value: float, now_ns: int, width: int, height: int) -> None:
        if self._good_since_ns is None:
            self._good_since_ns = self._sample_at_ns = now_ns
        if now_ns >= self._sample_at_ns:
            self._samples.append(value)
            self._sample_at_ns = now_ns + int(self._section.baseline_after_s * 1e9 / _BASELINE_SAMPLES)
        if now_ns - self._good_since_ns < self._section.baseline_after_s * 1e9:
            return
        self._learns = False
        sharpness, made_at = median(self._samples), timestamp(self._clock.time_ns())
        self._forget_samples()
        if sharpness <= 0:
            return
        self._baseline = Baseline(version=1, sharpness=sharpness, width=width, height=height, made_at=made_at)
        fields = {"camera": self._name, "file": str(self._file.path), "sharpness": round(sharpness, 4)}
        try:
            self._file.save(self._baseline)
        except StateError as failure:
            _log.warning("camera baseline is not kept", extra={"fields": {**fields, "reason": str(failure)}})
        else:
            _log.info("camera baseline made", extra={"fields": fields})

    def _forget_samples(self) -> None:
        """Only an unbroken time of good pictures makes a baseline."""
        self._good_since_ns = None
        del self._samples[:]

    def _tell_size(self, width: int, height: int, baseline: Baseline) -> None:
        if not self._told_size:
            self._told_size = True
            reason = (
                f"{self._file.path} was made of pictures of {baseline.width}x{baseline.height}, these are "
                f"{width}x{height}: `blurred` is off; delete the file to make a new baseline"
            )
            _log.warning("camera baseline does not fit", extra={"fields": {"camera": self._name, "reason": reason}})
