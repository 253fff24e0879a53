"""Semantic segmentation, whatever the network: DeepLab, FCN, LR-ASPP, SegFormer, U-Net. A class for every pixel of the frame.

The model gives either scores per class and cell (role `scores`) or, with the argmax inside, a class number per cell (role
`class_map`). The classes are decided on the model's own cells, and only whole numbers are spread over the frame, by rows and
columns: scores of 21 classes in frame pixels would be 77 MB at 1280x720.

`upsample: bilinear` gives what interpolating all scores would give, exactly: where the four cells around a pixel have one
class, so has every weighted mean of them; only pixels between cells that differ are interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.decode._cells import CellGrid, best_of_cells, best_of_planes
from edgevision.decode._roles import check_labels, of_one_picture, refuse_other_batch, take_roles
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import UNSEEN, ImageTransform, Segmentation, Tensors, TensorSpec

_MOST_CLASSES = UNSEEN
"""Class ids 0 to 254: a byte a pixel, and `UNSEEN` is left over."""


class Options(registry.Options):
    """How the network's output is meant."""

    layout: Literal["NCHW", "NHWC"] | None = None
    """Of `scores`; without it, the axis that is as long as there are labels. An error where that does not tell."""
    background: Annotated[int, Field(ge=0, lt=_MOST_CLASSES)] | None = 0
    """The class id that means "nothing here": it is not reported, and takes what is below a threshold. `null`: none does."""
    upsample: Literal["nearest", "bilinear"] = "nearest"
    """How classes come from cells to pixels; `bilinear` interpolates scores at the classes' edges (see the module)."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the role `scores` or the role `class_map`.

    `scores` is [1, classes, height, width] or [1, height, width, classes]; with one class alone it is how likely a pixel is
    class 1 and not the background 0. `class_map` is [1, height, width], or has one more axis of size 1.

    Raises:
        ModelError: neither role or both are there, or shape, type, activation, labels or a threshold do not fit.
    """
    if "class_map" in outputs:
        if "scores" in outputs:
            raise ModelError("decoder semantic: `outputs` name both scores and class_map; name the one to use")
        return _FromMap(options, _check_map(options, outputs["class_map"], context), context)
    if "scores" not in outputs:
        take_roles("semantic (or class_map alone)", outputs, ("scores",))
    (spec,) = take_roles("semantic", outputs, ("scores",))
    spec = of_one_picture(spec)
    if len(spec.shape) != 4:
        raise ModelError(
            f"decoder semantic: output {spec.name!r} (scores) is {list(spec.shape)}; [1, classes, height, width] or "
            "[1, height, width, classes] is needed; where the argmax is inside, its role is class_map"
        )
    return _FromScores(options, spec, _layout(options, spec, context), context)


def _layout(options: Options, spec: TensorSpec, context: DecodeContext) -> Literal["NCHW", "NHWC"]:
    """Which axis holds the classes, told or proved by the number of labels."""
    chosen = options.layout
    if chosen is None:
        wanted = {len(context.labels)} | ({1} if len(context.labels) == 2 else set())
        fits = [spec.shape[axis] in wanted for axis in (1, 3)]
        if not context.labels or fits[0] == fits[1]:
            raise ModelError(
                f"decoder semantic: output {spec.name!r} (scores) is {list(spec.shape)} and there are "
                f"{len(context.labels)} labels: that does not tell which axis holds the classes; set decoder: "
                "{layout: NCHW} (classes, height, width) or {layout: NHWC}"
            )
        chosen = "NCHW" if fits[0] else "NHWC"
    classes = spec.shape[1 if chosen == "NCHW" else 3]
    if classes == 1:
        if context.activation == "softmax":
            raise ModelError("decoder semantic: activation softmax of one class is always 1; use sigmoid or none")
        classes = 2
    if classes != -1:
        check_labels("semantic", spec, classes, context)
        if classes > _MOST_CLASSES:
            raise ModelError(
                f"decoder semantic: output {spec.name!r} has {classes} classes; at most {_MOST_CLASSES} can be told"
            )
        _check_background(options, classes)
    return chosen


def _check_map(options: Options, spec: TensorSpec, context: DecodeContext) -> TensorSpec:
    if len(spec.shape) > 2:  # two axes are height and width alone
        spec = of_one_picture(spec)
    if len(spec.shape) < 2 or sum(size != 1 for size in spec.shape) > 2 or len(spec.shape) > 4:
        raise ModelError(
            f"decoder semantic: output {spec.name!r} (class_map) is {list(spec.shape)}; [1, height, width] is needed; "
            "where it holds scores per class, its role is scores"
        )
    if not (np.issubdtype(spec.dtype, np.integer) or np.issubdtype(spec.dtype, np.floating)):
        raise ModelError(f"decoder semantic: output {spec.name!r} (class_map) is {spec.dtype}; numbers are needed")
    if context.activation != "none" or context.confidence > 0 or context.class_confidence:
        raise ModelError(
            f"decoder semantic: output {spec.name!r} (class_map) holds classes and no scores: there is nothing that "
            "an activation or a confidence threshold could act on; leave both out"
        )
    if len(context.labels) > _MOST_CLASSES:
        raise ModelError(
            f"decoder semantic: there are {len(context.labels)} labels; at most {_MOST_CLASSES} can be told"
        )
    if options.upsample == "bilinear":
        raise ModelError("decoder semantic: upsample bilinear needs scores; a class_map can only be spread as it is")
    if context.labels:
        _check_background(options, len(context.labels))
    return spec


def _check_background(options: Options, classes: int) -> None:
    if options.background is not None and options.background >= classes:
        raise ModelError(
            f"decoder semantic: background {options.background} is none of the classes 0 to {classes - 1}; "
            "`null` where every class is something"
        )


class _Wanted:
    """Which classes count: those that nobody asked for become background."""

    def __init__(self, options: Options, context: DecodeContext) -> None:
        self.table: NDArray[np.uint8] | None = None
        if context.classes is None:
            return
        if options.background is None:
            raise ModelError(
                "decoder semantic: `classes` leaves pixels of other classes without any; set decoder: {background: ID}"
            )
        self.table = np.full(UNSEEN + 1, options.background, np.uint8)
        kept = [class_id for class_id in context.classes if class_id < _MOST_CLASSES]
        self.table[kept] = kept
        self.table[UNSEEN] = UNSEEN

    def __call__(self, cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return cells if self.table is None else self.table[cells]


class _FromMap:
    """A `Decoder` of class numbers."""

    def __init__(self, options: Options, spec: TensorSpec, context: DecodeContext) -> None:
        self._spec = spec
        self._background = options.background
        self._labels = context.labels
        self._most = (len(context.labels) or _MOST_CLASSES) - 1
        self._wanted = _Wanted(options, context)
        self._grid = CellGrid()

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Segmentation:
        """Decode one inference.

        Raises:
            InferenceError: a number is no class, or the model answers for several pictures.
        """
        values = tensors[self._spec.name]
        if len(self._spec.shape) > 2:
            refuse_other_batch(values, self._spec)
        if self._spec.quantization is not None:
            values = dequantize(values, self._spec.quantization)
        cells = values.reshape(_plane(self._spec, values.shape))
        least, most = float(cells.min()), float(cells.max())
        if not (least >= 0 and most <= self._most):  # NaN is neither
            raise InferenceError(
                f"output {self._spec.name!r} (class_map) holds {least:g} to {most:g}; classes are 0 to {self._most}"
            )
        if np.issubdtype(cells.dtype, np.floating):
            cells = np.rint(cells)
        return Segmentation(
            class_map=self._grid.spread(self._wanted(cells.astype(np.uint8)), transform),
            background=self._background,
            labels=self._labels,
        )


def _plane(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of [1, h, w], [1, 1, h, w] or [1, h, w, 1]."""
    if len(shape) == 4 and shape[3] == 1 and spec.shape[1] != 1:
        return shape[1], shape[2]
    return shape[-2], shape[-1]


class _FromScores:
    """A `Decoder` of scores per class."""

    def __init__(self, options: Options, spec: TensorSpec, layout: str, context: DecodeContext) -> None:
        self._spec = spec
        self._planes = layout == "NCHW"
        self._single = spec.shape[1 if self._planes else 3] == 1
        self._background = options.background
        self._bilinear = options.upsample == "bilinear"
        self._context = context
        self._wanted = _Wanted(options, context)
        self._grid = CellGrid()
        self._activation = context.activation
        self._floor = _raw(context.confidence or 0.5, context.activation) if self._single else 0.0
        self._thresholds: NDArray[np.float32] | None = None
        if not self._single and (context.confidence > 0 or context.class_confidence):
            self._thresholds = self._by_class(options, context)

    def _by_class(self, options: Options, context: DecodeContext) -> NDArray[np.float32]:
        """(256,) the confidence that a class must reach."""
        if self._bilinear:
            raise ModelError("decoder semantic: a confidence threshold needs upsample nearest: it judges whole cells")
        if options.background is None:
            raise ModelError(
                "decoder semantic: a confidence threshold leaves pixels without a class; set decoder: {background: ID}"
            )
        thresholds = np.full(UNSEEN + 1, context.confidence, np.float32)
        for class_id, value in context.class_confidence.items():
            thresholds[class_id] = value
        return thresholds

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Segmentation:
        """Decode one inference.

        Raises:
            InferenceError: the model gives no numbers, or answers for several pictures.
        """
        tensor = tensors[self._spec.name]
        refuse_other_batch(tensor, self._spec)
        scores = tensor[0]  # (classes, h, w) or (h, w, classes), in the tensor's own type
        if self._single:
            scores = self._two_planes(scores)
        planes = self._planes or self._single
        cells, best = best_of_planes(scores) if planes else best_of_cells(scores)
        self._refuse_broken(best)
        if self._thresholds is not None and self._background is not None:
            cells[self._confidence(scores, best, planes=planes) < self._thresholds[cells]] = self._background
        if self._bilinear:
            spread = self._grid.interpolate(cells, scores if planes else scores.transpose(2, 0, 1), transform)
            if self._wanted.table is not None:
                spread = self._wanted.table[spread]
        else:
            spread = self._grid.spread(self._wanted(cells), transform)
        return Segmentation(class_map=spread, background=self._background, labels=self._context.labels)

    def _two_planes(self, scores: NDArray[Any]) -> NDArray[np.float32]:
        """(2, h, w): what class 1 must reach, and its own score; a constant plane stays so when it is interpolated."""
        plane = self._real(scores.reshape(scores.shape[1:] if self._planes else scores.shape[:2]))
        # The first of two equal scores wins, and whoever reaches a threshold is above it.
        return np.stack((np.full_like(plane, np.nextafter(np.float32(self._floor), np.float32(-np.inf))), plane))

    def _confidence(self, scores: NDArray[Any], best: NDArray[Any], *, planes: bool) -> NDArray[np.float32]:
        """(h, w) how sure the best class is."""
        real = self._real(best)
        if self._activation == "none":
            return real
        if self._activation == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-real.clip(-80, 80))), np.float32)
        less = self._real(scores) - (real if planes else real[..., None])  # never above 0
        total: NDArray[np.float32] = np.exp(less, out=less).sum(axis=0 if planes else 2)
        return np.asarray(1 / total, np.float32)

    def _real(self, values: NDArray[Any]) -> NDArray[np.float32]:
        quantization = self._spec.quantization
        return values.astype(np.float32, copy=False) if quantization is None else dequantize(values, quantization)

    def _refuse_broken(self, best: NDArray[Any]) -> None:
        """The best score of a cell is NaN if any of its scores is: a sum that is finite tells that none is."""
        if np.issubdtype(best.dtype, np.floating) and not math.isfinite(best.sum(dtype=np.float64)):
            broken = best.size - int(np.isfinite(best).sum())
            if broken:
                raise InferenceError(
                    f"output {self._spec.name!r} (scores): {broken} of {best.size} cells have scores that are no finite numbers"
                )


def _raw(probability: float, activation: str) -> float:
    """What a score must reach for its probability to reach `probability`."""
    if activation == "none":
        return probability
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
