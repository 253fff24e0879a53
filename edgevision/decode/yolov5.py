"""YOLOv5 and YOLOv7: three anchor boxes for each cell, objectness and class scores.

As exported there is one tensor `predictions` [1, rows, 5 + classes] with decoded boxes: centre, size, objectness, scores;
in .tflite boxes are `normalised`. Cut before its last operations a network gives a map for each stride, `predictions_8`,
`predictions_16` ..., [1, anchors * (5 + classes), h, w] or [1, anchors, h, w, 5 + classes], with everything still to be put
through a sigmoid s (`activation: sigmoid`). The box of cell (gx, gy) has its centre at ((2 s(x) - 0.5 + gx) * stride, ...) and
is (2 s(w))^2 times as wide as its anchor (ultralytics/yolov5, `Detect.forward`; Wang et al. 2022, arXiv:2207.02696).

A row's confidence is objectness times its best class score. So only objectness is compared for all rows, in the tensor's own
type, and everything else is done for the few that are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.decode._dense import Grids, corner_reader, per_stride, take_only
from edgevision.decode._detections import Finisher, lowest_confidence, nothing, wanted
from edgevision.decode._roles import check_labels, one_picture
from edgevision.decode._scores import EVALUATION_CONFIDENCE, Layout, logit, sigmoid
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize, quantized_threshold
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec

Anchor = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

_COCO_ANCHORS: dict[int, tuple[tuple[float, float], ...]] = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}
_OBJECTNESS, _SCORES = 4, 5
"""Columns of a row: the box before, objectness, then the class scores."""


class Options(registry.Options):
    """How the network's outputs are meant."""

    normalised: bool = False
    """Whether decoded boxes are from 0 to 1 of the input's sides, as in .tflite, and not in pixels."""
    layout: Layout = "channels_first"
    """Of a stride's map with four axes: [1, channels, h, w] or [1, h, w, channels]."""
    anchors: dict[Annotated[int, Field(ge=1)], Annotated[tuple[Anchor, ...], Field(min_length=1)]] = Field(
        default=_COCO_ANCHORS, min_length=1
    )
    """For maps of strides: by stride, the anchors' width and height in input pixels. Without, YOLOv5's own for COCO."""
    multi_label: bool | None = None
    """Whether one row may be several classes at once. False: an object has one class. True: every class that reaches the
    threshold is a result of its own, which an evaluation wants and a machine does not. None: True where the confidence
    threshold is below 0.05, which only an evaluation sets."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of `predictions`, decoded rows, or of `predictions_8` ..., a map for each stride.

    Raises:
        ModelError: a role is missing or one too many, or a shape, type or the activation does not fit.
    """
    if context.activation == "softmax":
        raise ModelError("decoder yolov5: activation softmax does not belong to this family; use sigmoid or none")
    strides = tuple(options.anchors)
    if "predictions" in outputs or not outputs:
        (spec,) = take_only("yolov5", outputs, ("predictions",))
        if len(spec.shape) != 3 or spec.shape[0] not in (1, -1):
            raise ModelError(
                f"decoder yolov5: output {spec.name!r} (predictions) is {list(spec.shape)}; [1, rows, 5 + classes] is needed"
            )
        if context.activation != "none":
            raise ModelError(
                f"decoder yolov5: activation {context.activation} does not belong to `predictions`, which are decoded; use "
                "none"
            )
        if spec.shape[2] != -1:
            check_labels("yolov5", spec, spec.shape[2] - _SCORES, context)
        return _Yolov5(options, [_Map(spec, None, options.layout, context)], context)
    roles = per_stride(("predictions",), strides)
    maps = [
        _Map(spec, len(options.anchors[stride]), options.layout, context)
        for stride, spec in zip(strides, take_only("yolov5", outputs, roles), strict=True)
    ]
    return _Yolov5(options, maps, context)


class _Map:
    """One output as (anchors, cells, 5 + classes), and its lowest objectness in its own numbers."""

    def __init__(self, spec: TensorSpec, anchors: int | None, layout: Layout, context: DecodeContext) -> None:
        self.spec = spec
        self.anchors = anchors
        self._layout = layout
        self._classes = len(context.labels) or None
        if anchors is not None:
            self._check(spec, anchors, context)
        floor = lowest_confidence(context)
        if context.activation == "sigmoid":
            floor = logit(floor)
        # Confidence is objectness times class score and neither is above 1: both must reach the lowest threshold.
        self.floor: float = (
            floor if spec.quantization is None else quantized_threshold(floor, spec.quantization, spec.dtype)
        )

    def _check(self, spec: TensorSpec, anchors: int, context: DecodeContext) -> None:
        shape = spec.shape
        needed = f"[1, {anchors} * (5 + classes), h, w]"
        if self._layout == "channels_last":
            needed = f"[1, h, w, {anchors} * (5 + classes)]"
        fits = len(shape) in (4, 5) and shape[0] in (1, -1) and (len(shape) == 4 or shape[1] in (anchors, -1))
        channels = shape[{("channels_first", 4): 1}.get((self._layout, len(shape)), -1)] if fits else 0
        if not fits or (len(shape) == 4 and channels != -1 and channels % anchors):
            raise ModelError(
                f"decoder yolov5: output {spec.name!r} is {list(shape)}; with {anchors} anchors and `layout: {self._layout}` "
                f"{needed} or [1, {anchors}, h, w, 5 + classes] is needed"
            )
        if channels != -1:
            check_labels("yolov5", spec, (channels // anchors if len(shape) == 4 else channels) - _SCORES, context)

    def rows(self, tensors: Tensors) -> NDArray[Any]:
        """(anchors, cells, 5 + classes); no copy where the cells lie in a row.

        Raises:
            ModelError: a model that left its sizes open gave others than it should.
        """
        tensor = one_picture(tensors, self.spec)
        anchors = self.anchors or 1
        if self.anchors is None:
            rows = tensor[None]
        elif tensor.ndim == 4:
            rows = tensor.reshape(len(tensor), tensor.shape[1] * tensor.shape[2], tensor.shape[3])
        else:
            first = self._layout == "channels_first"
            channels, cells = tensor.shape[0 if first else 2], tensor.shape[1] * tensor.shape[2 if first else 0]
            width = channels // anchors if channels % anchors == 0 else 0
            if not width:
                rows = np.empty((anchors, cells, 0), tensor.dtype)
            elif first:
                rows = tensor.reshape(anchors, width, cells).transpose(0, 2, 1)
            else:
                rows = tensor.reshape(cells, anchors, width).transpose(1, 0, 2)
        classes = rows.shape[2] - _SCORES
        if len(rows) != anchors or classes < 1 or self._classes not in (None, classes):
            raise ModelError(
                f"decoder yolov5: output {self.spec.name!r} gave {list(tensor.shape)}, which are not {anchors} times 5 + "
                f"{self._classes or 'classes'} numbers for each cell"
            )
        return rows

    def real(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Real values of some of the tensor's."""
        quantization = self.spec.quantization
        return values.astype(np.float32, copy=False) if quantization is None else dequantize(values, quantization)


class _Yolov5:
    """A `Decoder`."""

    def __init__(self, options: Options, maps: list[_Map], context: DecodeContext) -> None:
        self._maps = maps
        self._context = context
        self._sigmoid = context.activation == "sigmoid"
        automatic = context.confidence < EVALUATION_CONFIDENCE
        self._multi_label = automatic if options.multi_label is None else options.multi_label
        self._finish = Finisher(context)
        self._corners = corner_reader(centred=True, normalised=options.normalised)
        self._grids: Grids | None = None
        if maps[0].anchors is not None:
            self._grids = Grids("yolov5", tuple(options.anchors), offset=0.0)
        self._anchors = [np.array(anchors, np.float32) for anchors in options.anchors.values()]

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the number of cells is not that of the input size's grids.
            InferenceError: the model gives no numbers.
        """
        size = transform.input_size
        every = [one.rows(tensors) for one in self._maps]
        if self._grids is not None:
            self._grids.check([rows.shape[1] for rows in every], [one.spec.name for one in self._maps], size)
        parts = []
        first_cell = 0
        for number, (one, rows) in enumerate(zip(self._maps, every, strict=True)):
            found = self._look(one, rows)
            if found is not None:
                raw, anchor, cell, confidence, class_id = found
                boxes = self._boxes(raw, cell + first_cell, self._anchors[number].take(anchor, axis=0), size)
                parts.append((boxes, confidence, class_id))
            first_cell += rows.shape[1]
        if not parts:
            return nothing(self._context)
        xyxy, confidence, class_id = parts[0]
        if len(parts) > 1:
            xyxy, confidence, class_id = (np.concatenate(column) for column in zip(*parts, strict=True))
        return self._finish(xyxy, confidence, class_id, transform)

    def _look(self, one: _Map, rows: NDArray[Any]) -> tuple[NDArray[Any], ...] | None:
        """Of (anchors, cells, 5 + classes): raw boxes (n, 4), anchor, cell, confidence and class of the candidates, (n,)."""
        objectness = rows[:, :, _OBJECTNESS]
        anchor, cell = divmod((objectness >= one.floor).reshape(-1).nonzero()[0], rows.shape[1])
        if not cell.size:
            _refuse_nan(one, objectness)
            return None
        candidates = rows[anchor, cell]
        scores = candidates[:, _SCORES:]
        if self._multi_label:
            row, class_id = np.nonzero(scores >= one.floor)
            anchor, cell, candidates, best = anchor[row], cell[row], candidates[row], scores[row, class_id]
        else:
            class_id = scores.argmax(axis=1)
            best = scores[np.arange(len(class_id)), class_id]
        confidence = self._activate(one.real(candidates[:, _OBJECTNESS])) * self._activate(one.real(best))
        keep = wanted(confidence, class_id, self._context)
        if not keep.size:
            _refuse_nan(one, scores)
            return None
        raw = one.real(candidates.take(keep, axis=0)[:, :_OBJECTNESS])
        return raw, anchor.take(keep), cell.take(keep), confidence.take(keep), class_id.take(keep)

    def _activate(self, real: NDArray[Any]) -> NDArray[Any]:
        return sigmoid(real) if self._sigmoid else real

    def _boxes(
        self, raw: NDArray[Any], cells: NDArray[np.intp], anchors: NDArray[np.float32], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """(n, 4) of the network as corner boxes in input pixels."""
        if self._grids is None:
            return self._corners(raw, cells, size)
        places = self._grids.cells(size).take(cells, axis=0)  # the cell's corner and its stride
        part = self._activate(raw)
        with np.errstate(over="ignore", invalid="ignore"):
            centre = (part[:, :2] * 2 - 0.5) * places[:, 2:] + places[:, :2]
            half = (part[:, 2:] * 2) ** 2 * anchors / 2
            boxes: NDArray[np.float32] = np.concatenate((centre - half, centre + half), axis=1)
        return boxes


def _refuse_nan(one: _Map, scores: NDArray[Any]) -> None:
    """A model whose scores are all NaN has not looked, which must not read as "nothing found"."""
    if scores.size and np.isnan(scores).all():
        raise InferenceError(f"output {one.spec.name!r}: all scores are NaN: the model is broken")
