"""Anchor-free heads: one answer for each cell of some grids, as scores and a box, in one tensor or in several.

What the YOLOs since v8 and the GFL family (NanoDet, PicoDet) share. A cell's box is told in one of four ways, and the
manifest says which: as corners, as centre and size, as distances of the four sides from the cell's centre in units of its
stride, or as a distribution over such distances (Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388): the expected
value of a softmax over 0, 1, 2 ... `bins` - 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgevision.decode._roles import take_roles
from edgevision.decode._scores import Channels, ScoreFinder
from edgevision.errors import ModelError
from edgevision.types import Tensors, TensorSpec

BoxReader: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.intp], tuple[int, int]], NDArray[np.float32]]
"""What the network says of n boxes, (n, c); their cells (n,), counted over all grids; the input's width, height -> corner
boxes (n, 4) in input pixels."""


class Grids:
    """The cells of some grids over the input, kept while its size stays."""

    def __init__(self, family: str, strides: Sequence[int], *, offset: float) -> None:
        """`offset`: where a cell's centre lies in it, in cells: 0.5 is its middle."""
        self._family = family
        self._strides = tuple(strides)
        self._offset = offset
        self._input_size: tuple[int, int] | None = None
        self._cells: NDArray[np.float32]

    def cells(self, input_size: tuple[int, int]) -> NDArray[np.float32]:
        """(cells, 4): the centre's x, y in input pixels and the stride, twice. Row by row, in the order of the strides."""
        if input_size != self._input_size:
            parts = []
            for stride in self._strides:
                width, height = _grid(input_size, stride)
                y, x = np.mgrid[0:height, 0:width]
                centres = (np.stack((x.ravel(), y.ravel()), axis=1) + self._offset) * stride
                parts.append(np.hstack((centres, np.full((x.size, 2), stride))))
            self._cells = np.concatenate(parts).astype(np.float32)
            self._input_size = input_size
        return self._cells

    def check(self, counts: Sequence[int], names: Sequence[str], input_size: tuple[int, int]) -> None:
        """Refuse tensors whose numbers of cells are not those of the grids, before any grid is made.

        Raises:
            ModelError: they differ.
        """
        sizes = [_grid(input_size, stride) for stride in self._strides]
        expected = [width * height for width, height in sizes]
        if len(counts) != len(expected):
            expected = [sum(expected)]
        if list(counts) == expected:
            return
        grids = " + ".join(f"{width}x{height}" for width, height in sizes)
        found = ", ".join(f"{name!r} {count}" for name, count in zip(names, counts, strict=True))
        raise ModelError(
            f"decoder {self._family}: the outputs have so many cells: {found}; strides {list(self._strides)} on an input of "
            f"{input_size[0]}x{input_size[1]} make {grids} = {', '.join(map(str, expected))}; mend `strides`, the roles or the "
            "input size"
        )


def _grid(input_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Columns and rows of a grid; the last ones may reach over the input's border."""
    return -(-input_size[0] // stride), -(-input_size[1] // stride)


def expected_distances(raw: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    """(n, 4 * bins) raw scores of distances, side by side -> (n, 4) expected distances in cells."""
    raw = raw.reshape(-1, 4, bins)
    with np.errstate(invalid="ignore"):  # infinity less infinity: such a box is not finite and is dropped
        weights = np.exp(raw - raw.max(axis=2, keepdims=True))
        distances: NDArray[np.float32] = (weights @ np.arange(bins, dtype=np.float32)) / weights.sum(axis=2)
    return distances


def distance_reader(grids: Grids, *, bins: int | None, clip: bool = False) -> BoxReader:
    """Boxes that are told as left, top, right, bottom distances from a cell's centre, in cells.

    Args:
        grids: the cells.
        bins: values of each distance's distribution; None where the distances are told themselves.
        clip: whether boxes end at the input's border before their overlaps are compared, as in NanoDet.
    """

    def read(raw: NDArray[np.float32], cells: NDArray[np.intp], input_size: tuple[int, int]) -> NDArray[np.float32]:
        places = grids.cells(input_size).take(cells, axis=0)
        distances = raw if bins is None else expected_distances(raw, bins)
        boxes = np.empty((len(raw), 4), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            boxes[:, :2] = places[:, :2] - distances[:, :2] * places[:, 2:]
            boxes[:, 2:] = places[:, :2] + distances[:, 2:] * places[:, 2:]
        if clip:
            np.clip(boxes, 0, np.array(input_size * 2, np.float32), out=boxes)
        return boxes

    return read


def corner_reader(*, centred: bool, normalised: bool) -> BoxReader:
    """Boxes that are told themselves: as corners, or as centre and size; in input pixels, or from 0 to 1 of its sides."""

    def read(raw: NDArray[np.float32], cells: NDArray[np.intp], input_size: tuple[int, int]) -> NDArray[np.float32]:  # noqa: ARG001 - a box that is told does not depend on its cell
        boxes = raw
        if centred:
            boxes = np.empty((len(raw), 4), np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                half = raw[:, 2:] / 2
                np.subtract(raw[:, :2], half, out=boxes[:, :2])
                np.add(raw[:, :2], half, out=boxes[:, 2:])
        return boxes * np.array(input_size * 2, np.float32) if normalised else boxes

    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One grid's share of the outputs, or that of all grids in a row."""

    scores: Channels
    boxes: Channels
    find: ScoreFinder
    extra: Channels | None = None
    """What else the network says of each cell: mask coefficients, keypoints."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Candidates:
    """What reaches its threshold: n boxes in input pixels, before NMS."""

    xyxy: NDArray[np.float32]
    confidence: NDArray[Any]
    class_id: NDArray[np.intp]
    extra: NDArray[np.float32] | None = None
    """(n, e)"""


class DenseHeads:
    """All heads of a network, read together."""

    def __init__(self, heads: Sequence[Head], read_boxes: BoxReader, grids: Grids | None) -> None:
        """`grids`: None where a box does not depend on its cell."""
        self._heads = tuple(heads)
        self._read_boxes = read_boxes
        self._grids = grids

    def find(self, tensors: Tensors, input_size: tuple[int, int]) -> Candidates | None:
        """The candidates of one inference; None without any.

        Raises:
            ModelError: the number of cells is not that of the input size's grids, or differs between scores and boxes.
            InferenceError: the model gives no numbers.
        """
        first_cell = 0
        if self._grids is not None:
            counts = [_cells_of(head.scores, tensors) for head in self._heads]
            self._grids.check(counts, [head.scores.spec.name for head in self._heads], input_size)
        parts = []
        for head in self._heads:
            cells, class_id, confidence = head.find(tensors)
            count = _cells_of(head.scores, tensors)
            for beside in (head.boxes, head.extra):
                if beside is not None and beside.spec is not head.scores.spec:
                    _check_alike(head.scores, beside, tensors)
            if cells.size:
                extra = None if head.extra is None else head.extra.take(tensors, cells)
                parts.append((head.boxes.take(tensors, cells), cells + first_cell, confidence, class_id, extra))
            first_cell += count
        if not parts:
            return None
        raw, cells, confidence, class_id, extra = parts[0]
        if len(parts) > 1:
            raw, cells, confidence, class_id = (np.concatenate([part[i] for part in parts]) for i in range(4))
            if extra is not None:
                extra = np.concatenate([part[4] for part in parts if part[4] is not None])
        return Candidates(
            xyxy=self._read_boxes(raw, cells, input_size), confidence=confidence, class_id=class_id, extra=extra
        )


def _cells_of(channels: Channels, tensors: Tensors) -> int:
    return int(channels.view(tensors).shape[1 if channels.first else 0])


def _check_alike(scores: Channels, beside: Channels, tensors: Tensors) -> None:
    count, found = _cells_of(scores, tensors), _cells_of(beside, tensors)
    if found != count:
        raise ModelError(
            f"outputs {scores.spec.name!r} and {beside.spec.name!r} have {count} and {found} cells; all that is told of one "
            "grid has as many: mend the roles"
        )


def take_only(family: str, outputs: Mapping[str, TensorSpec], needed: Sequence[str]) -> tuple[TensorSpec, ...]:
    """`take_roles`, which also refuses others: a grid that nobody reads is objects of one size that nobody sees.

    Raises:
        ModelError: a role is missing, is not known, or holds integers without a scale.
    """
    specs = take_roles(family, outputs, tuple(needed))
    others = [role for role in outputs if role not in needed]
    if others:
        hint = "; `strides` must name every grid" if any(re.search(r"_\d+$", role) for role in others) else ""
        raise ModelError(
            f"decoder {family}: the manifest's `outputs` name {', '.join(others)}, which would be left out beside "
            f"{', '.join(needed)}{hint}"
        )
    return specs


def per_stride(prefixes: Sequence[str], strides: Sequence[int]) -> list[str]:
    """Roles of tensors that are each one grid's: `scores_8`, `scores_16` ..."""
    return [f"{prefix}_{stride}" for prefix in prefixes for stride in strides]
