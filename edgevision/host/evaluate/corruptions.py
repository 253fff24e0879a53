"""Spoiled pictures: what a dusty lens, a dying lamp or a thin cable does to a model.

The protocol is that of common corruptions (Hendrycks & Dietterich 2019, arXiv:1903.12261, ImageNet-C): five severities,
test pictures only. `blur` (their defocus), `noise` (their Gaussian), `bright`, `jpeg` and `fog` have their parameters;
`dark` and `occlusion`, which they have not, are ours and said so below. What is random is drawn from a seed and the picture's
name: a second run spoils every picture alike, and the severities differ in strength alone.

Their parameters are pixels of small pictures. Michaelis et al. 2019 (arXiv:1907.07484) use them unchanged on COCO, whose
shorter side is about 480; for larger pictures blur and noise grow with the picture, because a 3-pixel blur is gone when a
12-megapixel picture is fitted into a 416-pixel input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.errors import UsageError
from edgevision.registry import unknown_name

Image = NDArray[np.uint8]
"""(H, W, 3) BGR"""

SEVERITIES = (1, 2, 3, 4, 5)

_DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
"""ImageNet-C: radius of the disc and sigma of its soft edge, pixels."""
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
"""ImageNet-C: standard deviation, of a range of 1."""
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""ImageNet-C: added to HSV's value, of a range of 1."""
_JPEG = (25, 18, 15, 10, 7)
"""ImageNet-C: quality."""
_FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""ImageNet-C: thickness, and how fast the fog's detail fades from scale to scale."""
_EXPOSURE = (0.6, 0.45, 0.3, 0.2, 0.1)
"""Ours: share of the light that is left, in linear light."""
_COVERED = (0.05, 0.1, 0.2, 0.3, 0.4)
"""Ours, after Cutout (DeVries & Taylor 2017): share of the picture behind grey rectangles."""

_PLAIN_SIDE_PX = 480
_FOG_MAP_PX = 256


def names() -> tuple[str, ...]:
    """All corruptions, in the order of a report."""
    return tuple(_CORRUPTIONS)


def corrupt(image: Image, corruption: str, severity: int, *, seed: int = 0, name: str = "") -> Image:
    """A spoiled copy of a picture, of the same size.

    Args:
        image: (H, W, 3) BGR.
        corruption: one of `names()`.
        severity: 1 to 5.
        seed: of the whole run.
        name: the picture's, so that every picture is spoiled its own way.

    Raises:
        UsageError: there is no such corruption or severity.
    """
    if corruption not in _CORRUPTIONS:
        raise UsageError(unknown_name("corruption", corruption, names()))
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity}: must be 1 to 5")
    digest = hashlib.sha256(f"{seed}/{corruption}/{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return _CORRUPTIONS[corruption](image, severity - 1, rng)


def _growth(image: Image) -> float:
    """How much larger than the protocol's pictures this one is; 1 for those that are not."""
    return max(1.0, float(min(image.shape[:2])) / _PLAIN_SIDE_PX)


def _to_pixels(real: NDArray[np.floating]) -> Image:
    """Values of a range of 1 as pixels."""
    return np.asarray(np.clip(real, 0, 1) * 255 + 0.5, np.uint8)


def _blur(image: Image, level: int, _rng: np.random.Generator) -> Image:
    radius, soft = (value * _growth(image) for value in _DEFOCUS[level])
    reach = max(8, round(radius))  # ImageNet-C: a kernel of at least 17 pixels
    along = np.arange(-reach, reach + 1)
    disc = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float32)
    kernel = np.asarray(cv2.GaussianBlur(disc, (3, 3) if radius <= 8 else (5, 5), soft), np.float32)
    kernel /= kernel.sum()
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def _noise(image: Image, level: int, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    growth = _growth(image)
    grains = rng.standard_normal((round(height / growth), round(width / growth), 3), np.float32)
    if grains.shape != image.shape:
        grains = np.asarray(cv2.resize(grains, (width, height), interpolation=cv2.INTER_NEAREST), np.float32)
    return _to_pixels(image / np.float32(255) + grains * np.float32(_NOISE[level]))


def _bright(image: Image, level: int, _rng: np.random.Generator) -> Image:
    hsv = np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2HSV), np.float32)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + np.float32(_BRIGHTNESS[level]), 0, 1)
    return _to_pixels(np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.float32))


def _dark(image: Image, level: int, _rng: np.random.Generator) -> Image:
    # Pixels are gamma-coded (2.2): less light is a factor on pixel ** 2.2, so of its root on the pixel.
    table = _to_pixels(np.arange(256) / 255 * _EXPOSURE[level] ** (1 / 2.2))
    return np.asarray(cv2.LUT(image, table), np.uint8)


def _jpeg(image: Image, level: int, _rng: np.random.Generator) -> Image:
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG[level]])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def _fog(image: Image, level: int, rng: np.random.Generator) -> Image:
    thickness, fading = _FOG[level]
    height, width = image.shape[:2]
    side = max(height, width)
    cloud = cv2.resize(_plasma(rng, fading), (side, side), interpolation=cv2.INTER_LINEAR)[:height, :width]
    real = image / np.float32(255)
    brightest = float(real.max())
    return _to_pixels(
        (real + np.float32(thickness) * np.asarray(cloud)[:, :, None]) * (brightest / (brightest + thickness))
    )


def _plasma(rng: np.random.Generator, fading: float) -> NDArray[np.float32]:
    """A cloud, (256, 256) 0 to 1, by the diamond-square algorithm on a torus (Fournier, Fussell & Carpenter 1982)."""
    size = _FOG_MAP_PX
    cloud = np.zeros((size, size))
    step, wobble = size, 100.0

    def displaced(total: NDArray[np.float64]) -> NDArray[np.float64]:
        return total / 4 + wobble * rng.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        cloud[half::step, half::step] = displaced(pairs + np.roll(pairs, -1, axis=1))
        centres = cloud[half::step, half::step]
        cloud[::step, half::step] = displaced(
            centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        )
        cloud[half::step, ::step] = displaced(
            centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        )
        step, wobble = half, wobble / fading
    cloud -= cloud.min()
    return np.asarray(cloud / cloud.max(), np.float32)


def _occlusion(image: Image, level: int, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    covered: NDArray[np.bool_] = np.zeros((height, width), np.bool_)
    # Each rectangle is a tenth of each side or more, so that this ends; the last one may go a little over.
    while covered.mean() < _COVERED[level]:
        tall, wide = (max(1, round(side * rng.uniform(0.1, 0.25))) for side in (height, width))
        top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
        covered[top : top + tall, left : left + wide] = True
    spoiled = image.copy()
    spoiled[covered] = 127
    return spoiled


_CORRUPTIONS: Mapping[str, Callable[[Image, int, np.random.Generator], Image]] = {
    "blur": _blur,
    "noise": _noise,
    "dark": _dark,
    "bright": _bright,
    "jpeg": _jpeg,
    "fog": _fog,
    "occlusion": _occlusion,
}
