"""EfficientDet with bare heads: class scores and box codes for the anchors of five grids.

With its post-processing inside the model, as TensorFlow Lite files have it, the family is `ssd`.

Each cell of a grid has `scales` x `aspect_ratios` anchors around its centre, scale by scale. An anchor's side is `anchor_scale`
strides times 2^(scale / scales), times the aspect. A code is (y, x, h, w): the centre moves by y anchor heights and x anchor
widths, and the sides are exp(h) and exp(w) times the anchor's. Sources: Tan et al. 2020 (arXiv:1911.09070); `anchors.py` of
google/automl's efficientdet, which effdet's follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.decode._detections import Finisher, nothing
from edgevision.decode._roles import check_labels, take_roles
from edgevision.decode._scores import Channels, ScoreFinder
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import ModelError
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec

_Positive = Annotated[float, Field(gt=0, le=1000)]


class Options(registry.Options):
    """The network's anchors."""

    levels: tuple[Annotated[int, Field(ge=1, le=12)], ...] = Field(default=(3, 4, 5, 6, 7), min_length=1)
    """The grids: a cell of level l is 2^l input pixels wide, or what the rounded-up halving of the input gives."""
    anchor_scale: _Positive = 4.0
    """Sides of an anchor by strides: 4 for D0 to D7, Lite3 and Lite4; 3 for Lite0, Lite1, Lite2."""
    scales: Annotated[int, Field(ge=1, le=10)] = 3
    """How many sizes of anchor, evenly spread over an octave."""
    aspect_ratios: tuple[tuple[_Positive, _Positive], ...] = Field(
        default=((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)), min_length=1
    )
    """Factors of width and height."""
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    """Of outputs that are one for each grid: cells first, as TensorFlow and TFLite have it, or channels first (torch)."""
    box_scales: tuple[_Positive, _Positive, _Positive, _Positive] = (1.0, 1.0, 1.0, 1.0)
    """What y, x, h, w are divided by; 10, 10, 5, 5 in SSDs of TensorFlow's detection API."""
    multi_label: bool | None = None
    """Whether one anchor may be several classes at once; None: True where the confidence threshold is below 0.05."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of `boxes` [1, anchors, 4] and `scores` [1, anchors, classes], all grids in one.

    Or of `boxes_3`, `scores_3`, `boxes_4` ..., one output for each grid: [1, height, width, anchors of a cell * channels], or
    [1, anchors of a cell * channels, height, width].

    Raises:
        ModelError: a role is missing, or its shape, type, labels or the activation does not fit.
    """
    if context.activation == "softmax":
        raise ModelError("decoder efficientdet: activation softmax does not belong to this family; use sigmoid or none")
    split = [f"{name}_{level}" for name in ("boxes", "scores") for level in options.levels]
    if any(role in outputs for role in split):
        specs = take_roles("efficientdet", outputs, tuple(split))
        pairs = zip(options.levels, specs[: len(options.levels)], specs[len(options.levels) :], strict=True)
        heads = [head for level, boxes, scores in pairs for head in _of_grid(options, level, boxes, scores, context)]
    else:
        boxes, scores = take_roles("efficientdet", outputs, ("boxes", "scores"))
        _check_channels("boxes", boxes, "[1, anchors, 4]", boxes.shape[-1] == 4 and len(boxes.shape) == 3)
        _check_channels("scores", scores, "[1, anchors, classes]", len(scores.shape) == 3)
        check_labels("efficientdet", scores, scores.shape[2], context)
        heads = [_Head(options, _Anchors(options), boxes, scores, context)]
    return _EfficientDet(heads, context)


def _of_grid(
    options: Options, level: int, boxes: TensorSpec, scores: TensorSpec, context: DecodeContext
) -> list[_Head]:
    """The heads of one grid: one where the anchors of a cell lie side by side, one for each where channels come first."""
    per_cell = options.scales * len(options.aspect_ratios)
    axis = 1 if options.layout == "NCHW" else 3
    wanted = f"[1, {per_cell} * channels, height, width]" if axis == 1 else f"[1, height, width, {per_cell} * channels]"
    _check_channels(f"boxes_{level}", boxes, wanted, len(boxes.shape) == 4 and boxes.shape[axis] == per_cell * 4)
    _check_channels(f"scores_{level}", scores, wanted, len(scores.shape) == 4 and scores.shape[axis] % per_cell == 0)
    classes = scores.shape[axis] // per_cell
    check_labels("efficientdet", scores, classes, context)
    if axis == 3:
        return [_Head(options, _Anchors(options, level=level), boxes, scores, context, per_cell=per_cell)]
    return [
        _Head(
            options,
            _Anchors(options, level=level, anchor=anchor),
            boxes,
            scores,
            context,
            boxes_part=slice(anchor * 4, anchor * 4 + 4),
            scores_part=slice(anchor * classes, (anchor + 1) * classes),
        )
        for anchor in range(per_cell)
    ]


def _check_channels(role: str, spec: TensorSpec, wanted: str, fits: bool) -> None:
    if not fits:
        raise ModelError(
            f"decoder efficientdet: output {spec.name!r} ({role}) is {list(spec.shape)}; {wanted} is needed; mend the role, "
            "`layout`, `scales` or `aspect_ratios`"
        )


class _Side(Channels):
    """Channels last, the anchors of a cell one behind the other."""

    def __init__(self, role: str, spec: TensorSpec, per_cell: int) -> None:
        super().__init__("efficientdet", role, spec, "channels_last")
        self._per_cell = per_cell

    def whole(self, tensors: Tensors) -> NDArray[Any]:
        """(anchors, channels): cell by cell, and in each cell anchor by anchor; no copy."""
        cells = super().whole(tensors)
        return cells.reshape(len(cells) * self._per_cell, -1)


class _Anchors:
    """The anchors that a head answers for, of the input size at hand."""

    def __init__(self, options: Options, *, level: int | None = None, anchor: int | None = None) -> None:
        self._options = options
        self._levels = options.levels if level is None else (level,)
        self._anchor = anchor
        self._size: tuple[int, int] | None = None
        self._table: NDArray[np.float32]

    def __call__(self, input_size: tuple[int, int]) -> NDArray[np.float32]:
        """(anchors, 4) centre y, centre x, height, width in input pixels, for an input of width, height."""
        if input_size != self._size:
            tables = [self._of_level(level, input_size) for level in self._levels]
            chosen = tables if self._anchor is None else [table[:, self._anchor] for table in tables]
            self._table = np.concatenate([table.reshape(-1, 4) for table in chosen]).astype(np.float32)
            self._size = input_size
        return self._table

    def _of_level(self, level: int, input_size: tuple[int, int]) -> NDArray[np.float64]:
        """Anchors of one grid: (cells, anchors of a cell, 4)."""
        options = self._options
        columns, rows = (_halved(side, level) for side in input_size)
        stride_x, stride_y = input_size[0] / columns, input_size[1] / rows
        octaves = 2.0 ** (np.arange(options.scales) / options.scales)
        sizes = [
            (options.anchor_scale * stride_y * octave * high, options.anchor_scale * stride_x * octave * wide)
            for octave in octaves
            for wide, high in options.aspect_ratios
        ]
        y, x = np.mgrid[0:rows, 0:columns]
        centres = np.stack(((y.ravel() + 0.5) * stride_y, (x.ravel() + 0.5) * stride_x), axis=1)
        table = np.empty((len(centres), len(sizes), 4))
        table[..., :2] = centres[:, None]
        table[..., 2:] = sizes
        return table


def _halved(side: int, times: int) -> int:
    for _ in range(times):
        side = (side + 1) // 2
    return side


class _Head:
    """One pair of outputs, or a part of it."""

    def __init__(
        self,
        options: Options,
        anchors: _Anchors,
        boxes: TensorSpec,
        scores: TensorSpec,
        context: DecodeContext,
        *,
        per_cell: int = 1,
        boxes_part: slice | None = None,
        scores_part: slice | None = None,
    ) -> None:
        """The parts are those of the channels; where they are given, channels come first."""
        if boxes_part is None or scores_part is None:
            self._boxes: Channels = _Side("boxes", boxes, per_cell)
            channels: Channels = _Side("scores", scores, per_cell)
        else:
            self._boxes = Channels("efficientdet", "boxes", boxes, "channels_first", boxes_part)
            channels = Channels("efficientdet", "scores", scores, "channels_first", scores_part)
        self._scores = channels
        self._find = ScoreFinder(channels, context, multi_label=options.multi_label)
        self._anchors = anchors
        self._scale = np.array(options.box_scales, np.float32)

    def __call__(
        self, tensors: Tensors, input_size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.intp]]:
        """Corner boxes in input pixels, confidence and class of the candidates.

        Raises:
            ModelError: the output has not as many rows as there are anchors.
            InferenceError: the model gives no numbers.
        """
        anchors = self._anchors(input_size)
        for channels in (self._boxes, self._scores):
            count = channels.view(tensors).shape[1 if channels.first else 0]
            if count != len(anchors):
                raise ModelError(
                    f"decoder efficientdet: output {channels.spec.name!r} has {count} anchors, but an input of "
                    f"{input_size[0]}x{input_size[1]} has {len(anchors)}; mend `levels`, `scales`, `aspect_ratios` or the "
                    "input size"
                )
        found, classes, confidence = self._find(tensors)
        if not found.size:
            return np.empty((0, 4), np.float32), confidence, classes
        code = self._boxes.take(tensors, found) / self._scale
        anchor = anchors.take(found, axis=0)
        boxes = np.empty((len(found), 4), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # a size without measure becomes infinite and is dropped
            centre = code[:, :2] * anchor[:, 2:] + anchor[:, :2]
            half = np.exp(code[:, 2:]) * anchor[:, 2:] / 2
            boxes[:, [1, 0]] = centre - half
            boxes[:, [3, 2]] = centre + half
        return boxes, confidence, classes


class _EfficientDet:
    """A `Decoder`."""

    def __init__(self, heads: list[_Head], context: DecodeContext) -> None:
        self._heads = heads
        self._context = context
        self._finish = Finisher(context)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the outputs are not those of the input size's anchors.
            InferenceError: the model gives no numbers.
        """
        parts = [head(tensors, transform.input_size) for head in self._heads]
        boxes, confidence, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not len(boxes):
            return nothing(self._context)
        return self._finish(boxes, confidence, classes, transform)
