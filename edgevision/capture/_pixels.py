"""A `Frame` holds (H, W, 3) uint8 BGR and nothing else; whatever else cameras and files give is brought there here."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.errors import CaptureError


def as_bgr8(image: NDArray[Any], *, source: str) -> NDArray[np.uint8]:
    """Bring a picture to (H, W, 3) uint8 BGR, C-contiguous; the picture itself where it is that already.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; uint8, or uint16 of which the high byte is kept.
        source: for the message.

    Raises:
        CaptureError: any other shape or dtype, or no pixel at all.
    """
    if image.ndim not in {2, 3} or image.size == 0 or image.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise CaptureError(
            f"{source} gives pictures of shape {image.shape} and type {image.dtype}, which are not understood; "
            f"set the camera to a colour or grey format of 8 or 16 bits"
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    elif channels == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    elif channels != 3:
        raise CaptureError(f"{source} gives pictures of {channels} channels; 1, 3 or 4 are understood")
    return cast("NDArray[np.uint8]", np.ascontiguousarray(image))
