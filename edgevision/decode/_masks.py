"""Masks of single objects from prototypes and coefficients (Bolya et al. 2019, YOLACT, arXiv:1904.02689), in frame pixels.

The network gives a few coarse maps for the whole picture, the prototypes, and for each object a coefficient for each of them:
where their weighted sum is above 0, there is the object. The sum is made only under the object's box, interpolated bilinearly
to frame pixels (half a pixel counts, as in torch's `interpolate(align_corners=False)`), and cut off at the box.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.decode._roles import one_picture
from edgevision.decode._scores import Layout
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import ImageTransform, Mask, Tensors, TensorSpec

MOST_PIXELS = 1 << 26
"""Of all masks of one picture together, 64 MiB: a model gone mad finds the whole of a large picture a hundred times."""


class MaskMaker:
    """Makes the masks of one picture's objects."""

    def __init__(self, family: str, spec: TensorSpec, layout: Layout) -> None:
        """Take the role `prototypes`: [1, maps, h, w], or [1, h, w, maps] with `channels_last`.

        Raises:
            ModelError: it is of another shape, or leaves its number of maps open.
        """
        shape = spec.shape
        self.maps = (shape[1] if layout == "channels_first" else shape[-1]) if len(shape) == 4 else -1
        if self.maps < 1 or shape[0] not in (1, -1) or 0 in shape:
            needed = "[1, maps, h, w]" if layout == "channels_first" else "[1, h, w, maps]"
            raise ModelError(
                f"decoder {family}: output {spec.name!r} (prototypes) is {list(shape)}; with `prototypes_layout: {layout}` "
                f"{needed} is needed"
            )
        self._spec = spec
        self._first = layout == "channels_first"

    def __call__(
        self, tensors: Tensors, coefficients: NDArray[np.float32], xyxy: NDArray[np.float32], transform: ImageTransform
    ) -> tuple[Mask | None, ...]:
        """The masks of n objects, most confident first; None for those behind which `MOST_PIXELS` are used up.

        Args:
            tensors: the model's outputs.
            coefficients: (n, maps)
            xyxy: (n, 4) in frame pixels, within the frame. A pixel belongs to a box that holds its left top corner.
            transform: how the frame became the input.

        Raises:
            ModelError: the prototypes have no size.
            InferenceError: they are no numbers.
        """
        prototypes = one_picture(tensors, self._spec)
        height, width = prototypes.shape[1:] if self._first else prototypes.shape[:2]
        if not height or not width:
            raise ModelError(
                f"output {self._spec.name!r} (prototypes) gave {list(prototypes.shape)}: there is nothing in it"
            )
        masks: list[Mask | None] = []
        room = MOST_PIXELS
        for row, edges in zip(coefficients, xyxy.tolist(), strict=True):
            left, top, right, bottom = (math.ceil(edge) for edge in edges)
            room -= (right - left) * (bottom - top)
            if room < 0:
                masks.append(None)
                continue
            x0, x1, columns = _places(left, right, 0, width, transform)
            y0, y1, rows = _places(top, bottom, 1, height, transform)
            window = self._real(prototypes[:, y0:y1, x0:x1] if self._first else prototypes[y0:y1, x0:x1])
            pixels: NDArray[np.bool_] = _spread(self._sums(row, window), rows, columns) > 0
            masks.append(Mask(pixels=pixels, left=left, top=top, frame_size=transform.frame_size))
        return tuple(masks)

    def _sums(self, row: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float32]:
        """(h, w) sums of a window of the prototypes; what is no number is no part of the object.

        Raises:
            InferenceError: the whole window is NaN, which must not read as "no pixel".
        """
        with np.errstate(invalid="ignore", over="ignore"):
            sums: NDArray[np.float32] = np.tensordot(row, window, axes=1) if self._first else window @ row
            if math.isfinite(sums.sum()):
                return sums
        if np.isnan(window).all():
            raise InferenceError(f"output {self._spec.name!r}: all prototypes are NaN: the model is broken")
        return np.nan_to_num(sums, nan=-1, posinf=1e30, neginf=-1e30)

    def _real(self, values: NDArray[Any]) -> NDArray[np.float32]:
        quantization = self._spec.quantization
        return values.astype(np.float32, copy=False) if quantization is None else dequantize(values, quantization)


def _places(first: int, behind: int, axis: int, cells: int, transform: ImageTransform) -> tuple[int, int, NDArray[Any]]:
    """Along one axis: the cells (from, behind) that pixels first to behind - 1 lie among, and where each lies from there on.

    A place is counted in cells; 0 is the centre of the first.
    """
    if behind <= first:
        return 0, 1, np.empty(0)
    given = (np.arange(first, behind) + 0.5) * transform.scale[axis] + transform.offset[axis]
    places = (given * (cells / transform.input_size[axis]) - 0.5).clip(0, cells - 1)
    low = int(places[0])
    return low, min(int(places[-1]) + 2, cells), places - low


def _spread(sums: NDArray[np.float32], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float32]:
    """Bilinear values at rows x columns of (h, w) sums.

    Columns by a product with their weights, while there are few rows; then whole rows are mixed: 1.1 ms for 700 x 700 pixels,
    where two products take 3.4 (one thread).
    """
    # A cell's weight falls from 1 at its centre to 0 at its neighbours' centres.
    weights = np.maximum(1 - np.abs(np.arange(sums.shape[1])[:, None] - columns), 0).astype(np.float32)
    wide = sums @ weights
    before = rows.astype(np.intp)
    upper: NDArray[np.float32] = wide.take(before, axis=0)
    mixed: NDArray[np.float32] = wide.take(np.minimum(before + 1, len(wide) - 1), axis=0)
    mixed -= upper
    mixed *= (rows - before).astype(np.float32)[:, None]
    mixed += upper
    return mixed
