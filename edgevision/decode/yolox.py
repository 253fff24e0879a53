"""YOLOX: one tensor of undecoded boxes on three grids, objectness and class scores.

A row is (x, y, w, h, objectness, class scores ...). The box of grid cell (gx, gy) with stride s has its centre at ((x +
gx) * s, (y + gy) * s) and is exp(w) * s wide and exp(h) * s high (Ge et al. 2021, arXiv:2107.08430, and the authors'
`demo_postprocess`); its confidence is objectness times the best class score.

Nearly all rows are background. So only objectness is compared for all of them, in the tensor's own type; everything
else, dequantisation included, is done for the few that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.decode._detections import finish, lowest_confidence, nothing
from edgevision.decode._roles import check_labels, take_roles
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.geometry import cxcywh_to_xyxy
from edgevision.quantization import dequantize, quantized_threshold
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec

_BOX, _OBJECTNESS = 4, 5
"""Columns of a row before its class scores: the box, then objectness."""


class Options(registry.Options):
    """The network's grids."""

    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(8, 16, 32), min_length=1)
    """Input pixels per cell of each grid, in the order of the rows."""
    multi_label: bool = False
    """Whether one row may be several classes at once. False, as in the authors' own evaluation: an object has one
    class. True gives a slightly higher AP at very low thresholds (YOLOX-nano: 0.288 against 0.283), and two results for
    one object."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the role `predictions`, [1, rows, 5 + classes].

    Raises:
        ModelError: the role is missing, or its shape, type or activation does not fit.
    """
    (spec,) = take_roles("yolox", outputs, ("predictions",))
    if len(spec.shape) != 3 or spec.shape[0] not in (1, -1):
        raise ModelError(
            f"decoder yolox: output {spec.name!r} (predictions) is {list(spec.shape)}; [1, rows, 5 + classes] is needed"
        )
    if context.activation == "softmax":
        raise ModelError("decoder yolox: activation softmax does not belong to this family; use sigmoid or none")
    if spec.shape[2] != -1:
        check_labels("yolox", spec, spec.shape[2] - _OBJECTNESS, context)
    return _Yolox(options, spec, context)


class _Yolox:
    """A `Decoder`."""

    def __init__(self, options: Options, spec: TensorSpec, context: DecodeContext) -> None:
        self._strides = options.strides
        self._multi_label = options.multi_label
        self._spec = spec
        self._context = context
        self._sigmoid = context.activation == "sigmoid"
        floor = lowest_confidence(context)
        if self._sigmoid:
            floor = _logit(floor)
        # Confidence is objectness times class score and neither is above 1: both must reach the lowest threshold.
        self._floor: float = (
            floor if spec.quantization is None else quantized_threshold(floor, spec.quantization, spec.dtype)
        )
        self._grid_size: tuple[int, int] | None = None
        self._cells: NDArray[np.float32]
        self._cell_strides: NDArray[np.float32]

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the number of rows is not that of the input size's grid cells.
            InferenceError: the model gives no numbers.
        """
        rows = tensors[self._spec.name][0]
        if transform.input_size != self._grid_size:
            self._make_grid(transform.input_size)
        if len(rows) != len(self._cells):
            raise ModelError(self._misfit(len(rows), transform.input_size))
        objectness = rows[:, _BOX]
        survivors = np.flatnonzero(objectness >= self._floor)
        if not survivors.size:
            self._refuse_nan(objectness)
            return nothing(self._context)
        candidates = rows[survivors]
        scores = candidates[:, _OBJECTNESS:]
        if self._multi_label:
            row, class_id = np.nonzero(scores >= self._floor)
        else:
            best = scores.argmax(axis=1)
            row = np.flatnonzero(scores[np.arange(len(best)), best] >= self._floor)
            class_id = best[row]
        if not row.size:
            self._refuse_nan(scores)
            return nothing(self._context)
        survivors, candidates = survivors[row], candidates[row]
        confidence = self._score(candidates[:, _BOX]) * self._score(scores[row, class_id])
        return finish(
            self._boxes(self._real(candidates[:, :_BOX]), survivors),
            confidence,
            class_id,
            context=self._context,
            transform=transform,
        )

    def _refuse_nan(self, scores: NDArray[Any]) -> None:
        """A model whose scores are all NaN has not looked, which must not read as "nothing found"."""
        if np.isnan(scores).all():
            raise InferenceError(f"output {self._spec.name!r}: all scores are NaN: the model is broken")

    def _real(self, values: NDArray[Any]) -> NDArray[Any]:
        quantization = self._spec.quantization
        return values.astype(np.float32) if quantization is None else dequantize(values, quantization)

    def _score(self, values: NDArray[Any]) -> NDArray[Any]:
        real = self._real(values)
        return 1 / (1 + np.exp(-real.clip(-80, 80))) if self._sigmoid else real

    def _boxes(self, raw: NDArray[Any], survivors: NDArray[np.intp]) -> NDArray[Any]:
        """(n, 4) of the network as corner boxes in input pixels."""
        strides = self._cell_strides[survivors]
        with np.errstate(over="ignore", invalid="ignore"):  # a size without measure becomes infinite and is dropped
            centre = (raw[:, :2] + self._cells[survivors]) * strides
            size = np.exp(raw[:, 2:]) * strides
            return cxcywh_to_xyxy(np.concatenate((centre, size), axis=1))

    def _make_grid(self, input_size: tuple[int, int]) -> None:
        """Cells (rows, 2) as x, y, and their strides (rows, 1), for an input of width, height."""
        width, height = input_size
        cells, strides = [], []
        for stride in self._strides:
            y, x = np.mgrid[0 : height // stride, 0 : width // stride]
            cells.append(np.stack((x.ravel(), y.ravel()), axis=1))
            strides.append(np.full((x.size, 1), stride))
        self._cells = np.concatenate(cells).astype(np.float32)
        self._cell_strides = np.concatenate(strides).astype(np.float32)
        self._grid_size = input_size

    def _misfit(self, rows: int, input_size: tuple[int, int]) -> str:
        grids = " + ".join(f"{input_size[0] // stride}x{input_size[1] // stride}" for stride in self._strides)
        return (
            f"decoder yolox: output {self._spec.name!r} has {rows} rows, but strides {list(self._strides)} on an input "
            f"of {input_size[0]}x{input_size[1]} make {grids} = {len(self._cells)} cells; mend `strides` or the "
            "input size"
        )


def _logit(probability: float) -> float:
    """The raw score whose sigmoid is `probability`."""
    if probability <= 0:
        return -math.inf
    if probability >= 1:
        return math.inf
    return math.log(probability / (1 - probability))
