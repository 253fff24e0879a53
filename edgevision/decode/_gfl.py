"""The head of Generalized Focal Loss (arXiv:2006.04388), of which NanoDet and PicoDet are made: scores and distributions.

For every cell of every grid there are class scores, which are the confidence itself, and for each side of the box a
distribution over its distance from the cell's centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from edgevision import registry
from edgevision.decode._dense import DenseHeads, Grids, Head, distance_reader, per_stride, take_only
from edgevision.decode._detections import Finisher, nothing
from edgevision.decode._roles import check_labels
from edgevision.decode._scores import Channels, Layout, ScoreFinder, channel_count, check_channels
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import ModelError
from edgevision.types import Detections, ImageTransform, Tensors, TensorSpec


class GflOptions(registry.Options):
    """The network's grids and numbers."""

    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(8, 16, 32), min_length=1)
    """Input pixels per cell of each grid, which also name the roles: `scores_8`, `boxes_8` ..."""
    reg_max: int = Field(default=7, ge=1, le=256)
    """The largest distance of a side from a cell's centre, in cells: each distribution has one value more."""
    cell_offset: float = Field(default=0.5, ge=0, le=1)
    """Where a cell's centre lies in it: 0.5 is the middle."""
    layout: Layout = "channels_last"
    """Whether a tensor is [1, cells, channels] or [1, channels, cells]."""
    multi_label: bool | None = None
    """Whether one cell may be several classes at once. False: an object has one class. True: every class that reaches the
    threshold is a result of its own, which an evaluation wants and a machine does not. None: True where the confidence
    threshold is below 0.05, which only an evaluation sets."""


def make(
    family: str, options: GflOptions, outputs: Mapping[str, TensorSpec], context: DecodeContext, *, clip: bool
) -> Decoder:
    """Make a decoder of the roles `scores_S` and `boxes_S` for each stride S, or of the one role `predictions`.

    `predictions` holds, for the cells of all grids in a row, the class scores and after them the distributions.

    Raises:
        ModelError: a role is missing, or its shape, type or activation does not fit.
    """
    if context.activation == "softmax":
        raise ModelError(f"decoder {family}: activation softmax does not belong to this family; use sigmoid or none")
    layout, sides, classes = options.layout, 4 * (options.reg_max + 1), len(context.labels) or None
    pairs: list[tuple[Channels, Channels]] = []
    if "predictions" in outputs:
        (spec,) = take_only(family, outputs, ("predictions",))
        expect = sides + classes if classes else None
        scores = Channels(family, "predictions", spec, layout, slice(None, -sides), expect=expect)
        if channel_count(spec, layout) != -1:
            check_labels(family, spec, channel_count(spec, layout) - sides, context)
        pairs.append((scores, Channels(family, "predictions", spec, layout, slice(-sides, None))))
    else:
        roles = per_stride(("scores", "boxes"), options.strides)
        specs = dict(zip(roles, take_only(family, outputs, roles), strict=True))
        for stride in options.strides:
            of_scores, of_boxes = specs[f"scores_{stride}"], specs[f"boxes_{stride}"]
            scores = Channels(family, f"scores_{stride}", of_scores, layout, expect=classes)
            boxes = Channels(family, f"boxes_{stride}", of_boxes, layout, expect=sides)
            if channel_count(of_scores, layout) != -1:
                check_labels(family, of_scores, channel_count(of_scores, layout), context)
            check_channels(
                family,
                f"boxes_{stride}",
                of_boxes,
                layout,
                sides,
                why=f"4 sides of reg_max {options.reg_max} + 1 values",
            )
            pairs.append((scores, boxes))
    heads = [
        Head(scores=scores, boxes=boxes, find=ScoreFinder(scores, context, multi_label=options.multi_label))
        for scores, boxes in pairs
    ]
    grids = Grids(family, options.strides, offset=options.cell_offset)
    return _Gfl(DenseHeads(heads, distance_reader(grids, bins=options.reg_max + 1, clip=clip), grids), context)


class _Gfl:
    """A `Decoder`."""

    def __init__(self, heads: DenseHeads, context: DecodeContext) -> None:
        self._heads = heads
        self._context = context
        self._finish = Finisher(context)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Detections:
        """Decode one inference.

        Raises:
            ModelError: the number of cells is not that of the input size's grids.
            InferenceError: the model gives no numbers.
        """
        found = self._heads.find(tensors, transform.input_size)
        if found is None:
            return nothing(self._context)
        return self._finish(found.xyxy, found.confidence, found.class_id, transform)
