"""When a frame is wanted, and when it is due: shared by every source, and free of any video library.

`FramePicker` chooses the frames that a rate asks for, `MediaTime` makes one steady time line out of whatever times a
file gives, and `Pacer` holds frames back until they are due. All times are whole nanoseconds.
"""

from __future__ import annotations

import math
import threading

from edgevision.clock import Clock

NS_PER_S = 1_000_000_000

_LEAST_FPS, _MOST_FPS = 1 / 60, 1000.0

FALLBACK_FPS = 25.0
"""Taken for a file that tells no usable rate; FFmpeg's own assumption for bare streams."""

_MAX_STEP_MS = 60_000.0
"""A file whose next picture lies further ahead has a broken time line, rather than a pause that we should wait for."""


class FramePicker:
    """Chooses frames so that `fps` of them come every second on average, whatever the source's own rate.

    Due times lie on a grid of 1/fps, so that 10 of 29.8 are 10.0 and not the 9.93 of every third frame. A frame may
    come up to half a source interval before its due time, so that a camera of the wanted rate that jitters loses none.
    After a pause the grid starts afresh: what was missed is not made up for.
    """

    def __init__(self, fps: float | None) -> None:
        """Choose `fps` frames a second; all of them where it is None."""
        self._period_ns = None if fps is None else max(1, round(NS_PER_S / fps))
        self._due_ns: int | None = None
        self._last_ns = 0
        self._interval_ns = 0

    def wanted(self, time_ns: int) -> bool:
        """Whether the frame of this time is to be looked at; to be asked once for each frame, in order."""
        if self._period_ns is None:
            return True
        if self._due_ns is None:
            self._due_ns, self._last_ns = time_ns + self._period_ns, time_ns
            return True
        step_ns, self._last_ns = time_ns - self._last_ns, time_ns
        # A running mean over about eight frames, so that one late frame does not shift the choice.
        self._interval_ns += (step_ns - self._interval_ns) // 8 if self._interval_ns else step_ns
        if time_ns + min(self._interval_ns, self._period_ns) // 2 < self._due_ns:
            return False
        missed = time_ns - self._due_ns >= self._period_ns
        self._due_ns = (time_ns if missed else self._due_ns) + self._period_ns
        return True


class MediaTime:
    """A file's time line, from 0 and always rising, over loops and over files whose own times stand still or jump."""

    def __init__(self) -> None:
        """Start at 0; `restart` must be called before the first frame."""
        self._now_ns: int | None = None
        self._last_ms: float | None = None
        self._nominal_ns = round(NS_PER_S / FALLBACK_FPS)
        self.repaired = 0
        """How many steps had to be taken from the nominal rate, because the file's own made no sense."""

    def restart(self, fps: float) -> bool:
        """A new pass over the file begins, whose nominal rate is `fps`.

        Returns:
            Whether the rate can be used; otherwise `FALLBACK_FPS` is taken.
        """
        usable = _LEAST_FPS <= fps <= _MOST_FPS  # False for NaN, too
        self._nominal_ns = round(NS_PER_S / (fps if usable else FALLBACK_FPS))
        self._last_ms = None
        return usable

    def advance(self, position_ms: float) -> int:
        """The time of the next frame, in nanoseconds, from what the file says of it (any number, NaN too)."""
        if self._now_ns is None:
            self._now_ns = 0
        elif self._last_ms is None:
            self._now_ns += self._nominal_ns
        else:
            step_ms = position_ms - self._last_ms
            step_ns = round(step_ms * 1e6) if 0 < step_ms <= _MAX_STEP_MS else 0  # 0 for NaN, too
            if step_ns == 0:
                self.repaired += 1
                step_ns = self._nominal_ns
            self._now_ns += step_ns
        self._last_ms = position_ms if math.isfinite(position_ms) else 0.0
        return self._now_ns


class Pacer:
    """Holds frames back to the speed at which they were taken.

    A frame that is late is let through at once, and the time line moves with it: after having been held up, frames
    follow each other at their own distance again and never in a burst.
    """

    def __init__(self, clock: Clock, closing: threading.Event) -> None:
        """Wait by `clock`, and only until `closing` is set."""
        self._clock = clock
        self._closing = closing
        self._start_ns: int | None = None
        """Monotonic time at which media time 0 lies."""

    def wait_for(self, media_ns: int) -> bool:
        """Wait until the frame of this media time is due; False where the source is being closed."""
        now_ns = self._clock.monotonic_ns()
        if self._start_ns is None or now_ns >= self._start_ns + media_ns:
            self._start_ns = now_ns - media_ns
            return not self._closing.is_set()
        return not self._clock.wait(self._closing, (self._start_ns + media_ns - now_ns) / NS_PER_S)
