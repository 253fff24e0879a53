"""Where cameras hand frames to the model they share: one place per camera, taken in turn.

Fairness is the ring: a camera that has been served goes to the end, so a fast camera cannot starve a slow one, and a slow
one holds nobody up. A live camera's newer frame takes the place of the older one, which is counted as dropped; a file's
reader waits until its place is free.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from edgevision.messages import CameraState
from edgevision.runtime.tally import Tally
from edgevision.types import Frame


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A frame, and what its camera was when it was captured: by the time a model looks, that may have changed."""

    frame: Frame
    state: CameraState
    trusted: bool = True
    """Whether the frame is to be believed; see `health.Verdict`."""
    spell: int = 0
    """`CameraStatus.spell` when the frame was taken: rules are not shown what is older than the last loss of sight."""


class FrameExchange:
    """One waiting frame per camera; many readers, one taker."""

    def __init__(self, cameras: Iterable[str]) -> None:
        """The ring begins in the order of `cameras`."""
        self._waiting: dict[str, Captured | None] = dict.fromkeys(cameras)
        self._ring = list(self._waiting)
        self._tallies = {camera: Tally() for camera in self._ring}
        self._in_hand: str | None = None
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)

    def put(self, captured: Captured, *, wait: bool) -> bool:
        """Offer a frame.

        Args:
            captured: a frame of one of the cameras.
            wait: True waits for the place to be free (files); False takes the place of an older frame (live).

        Returns:
            False when the exchange is closed or the camera was removed, and the frame was not taken.
        """
        camera = captured.frame.camera
        with self._filled:
            while wait and self._waiting.get(camera) is not None and not self._closed:
                self._emptied.wait()
            if self._closed or camera not in self._waiting:
                return False
            if self._waiting[camera] is not None:
                self._tallies[camera].dropped += 1
            self._waiting[camera] = captured
            self._filled.notify()
        return True

    def take(self) -> Captured | None:
        """The next camera's frame, waiting for one; None when the exchange is closed. The one before is then done with."""
        with self._filled:
            self._in_hand = None
            while not self._closed:
                for index, camera in enumerate(self._ring):
                    captured = self._waiting[camera]
                    if captured is not None:
                        self._waiting[camera] = None
                        self._in_hand = camera
                        self._ring.append(self._ring.pop(index))
                        self._emptied.notify_all()
                        return captured
                self._filled.wait()
        return None

    def add(self, camera: str, tally: Tally) -> None:
        """A place for one more camera, at the end of the ring; `tally` is where its drops are counted."""
        with self._filled:
            self._waiting[camera] = None
            self._tallies[camera] = tally
            self._ring.append(camera)

    def remove(self, camera: str) -> None:
        """Take a camera's place away; its reader is let go, and a frame that waited is given up."""
        with self._filled:
            self._waiting.pop(camera, None)
            if camera in self._ring:
                self._ring.remove(camera)
            self._emptied.notify_all()

    def dropped(self, camera: str) -> int:
        """How many frames of a camera gave way to newer ones."""
        return self._tallies[camera].dropped

    def is_waiting(self, camera: str) -> bool:
        """Whether a frame of this camera waits for the model."""
        return self._waiting.get(camera) is not None

    def is_done(self, camera: str) -> bool:
        """Whether no frame of this camera waits for the model or is in its hands."""
        with self._filled:
            return self._waiting.get(camera) is None and self._in_hand != camera

    def close(self) -> None:
        """Let everyone go, and every frame that still waits: `put` and `take` return at once from now on."""
        with self._filled:
            self._closed = True
            self._waiting = dict.fromkeys(self._waiting)
            self._filled.notify_all()
            self._emptied.notify_all()
