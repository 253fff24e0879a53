"""A camera hangs as it hangs: turned, mirrored, and seeing more than matters. Put right here, once, for every source.

Wrapped around a source, so that no source has to know of it. Results are in pixels of the turned picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.capture.base import FrameSource
from edgevision.errors import CaptureError
from edgevision.types import BoxXyxy, Frame

Rotation: TypeAlias = Literal[0, 90, 180, 270]
"""Degrees clockwise."""
Flip: TypeAlias = Literal["none", "horizontal", "vertical", "both"]
"""`horizontal` swaps left and right, `vertical` top and bottom."""

_Turn: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def _flip(code: int) -> _Turn:
    return lambda image: cast("NDArray[np.uint8]", cv2.flip(image, code))


def _rotate(code: int) -> _Turn:
    return lambda image: cast("NDArray[np.uint8]", cv2.rotate(image, code))


def _transpose(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cast("NDArray[np.uint8]", cv2.transpose(image))


def _transpose_other(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror at the other diagonal."""
    return cast("NDArray[np.uint8]", cv2.flip(cv2.transpose(image), -1))


_HORIZONTAL, _VERTICAL, _HALF_TURN = _flip(1), _flip(0), _flip(-1)
_RIGHT, _LEFT = _rotate(cv2.ROTATE_90_CLOCKWISE), _rotate(cv2.ROTATE_90_COUNTERCLOCKWISE)

# Turning and then mirroring is always one of eight operations: one pass over the pixels in place of two.
_TURNS: dict[tuple[int, str], _Turn | None] = {
    (0, "none"): None, (0, "horizontal"): _HORIZONTAL, (0, "vertical"): _VERTICAL, (0, "both"): _HALF_TURN,
    (90, "none"): _RIGHT, (90, "horizontal"): _transpose, (90, "vertical"): _transpose_other, (90, "both"): _LEFT,
    (180, "none"): _HALF_TURN, (180, "horizontal"): _VERTICAL, (180, "vertical"): _HORIZONTAL, (180, "both"): None,
    (270, "none"): _LEFT, (270, "horizontal"): _transpose_other, (270, "vertical"): _transpose, (270, "both"): _RIGHT,
}  # fmt: skip


class Oriented:
    """A source whose pictures are turned, then mirrored, then given a region of interest."""

    def __init__(
        self,
        source: FrameSource,
        *,
        rotation: Rotation = 0,
        flip: Flip = "none",
        roi: tuple[float, float, float, float] | None = None,
    ) -> None:
        """Wrap `source`.

        Args:
            source: where the frames come from.
            rotation: degrees clockwise.
            flip: applied after the rotation.
            roi: xyxy in the picture as it then is: fractions of it where all four are at most 1, pixels otherwise.
        """
        self._source = source
        self._turn = _TURNS[rotation, flip]
        self._roi = roi

    @property
    def live(self) -> bool:
        """As the wrapped source."""
        return self._source.live

    @property
    def unreadable(self) -> int:
        """As the wrapped source."""
        return self._source.unreadable

    def frames(self) -> Iterator[Frame]:
        """The wrapped source's frames, put right.

        Raises:
            CaptureError: the source failed, or the region of interest does not lie in the picture.
        """
        if self._turn is None and self._roi is None:
            yield from self._source.frames()
            return
        box: BoxXyxy | None = None
        box_shape: tuple[int, ...] = ()
        for frame in self._source.frames():
            image = frame.image if self._turn is None else self._turn(frame.image)
            if self._roi is not None and image.shape != box_shape:
                box, box_shape = roi_xyxy(self._roi, width_px=image.shape[1], height_px=image.shape[0]), image.shape
            yield replace(frame, image=image, roi=box)

    def close(self) -> None:
        """Close the wrapped source."""
        self._source.close()


def roi_xyxy(roi: tuple[float, float, float, float], *, width_px: int, height_px: int) -> BoxXyxy:
    """A region of interest in whole pixels of a picture of this size.

    Args:
        roi: left, top, right, bottom: fractions of the picture where all four are at most 1, pixels otherwise.
        width_px: of the picture.
        height_px: of the picture.

    Raises:
        CaptureError: it does not lie in the picture, or has no area.
    """
    fractions = max(roi) <= 1
    scale = (width_px, height_px, width_px, height_px) if fractions else (1, 1, 1, 1)
    if not all(np.isfinite(roi)):
        raise CaptureError(f"roi {list(roi)}: give four numbers: left, top, right, bottom")
    left, top, right, bottom = (round(value * side) for value, side in zip(roi, scale, strict=True))
    if 0 <= left < right <= width_px and 0 <= top < bottom <= height_px:
        return left, top, right, bottom
    raise CaptureError(
        f"roi {list(roi)} does not fit the picture of {width_px}x{height_px} pixels: give left < right <= "
        f"{'1' if fractions else width_px} and top < bottom <= {'1' if fractions else height_px}"
    )
