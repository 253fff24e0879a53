"""The picture that a benchmark looks at: made of the package's own photos, so that it is the same on every machine."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import edgevision
from edgevision.capture.images import read_image
from edgevision.drawing import encode_jpeg
from edgevision.errors import UsageError
from edgevision.types import Frame

_PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"
MIN_SIDE_PX, MAX_SIDE_PX = 16, 16384


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels from `1280x720`; raises UsageError."""
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip())
    if found is None:
        raise UsageError(f"--input-size: found {text!r}; write the camera's width and height as 1280x720")
    width, height = int(found[1]), int(found[2])
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        raise UsageError(f"--input-size: found {text!r}; each side must be {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels")
    return width, height


def scene(width: int, height: int) -> NDArray[np.uint8]:
    """The photos side by side, (height, width, 3) BGR."""
    files = sorted(_PHOTOS.glob("*.jpg"))
    strips = [cv2.resize(read_image(file), (width // len(files) + 1, height)) for file in files]
    return np.ascontiguousarray(np.hstack(strips)[:, :width]).astype(np.uint8)


def scene_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture as an MJPEG camera would send it, (n,) bytes."""
    return np.frombuffer(encode_jpeg(image, 90), np.uint8)


def frame_of(image: NDArray[np.uint8], *, time_ns: int, mono_ns: int) -> Frame:
    """A camera's frame that was taken at the given times."""
    return Frame(image=image, camera="bench", sequence=0, captured_at_ns=time_ns, captured_mono_ns=mono_ns)
