"""What the tests of the capture stage share: a clock they own, small videos, and collecting with a bound."""

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgevision.capture import opencv
from edgevision.capture.base import FrameSource, SourceContext, tell_nobody
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.types import Frame


class FakeClock:
    """Time that passes only by waiting, or when a test says so."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.waits_s: list[float] = []

    def time_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.waits_s.append(seconds)
            self.now_ns += max(0, round(seconds * 1e9))
        return event.is_set()


def picture(number: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A picture whose number can be read back from its grey level, through JPEG too: 4 levels apart, 60 of them."""
    return np.full((height, width, 3), 8 + 4 * (number % 60), np.uint8)


def number_of(image: np.ndarray) -> int:
    return round((float(image.mean()) - 8) / 4)


def write_avi(path: Path, count: int, fps: float = 25.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (160, 120))
    assert writer.isOpened()
    for number in range(count):
        writer.write(picture(number))
    writer.release()
    return path


def jpeg(image: np.ndarray) -> bytes:
    done, content = cv2.imencode(".jpg", image)
    assert done
    return content.tobytes()


def source(
    url: str | int,
    *,
    fps: float | None = None,
    clock: Clock = SYSTEM_CLOCK,
    idle: Callable[[str], None] = tell_nobody,
    **options: Any,
) -> FrameSource:
    context = SourceContext(camera="line-1", fps=fps, clock=clock, idle=idle)
    return opencv.create(opencv.Options(url=url, **options), context)


def take(frames: FrameSource, count: int) -> list[Frame]:
    """At most `count` frames; the source is closed afterwards."""
    iterator = frames.frames()
    try:
        return list(islice(iterator, count))
    finally:
        frames.close()
        iterator.close()  # type: ignore[attr-defined]
