"""Frames out of an open `cv2.VideoCapture`: grabbed without pause, decoded where wanted, counted where they cannot be."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.capture._pacing import NS_PER_S, FramePicker
from edgevision.capture._pixels import as_bgr8
from edgevision.capture.base import SourceContext
from edgevision.errors import CaptureError
from edgevision.types import Frame

_LOG = logging.getLogger(__name__)

_MAX_BAD_FRAMES = 30
"""Undecodable pictures in a row: one damaged JPEG of a USB camera is a dropped frame, this many are a fault."""


class Grabber:
    """Numbers, times and counts one source's frames."""

    def __init__(self, context: SourceContext, *, shown: str) -> None:
        """`shown` is what the source is called in texts, without a secret."""
        self._context = context
        self._shown = shown
        self._sequence = 0
        self._bad_in_a_row = 0
        self.delivered = False
        """Whether there has been a frame since the source was opened."""
        self.unreadable = 0
        """Frames that could not be decoded since the source was made."""

    def restart(self) -> None:
        """The source is opened anew."""
        self._sequence = self._bad_in_a_row = 0
        self.delivered = False

    def live_frames(
        self, open_it: Callable[[], cv2.VideoCapture], closing: threading.Event, *, read_timeout_s: float, ended: str
    ) -> Iterator[Frame]:
        """Open, and yield what comes until `closing` is set; all frames are read, because what nobody reads becomes lag.

        Raises:
            CaptureError: it broke off: in silence, or as `ended` says.
        """
        if closing.is_set():
            return
        clock, picker = self._context.clock, FramePicker(self._context.fps)
        capture = open_it()
        try:
            while not closing.is_set():
                asked_ns = clock.monotonic_ns()
                if not grab(capture):
                    if closing.is_set():
                        return
                    waited_s = (clock.monotonic_ns() - asked_ns) / NS_PER_S
                    silent = waited_s >= 0.9 * read_timeout_s
                    why = f"nothing came for {waited_s:.1f} s (read_timeout_s)" if silent else ended
                    what = "broke off" if self.delivered else "gave no frame"
                    raise CaptureError(f"{self._shown}: {what}: {why}")
                time_ns, mono_ns = clock.time_ns(), clock.monotonic_ns()
                if picker.wanted(mono_ns) and (frame := self.frame(capture, time_ns, mono_ns)):
                    yield frame
        finally:
            capture.release()

    def frame(self, capture: cv2.VideoCapture, time_ns: int, mono_ns: int) -> Frame | None:
        """The grabbed frame; None where it cannot be decoded, which leaves a gap in the sequence: a drop.

        Raises:
            CaptureError: that was one too many in a row.
        """
        sequence = self._sequence
        self._sequence += 1
        image = _retrieve(capture)
        if image is None:
            self._bad_in_a_row += 1
            self.unreadable += 1
            if self._bad_in_a_row == 1:
                camera = self._context.camera
                _LOG.warning("camera %s: %s: frame %d cannot be decoded and is dropped", camera, self._shown, sequence)
            if self._bad_in_a_row >= _MAX_BAD_FRAMES:
                raise CaptureError(f"{self._shown}: {_MAX_BAD_FRAMES} frames in a row cannot be decoded")
            # With a low `fps` these many take a while: it is no silence, and the reason is known.
            self._context.idle(f"{self._shown}: its frames cannot be decoded")
            return None
        self._bad_in_a_row = 0
        self.delivered = True
        return Frame(
            image=as_bgr8(image, source=self._shown),
            camera=self._context.camera,
            sequence=sequence,
            captured_at_ns=time_ns,
            captured_mono_ns=mono_ns,
        )


def grab(capture: cv2.VideoCapture) -> bool:
    """Wait for the next frame; False where there is none."""
    try:
        return capture.grab()
    except cv2.error:  # a driver that fails is a source that broke off
        return False


def _retrieve(capture: cv2.VideoCapture) -> NDArray[np.generic] | None:
    try:
        done, image = capture.retrieve()
    except cv2.error:
        return None
    return image if done and image is not None and image.size else None
