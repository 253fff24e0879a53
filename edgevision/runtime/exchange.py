"""Where cameras hand frames to the model they share: one place per camera, taken in turn.

Fairness is the ring: a camera that has been served goes to the end, so a fast camera cannot starve a slow one, and a slow
one holds nobody up. A live camera's newer frame takes the place of the older one, which is counted as dropped; a file's
reader waits until its place is free.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from edgevision.types import Frame


class FrameExchange:
    """One waiting frame per camera; many readers, one taker."""

    def __init__(self, cameras: Iterable[str]) -> None:
        """The ring begins in the order of `cameras`."""
        self._waiting: dict[str, Frame | None] = dict.fromkeys(cameras)
        self._ring = list(self._waiting)
        self._dropped = dict.fromkeys(self._ring, 0)
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)

    def put(self, frame: Frame, *, wait: bool) -> bool:
        """Offer a frame.

        Args:
            frame: of one of the cameras.
            wait: True waits for the place to be free (files); False takes the place of an older frame (live).

        Returns:
            False when the exchange is closed, and the frame was not taken.
        """
        camera = frame.camera
        with self._filled:
            while wait and self._waiting[camera] is not None and not self._closed:
                self._emptied.wait()
            if self._closed:
                return False
            if self._waiting[camera] is not None:
                self._dropped[camera] += 1
            self._waiting[camera] = frame
            self._filled.notify()
        return True

    def take(self) -> Frame | None:
        """The next camera's frame, waiting for one; None when the exchange is closed."""
        with self._filled:
            while not self._closed:
                for index, camera in enumerate(self._ring):
                    frame = self._waiting[camera]
                    if frame is not None:
                        self._waiting[camera] = None
                        self._ring.append(self._ring.pop(index))
                        self._emptied.notify_all()
                        return frame
                self._filled.wait()
        return None

    def dropped(self, camera: str) -> int:
        """How many frames of a camera gave way to newer ones."""
        return self._dropped[camera]

    def is_waiting(self, camera: str) -> bool:
        """Whether a frame of this camera waits for the model."""
        return self._waiting[camera] is not None

    def close(self) -> None:
        """Let everyone go: `put` and `take` return at once from now on."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._emptied.notify_all()
