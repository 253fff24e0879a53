"""One camera's sharpness against its baseline, which is made of the first good minutes where there is none.

The baseline's file may change beside the running daemon (`edgevision baseline`, or a hand that deletes it): `look_at_file`
notices it, called by a thread that may wait for a disk; the camera's own thread takes it over with its next frame.
"""

from __future__ import annotations

import logging
from array import array
from statistics import median

from edgevision import picture
from edgevision.clock import Clock
from edgevision.config import HealthSection
from edgevision.errors import StateError
from edgevision.messages import timestamp
from edgevision.runtime.baseline import Baseline, BaselineStore, Stamp
from edgevision.types import Frame

_log = logging.getLogger(__name__)

SHARPNESS_EVERY_S = 1.0
_BASELINE_SAMPLES = 120


class Focus:
    """`see` and `take_over` by the camera's thread, `look_at_file` by another."""

    def __init__(self, name: str, section: HealthSection, *, store: BaselineStore, clock: Clock) -> None:
        """Reads the baseline; one that cannot be read is told and is a `trouble`, and `blurred` is off."""
        self.sharpness: float | None = None
        """`picture.sharpness` when it was measured last; None where the picture shows nothing that could be sharp."""
        self._name = name
        self._wanted = section.blurred_below is not None
        self._after_ns = int(section.baseline_after_s * 1e9)
        self._store = store
        self._clock = clock
        self._measured_at_ns: int | None = None
        self._samples = array("d")
        self._sample_at_ns = 0
        self._good_since_ns: int | None = None
        self._unread = ""
        """Why the file could not be read when it was looked at last; empty where it could."""
        self._misfit = ""
        """Why the picture cannot be measured against the baseline; empty where it can."""
        self._stamp: Stamp | None = None
        self._fresh: tuple[Baseline | None, bool] | None = None
        """Read by `look_at_file`, and not taken over yet: the baseline, and whether one is to be made."""
        self._baseline, self._learns = self._read() if self._wanted else (None, False)

    @property
    def trouble(self) -> str:
        """Why `blurred` is off although it is asked for; empty where it is on, or its baseline is being made."""
        trouble = self._unread or self._misfit
        return f"blurred is off: {trouble}" if trouble else ""

    def look_at_file(self) -> None:
        """Read the baseline again where its file has changed; may wait for the disk."""
        if not self._wanted:
            return
        try:
            stamp = self._store.stamp()
        except StateError:
            return  # a disk in trouble, of which others tell: what is in memory serves on
        # No file, after one of which nothing could be told, is a change, too.
        if stamp != self._stamp or (self._unread and stamp is None):
            self._fresh = self._read()

    def _read(self) -> tuple[Baseline | None, bool]:
        try:
            self._stamp = self._store.stamp()
            found = self._store.load()
        except StateError as failure:
            self._unread = str(failure)
            _log.warning("camera has no baseline", extra={"fields": {"camera": self._name, "reason": self._unread}})
            return None, False
        self._unread = ""
        return found, found is None

    def take_over(self) -> bool:
        """What `look_at_file` has found; True where it is another baseline than before."""
        fresh, self._fresh = self._fresh, None
        if fresh is None or fresh == (self._baseline, self._learns):
            return False
        before, (self._baseline, self._learns) = self._baseline, fresh
        self._misfit = ""
        self.doubt()
        fields = {"camera": self._name, "file": str(self._store.path)}
        if self._baseline is not None:
            fields["sharpness"] = str(round(self._baseline.sharpness, 4))
            _log.info("camera baseline changed: it is taken over", extra={"fields": fields})
        elif before is not None and self._learns:
            _log.info("camera baseline taken away: a new one is made", extra={"fields": fields})
        return True

    def see(self, frame: Frame) -> float | None:
        """Sharpness as a share of the baseline, once a second; None where it is not measured."""
        now_ns, baseline = frame.captured_mono_ns, self._baseline
        due = self._measured_at_ns is None or now_ns - self._measured_at_ns >= SHARPNESS_EVERY_S * 1e9
        if not due or not (self._learns or baseline is not None):
            return None
        self._measured_at_ns = now_ns
        height, width = frame.image.shape[:2]
        if baseline is not None and (width, height) != (baseline.width, baseline.height):
            self._tell_misfit(
                f"{self._store.path} was made of pictures of {baseline.width}x{baseline.height}, these are "
                f"{width}x{height}; delete the file (edgevision baseline --clear) to make a new one"
            )
            return None
        self._misfit = ""
        self.sharpness = value = picture.sharpness(frame.image)
        if value is None:
            return None
        if baseline is not None:
            return value / baseline.sharpness
        self._learn(value, now_ns, width, height)
        return None

    def doubt(self) -> None:
        """A picture was not to be trusted: only an unbroken time of good ones makes a baseline."""
        self._good_since_ns = None
        del self._samples[:]

    def _learn(self, value: float, now_ns: int, width: int, height: int) -> None:
        if self._good_since_ns is None:
            self._good_since_ns = self._sample_at_ns = now_ns
        if now_ns >= self._sample_at_ns:
            self._samples.append(value)
            self._sample_at_ns = now_ns + self._after_ns // _BASELINE_SAMPLES
        if now_ns - self._good_since_ns < self._after_ns:
            return
        sharpness, made_at = median(self._samples), timestamp(self._clock.time_ns())
        self.doubt()
        if sharpness <= 0:
            return  # nothing can be measured against that: it is learnt anew
        self._learns = False
        self._baseline = Baseline(version=1, sharpness=sharpness, width=width, height=height, made_at=made_at)
        fields = {"camera": self._name, "file": str(self._store.path), "sharpness": round(sharpness, 4)}
        try:
            self._store.save(self._baseline)
        except StateError as failure:
            _log.warning("camera baseline is not kept", extra={"fields": {**fields, "reason": str(failure)}})
        else:
            _log.info("camera baseline made", extra={"fields": fields})

    def _tell_misfit(self, reason: str) -> None:
        if reason != self._misfit:
            self._misfit = reason
            fields = {"camera": self._name, "reason": f"{reason}; until then `blurred` is off"}
            _log.warning("camera baseline does not fit", extra={"fields": fields})
