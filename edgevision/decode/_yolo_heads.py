"""The heads of the YOLOs without anchors (v8, v9, 11, 12), in all forms in which they are exported.

Each cell has a box, class scores, and for some tasks something more, in this order. They come decoded in one tensor, as
Ultralytics exports them; or in tensors of their own, as toolchains for NPUs want them cut off, still raw; for all grids in
a row or for each grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from edgevision import registry
from edgevision.decode._dense import (
    BoxReader,
    DenseHeads,
    Grids,
    Head,
    corner_reader,
    distance_reader,
    per_stride,
    take_only,
)
from edgevision.decode._roles import check_labels
from edgevision.decode._scores import Channels, Layout, ScoreFinder, channel_count, check_channels
from edgevision.decode.base import DecodeContext
from edgevision.errors import ModelError
from edgevision.types import TensorSpec


class YoloOptions(registry.Options):
    """How the network's outputs are meant."""

    layout: Layout = "channels_first"
    """Whether a tensor is [1, channels, cells], as Ultralytics exports it, or [1, cells, channels]."""
    box_format: Literal["cxcywh", "xyxy", "ltrb", "dfl"] = "cxcywh"
    """Centre and size; corners; distances of the sides from a cell's centre, in cells; or a distribution over those."""
    normalised: bool = False
    """Whether `cxcywh` and `xyxy` are from 0 to 1 of the input's sides, as in Ultralytics' .tflite, and not in pixels."""
    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(8, 16, 32), min_length=1)
    """Input pixels per cell of each grid; they also name the roles of tensors that are one grid's: `boxes_8` ..."""
    bins: int = Field(default=16, ge=2, le=256)
    """Values of each distribution of `dfl` (Ultralytics' `reg_max`)."""
    multi_label: bool | None = None
    """Whether one cell may be several classes at once. False: an object has one class. True: every class that reaches the
    threshold is a result of its own, which an evaluation wants and a machine does not. None: True where the confidence
    threshold is below 0.05, which only an evaluation sets."""


def make_heads(
    family: str,
    options: YoloOptions,
    outputs: Mapping[str, TensorSpec],
    context: DecodeContext,
    *,
    extra: int = 0,
    extra_role: str | None = None,
) -> DenseHeads:
    """The heads, in whichever form the roles tell: `predictions`; `boxes` and `scores`; or either for each stride.

    Args:
        family: for messages.
        options: how the outputs are meant.
        outputs: those of the heads alone.
        context: thresholds and labels.
        extra: channels that each cell has beside its box and scores.
        extra_role: what they are called where they come in a tensor of their own.

    Raises:
        ModelError: a role is missing or one too many, or a shape, type or the activation does not fit.
    """
    if context.activation == "softmax":
        raise ModelError(f"decoder {family}: activation softmax does not belong to this family; use sigmoid or none")
    by_distance = options.box_format in ("ltrb", "dfl")
    if by_distance and options.normalised:
        raise ModelError(
            f"decoder {family}: `normalised` belongs to cxcywh and xyxy; with `box_format: {options.box_format}` distances are "
            "in cells"
        )
    sides = 4 * options.bins if options.box_format == "dfl" else 4
    names = ("boxes", "scores") if extra_role is None else ("boxes", "scores", extra_role)
    strides = options.strides
    joined = {"predictions", *per_stride(("predictions",), strides)} & outputs.keys()
    whole = {"predictions", "boxes", "scores", extra_role} & outputs.keys()
    prefixes = ("predictions",) if joined or not outputs else names
    roles = list(prefixes) if whole or not outputs else per_stride(prefixes, strides)
    specs = dict(zip(roles, take_only(family, outputs, roles), strict=True))
    suffixes = [""] if whole else [f"_{stride}" for stride in strides]
    make = _joined_head if joined else _split_head
    heads = [
        make(family, options, {name: specs[name + suffix] for name in prefixes}, context, suffix, sides, extra)
        for suffix in suffixes
    ]
    grids = Grids(family, strides, offset=0.5) if by_distance or not whole else None
    return DenseHeads(heads, _reader(options, grids), grids)


def _reader(options: YoloOptions, grids: Grids | None) -> BoxReader:
    if grids is not None and options.box_format in ("ltrb", "dfl"):
        return distance_reader(grids, bins=options.bins if options.box_format == "dfl" else None)
    return corner_reader(centred=options.box_format == "cxcywh", normalised=options.normalised)


def _joined_head(  # noqa: PLR0917 - the two ways to make a head have one signature
    family: str,
    options: YoloOptions,
    specs: Mapping[str, TensorSpec],
    context: DecodeContext,
    suffix: str,
    sides: int,
    extra: int,
) -> Head:
    """One tensor of box, scores and the rest."""
    role, spec, layout = f"predictions{suffix}", specs["predictions"], options.layout
    end = -extra if extra else None
    expect = sides + len(context.labels) + extra if context.labels else None
    scores = Channels(family, role, spec, layout, slice(sides, end), expect=expect)
    found = channel_count(spec, layout)
    if found != -1:
        _check_classes(family, role, spec, layout, found - sides - extra, context, beside=sides + extra)
    return Head(
        scores=scores,
        boxes=Channels(family, role, spec, layout, slice(0, sides)),
        find=ScoreFinder(scores, context, multi_label=options.multi_label),
        extra=Channels(family, role, spec, layout, slice(-extra, None)) if extra else None,
    )


def _split_head(  # noqa: PLR0917 - the two ways to make a head have one signature
    family: str,
    options: YoloOptions,
    specs: Mapping[str, TensorSpec],
    context: DecodeContext,
    suffix: str,
    sides: int,
    extra: int,
) -> Head:
    """A tensor each for boxes, scores and the rest."""
    layout = options.layout
    counts = {"boxes": sides, "scores": len(context.labels) or None}
    channels = {
        name: Channels(family, name + suffix, spec, layout, expect=counts.get(name, extra))
        for name, spec in specs.items()
    }
    why = f"`box_format: {options.box_format}`" + (f" of {options.bins} bins" if options.box_format == "dfl" else "")
    check_channels(family, f"boxes{suffix}", specs["boxes"], layout, sides, why=why)
    classes = channel_count(specs["scores"], layout)
    if classes != -1:
        _check_classes(family, f"scores{suffix}", specs["scores"], layout, classes, context, beside=0)
    others = [name for name in specs if name not in ("boxes", "scores")]
    for name in others:
        check_channels(
            family, name + suffix, specs[name], layout, extra, why="as many as the family's other outputs say"
        )
    return Head(
        scores=channels["scores"],
        boxes=channels["boxes"],
        find=ScoreFinder(channels["scores"], context, multi_label=options.multi_label),
        extra=channels[others[0]] if others else None,
    )


def _check_classes(  # noqa: PLR0917 - what the message tells
    family: str, role: str, spec: TensorSpec, layout: Layout, classes: int, context: DecodeContext, *, beside: int
) -> None:
    """Labels and classes are as many; where they are in the other layout, the message says so."""
    other: Layout = "channels_last" if layout == "channels_first" else "channels_first"
    if context.labels and classes != len(context.labels) == channel_count(spec, other) - beside:
        raise ModelError(
            f"decoder {family}: output {spec.name!r} ({role}) is {list(spec.shape)}: with {len(context.labels)} labels that is "
            f"`layout: {other}`, and the manifest's is {layout}"
        )
    check_labels(family, spec, classes, context)
