"""Measures of one picture that tell whether its camera can be trusted: pure functions, cheap enough for every frame.

Brightness and sameness are taken from a few whole rows spread over the picture (a copy of some 170 KB at 1280x720);
sharpness from a smaller grey picture, and only now and then, because focus is lost slowly.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_ROWS = 45
_SHARPNESS_WIDTH_PX = 640
_LEAST_VARIANCE = 4.0
"""Grey levels squared: an evenly grey picture has nothing in it that could be sharp."""


def sample_rows(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Up to 45 rows of a (H, W, 3) picture, evenly spread: a (R, W, 3) copy that outlives the picture."""
    step = max(1, image.shape[0] // _ROWS)
    return np.ascontiguousarray(image[step // 2 :: step][:_ROWS]) if step > 1 else image[:_ROWS].copy()


def shares(rows: NDArray[np.uint8], *, dark_level: int, bright_level: int) -> tuple[float, float]:
    """The share of pixels at or below `dark_level`, and at or above `bright_level` (grey levels, 0 to 255)."""
    histogram = cv2.calcHist([cv2.cvtColor(rows, cv2.COLOR_BGR2GRAY)], [0], None, [256], [0, 256]).ravel()
    total = float(histogram.sum())
    return float(histogram[: dark_level + 1].sum()) / total, float(histogram[bright_level:].sum()) / total


def difference(rows: NDArray[np.uint8], before: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two samples in grey levels, 0 only where they are the same; infinite for other sizes."""
    if rows.shape != before.shape:
        return float("inf")
    return float(cv2.norm(rows, before, cv2.NORM_L1)) / rows.size


def sharpness(image: NDArray[np.uint8]) -> float | None:
    """How sharp a (H, W, 3) picture is, for comparison with itself at another time; None where it shows nothing.

    The variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000) of the grey
    picture, halved until it is at most 640 pixels wide, by the picture's own variance: dimmed light leaves it as it is.
    """
    # Halving is exact, and costs a tenth of what any other size does.
    while image.shape[1] > _SHARPNESS_WIDTH_PX and image.shape[0] > 1:
        size = (image.shape[1] // 2, image.shape[0] // 2)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    variance = float(cv2.meanStdDev(grey)[1].item()) ** 2
    if variance < _LEAST_VARIANCE:
        return None
    # The Laplacian's mean is 0 but for the edges of the picture: its mean square is its variance.
    return float(cv2.norm(cv2.Laplacian(grey, cv2.CV_16S), cv2.NORM_L2SQR)) / grey.size / variance
