"""A camera without a camera: coloured shapes on the move and a frame counter, the same everywhere for the same seed.

For tests, demonstrations and a first run; also to measure what the rest of the house costs, with a source that costs
little.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.capture._pacing import NS_PER_S, Pacer
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.types import Frame

_DEFAULT_FPS = 30.0
_SHAPES = 4


class Options(registry.Options):
    """How the pictures look and how many come."""

    width: int = Field(640, ge=16, le=8192)
    """Pixels."""
    height: int = Field(480, ge=16, le=8192)
    """Pixels."""
    frames: int | None = Field(None, ge=1)
    """How many; None is endless."""
    seed: int = Field(0, ge=0)
    """Decides colours, sizes and ways."""
    live: bool = False
    """Whether to pass for a camera (newest wins) or for a file (waits for its reader)."""
    pace: Literal["realtime", "max"] = "realtime"
    """At the camera's `fps` (30 without it), or as fast as frames are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """A disc or a square that bounces between the edges."""

    disc: bool
    color_bgr: tuple[int, int, int]
    half_px: int
    start_px: tuple[int, int]
    step_px: tuple[int, int]
    """Movement a frame along x and y."""


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source."""
    return SyntheticSource(options, context)


class SyntheticSource:
    """Draws its frames; frame n of a seed and size is always the same picture."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Choose the shapes."""
        self._options = options
        self._context = context
        self._closing = threading.Event()
        self._shapes = _shapes(options)

    @property
    def unreadable(self) -> int:
        """0: every frame is drawn."""
        return 0

    @property
    def live(self) -> bool:
        """As set in the options."""
        return self._options.live

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures; see the protocol."""
        clock, fps = self._context.clock, self._context.fps or _DEFAULT_FPS
        pacer = Pacer(clock, self._closing) if self._options.pace == "realtime" else None
        sequence = 0
        while not self._closing.is_set() and sequence != self._options.frames:
            if pacer is not None and not pacer.wait_for(round(sequence * NS_PER_S / fps)):
                return
            time_ns, mono_ns = clock.time_ns(), clock.monotonic_ns()
            yield Frame(
                image=self.draw(sequence),
                camera=self._context.camera,
                sequence=sequence,
                captured_at_ns=time_ns,
                captured_mono_ns=mono_ns,
            )
            sequence += 1

    def close(self) -> None:
        """Stop `frames()`."""
        self._closing.set()

    def draw(self, number: int) -> NDArray[np.uint8]:
        """The picture of this number: (H, W, 3) BGR."""
        width, height = self._options.width, self._options.height
        image = np.full((height, width, 3), 96, np.uint8)
        for shape in self._shapes:
            x = _bounce(shape.start_px[0] + number * shape.step_px[0], shape.half_px, width - shape.half_px)
            y = _bounce(shape.start_px[1] + number * shape.step_px[1], shape.half_px, height - shape.half_px)
            if shape.disc:
                cv2.circle(image, (x, y), shape.half_px, shape.color_bgr, cv2.FILLED)
            else:
                half = shape.half_px
                cv2.rectangle(image, (x - half, y - half), (x + half - 1, y + half - 1), shape.color_bgr, cv2.FILLED)
        cv2.putText(image, f"{number:06d}", (4, height - 6), cv2.FONT_HERSHEY_PLAIN, 1.0, (255, 255, 255))
        return image


def _shapes(options: Options) -> tuple[_Shape, ...]:
    random = np.random.default_rng(options.seed)
    sides = np.array([options.width, options.height])
    shapes = []
    for index in range(_SHAPES):
        half_px = max(2, int(sides.min() * random.uniform(0.05, 0.12)))
        color = random.permutation([int(random.integers(0, 64)), int(random.integers(64, 192)), 255])
        start, step = random.integers(half_px, sides - half_px), random.integers(1, 6, 2)
        shapes.append(
            _Shape(
                disc=index % 2 == 0,
                color_bgr=(int(color[0]), int(color[1]), int(color[2])),
                half_px=half_px,
                start_px=(int(start[0]), int(start[1])),
                step_px=(int(step[0]), int(step[1])),
            )
        )
    return tuple(shapes)


def _bounce(position: int, low: int, high: int) -> int:
    """A position that runs to and fro between `low` and `high`."""
    span = max(1, high - low)
    offset = (position - low) % (2 * span)
    return low + (offset if offset <= span else 2 * span - offset)
