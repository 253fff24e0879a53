"""Watches one camera's pictures: measures them, and asks `Health` what they mean.

Used by the camera's own thread, before a model sees the frame, so that every result carries what was true of its picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from edgevision import picture
from edgevision.clock import Clock
from edgevision.config import CameraSection, HealthSection
from edgevision.runtime.baseline import BaselineFile, BaselineStore
from edgevision.runtime.focus import Focus
from edgevision.runtime.health import Health, Measures, Verdict
from edgevision.types import Frame


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
    file = BaselineFile.of(state_dir, camera.name)
    watch = PictureWatch(camera.name, section, late_after_s=late_after_s, baseline=file, clock=clock)
    return Watching(watch=watch, watch_files=section.check == "always", late_after_s=late_after_s)


class PictureWatch:
    """One camera's."""

    def __init__(
        self, name: str, section: HealthSection, *, late_after_s: float | None, baseline: BaselineStore, clock: Clock
    ) -> None:
        """Reads the baseline's file; one that cannot be read is told, and `blurred` is off."""
        self.focus = Focus(name, section, store=baseline, clock=clock)
        self._section = section
        self._health = Health(section, late_after_s=late_after_s)
        self._rows: NDArray[np.uint8] | None = None

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
        if self.focus.take_over():
            self._health.focus_anew()
        rows = picture.sample_rows(image)
        before, self._rows = self._rows, rows
        dark, bright = picture.shares(rows, dark_level=section.dark_level, bright_level=section.overexposed_level)
        verdict = self._health.see(
            Measures(
                mono_ns=frame.captured_mono_ns,
                dark_share=dark,
                bright_share=bright,
                difference=None if before is None else picture.difference(rows, before),
                sharpness=self.focus.see(frame),
            )
        )
        if not verdict.trusted:
            self.focus.doubt()
        return verdict
