"""YOLOX: one tensor of undecoded boxes on three grids, objectness and class scores.

A row is (x, y, w, h, objectness, class scores ...). The box of grid cell (gx, gy) with stride s has its centre at ((x +
gx) * s, (y + gy) * s) and is exp(w) * s wide and exp(h) * s high (Ge et al. 2021, arXiv:2107.08430, and the authors'
`demo_postprocess`); its confidence is objectness times the best class score.

Nearly all rows are background. So only objectness is compared for all of them, in the tensor's own type; everything
else, dequantisation included, is done for the few that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.decode._detections import Finisher, lowest_confidence, nothing, wanted
from edgevision.decode._roles import check_labels, take_roles
from edgevision.decode._scores import EVALUATION_CONFIDENCE, logit, sigmoid
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.geometry import FEW
from edgevision.quantization import dequantize, quantized_threshold
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec

_BOX, _OBJECTNESS = 4, 5
"""Columns of a row before its class scores: the box, then objectness."""
_LARGEST_EXPONENT = 88.0
"""exp(x) of anything larger is no float32."""


class Options(registry.Options):
    """The network's grids."""

    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(8, 16, 32), min_length=1)
    """Input pixels per cell of each grid, in the order of the rows."""
    multi_label: bool | None = None
    """Whether one row may be several classes at once. False: an object has one class. True: every class that reaches the
    threshold is a result of its own, which an evaluation wants (YOLOX-nano: AP 0.288 against 0.283) and a machine does not.
    None: True where the confidence threshold is below 0.05, which only an evaluation sets."""


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
        automatic = context.confidence < EVALUATION_CONFIDENCE
        self._multi_label = automatic if options.multi_label is None else options.multi_label
        self._finish = Finisher(context)
        self._spec = spec
        self._context = context
        self._sigmoid = context.activation == "sigmoid"
        floor = lowest_confidence(context)
        if self._sigmoid:
            floor = logit(floor)
        # Confidence is objectness times class score and neither is above 1: both must reach the lowest threshold.
        self._floor: float = (
            floor if spec.quantization is None else quantized_threshold(floor, spec.quantization, spec.dtype)
        )
        self._grid_size: tuple[int, int] | None = None
        self._grid: NDArray[np.float32]
        """(rows, 6): the cell's corner x, y in input pixels; its stride, twice; half its stride, twice."""
        self._first_scores: NDArray[np.intp]
        """(rows,) where each row's first class score stands, counted through all rows."""

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the number of rows is not that of the input size's grid cells.
            InferenceError: the model gives no numbers.
        """
        rows = tensors[self._spec.name][0]
        if transform.input_size != self._grid_size:
            self._make_grid(transform.input_size, rows.shape[1])
        if len(rows) != len(self._grid):
            raise ModelError(self._misfit(len(rows), transform.input_size))
        objectness = rows[:, _BOX]
        survivors = (objectness >= self._floor).nonzero()[0]
        if not survivors.size:
            self._refuse_nan(objectness)
            return nothing(self._context)
        candidates = rows.take(survivors, axis=0)
        scores = candidates[:, _OBJECTNESS:]
        if self._multi_label:
            row, class_id = np.nonzero(scores >= self._floor)
            survivors, candidates, best = survivors[row], candidates[row], scores[row, class_id]
        else:
            class_id = scores.argmax(axis=1)
            best = candidates.take(
                self._first_scores[: len(class_id)] + class_id
            )  # sooner than a search for the maximum
        confidence = self._score(candidates[:, _BOX]) * self._score(best)
        keep = wanted(confidence, class_id, self._context)
        if not keep.size:
            self._refuse_nan(scores)
            return nothing(self._context)
        raw = self._real(candidates.take(keep, axis=0)[:, :_BOX])
        rows, confidence, class_id = survivors.take(keep), confidence.take(keep), class_id.take(keep)
        if len(raw) > FEW:
            return self._finish(self._boxes(raw, rows), confidence, class_id, transform)
        cells = self._grid.take(rows, axis=0).tolist()
        plain = [_box(one, cell) for one, cell in zip(raw.tolist(), cells, strict=True)]
        return self._finish.of_few(plain, confidence.tolist(), class_id.tolist(), transform)[0]

    def _refuse_nan(self, scores: NDArray[Any]) -> None:
        """A model whose scores are all NaN has not looked, which must not read as "nothing found"."""
        if np.isnan(scores).all():
            raise InferenceError(f"output {self._spec.name!r}: all scores are NaN: the model is broken")

    def _real(self, values: NDArray[Any]) -> NDArray[Any]:
        quantization = self._spec.quantization
        return values.astype(np.float32, copy=False) if quantization is None else dequantize(values, quantization)

    def _score(self, values: NDArray[Any]) -> NDArray[Any]:
        real = self._real(values)
        return sigmoid(real) if self._sigmoid else real

    def _boxes(self, raw: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
        """(n, 4) of the network as corner boxes in input pixels."""
        grid = self._grid.take(rows, axis=0)
        boxes = np.empty((len(raw), 4), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # a size without measure becomes infinite and is dropped
            centre = raw[:, :2] * grid[:, 2:4]
            centre += grid[:, :2]
            half = np.exp(raw[:, 2:])
            half *= grid[:, 4:]
            np.subtract(centre, half, out=boxes[:, :2])
            np.add(centre, half, out=boxes[:, 2:])
        return boxes

    def _make_grid(self, input_size: tuple[int, int], columns: int) -> None:
        """The grid for an input of width, height."""
        width, height = input_size
        parts = []
        for stride in self._strides:
            y, x = np.mgrid[0 : height // stride, 0 : width // stride]
            steps = np.full((x.size, 2), stride)
            parts.append(np.hstack((np.stack((x.ravel(), y.ravel()), axis=1) * stride, steps, steps / 2)))
        self._grid = np.concatenate(parts).astype(np.float32)
        self._grid_size = input_size
        self._first_scores = np.arange(len(self._grid)) * columns + _OBJECTNESS

    def _misfit(self, rows: int, input_size: tuple[int, int]) -> str:
        grids = " + ".join(f"{input_size[0] // stride}x{input_size[1] // stride}" for stride in self._strides)
        return (
            f"decoder yolox: output {self._spec.name!r} has {rows} rows, but strides {list(self._strides)} on an input "
            f"of {input_size[0]}x{input_size[1]} make {grids} = {len(self._grid)} cells; mend `strides` or the "
            "input size"
        )


def _box(raw: Sequence[float], cell: Sequence[float]) -> tuple[float, float, float, float]:
    """One row of the network and its row of the grid as a corner box in input pixels."""
    x, y, w, h = raw
    left, top, stride, _, half, _ = cell
    centre_x, centre_y = x * stride + left, y * stride + top
    # Not a number, or without measure: infinite, and dropped.
    half_w = math.exp(w) * half if w <= _LARGEST_EXPONENT else math.inf
    half_h = math.exp(h) * half if h <= _LARGEST_EXPONENT else math.inf
    return centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h
