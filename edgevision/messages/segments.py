"""A class map as items of the contract: how much of each class, where, and its mask as run lengths. numpy alone.

All classes are told in one pass over the map's runs, column by column, as COCO's masks are written (the source of the format is
pycocotools' `maskApi.c`: `rleEncode` and `rleToString`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevision.messages.contract import RleMask, SegmentItem
from edgevision.messages.rle import compress
from edgevision.types import UNSEEN, Segmentation, label_of

MAX_MASK_BYTES = 65536
"""What all masks of one result take at most, unless the config says otherwise."""

_COARSEST = 8
"""A mask is halved so often at most."""


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The runs of one class in a map that is read column by column."""

    first: NDArray[np.intp]
    """(r,) where each run begins."""
    behind: NDArray[np.intp]
    """(r,) where it has ended."""


def segment_items(found: Segmentation, *, rle: bool = True, max_bytes: int = MAX_MASK_BYTES) -> list[SegmentItem]:
    """Every class that was seen but the background, largest first.

    Args:
        found: the class map.
        rle: whether each has its mask.
        max_bytes: of all masks' `counts` together. Masks that take more are made from every second pixel, every fourth ...;
            their `size` tells.
    """
    height = found.class_map.shape[0]
    runs = _runs_by_class(found.class_map)
    unseen = runs.pop(UNSEEN, None)
    looked_at = found.class_map.size - (0 if unseen is None else _pixels(unseen))
    if found.background is not None:
        runs.pop(found.background, None)
    masks = _masks(found.class_map, runs, max_bytes) if rle else {}
    items = [
        SegmentItem(
            label=label_of(found.labels, class_id),
            class_id=class_id,
            pixels=_pixels(part),
            share=round(_pixels(part) / looked_at, 6),
            xyxy=_box(part, height),
            rle=masks.get(class_id),
        )
        for class_id, part in runs.items()
    ]
    return sorted(items, key=lambda item: -item.pixels)


def _runs_by_class(class_map: NDArray[np.uint8]) -> dict[int, _Runs]:
    columns = np.ascontiguousarray(class_map.T).ravel()
    first = np.concatenate(([0], np.flatnonzero(columns[1:] != columns[:-1]) + 1))
    behind = np.append(first[1:], columns.size)
    classes = columns[first]
    # Bytes are sorted in one pass: noise of many classes costs no more than a few runs of each.
    order = classes.argsort(kind="stable")
    first, behind = first.take(order), behind.take(order)
    found, start = {}, 0
    for class_id, count in enumerate(np.bincount(classes).tolist()):
        if count:
            found[class_id] = _Runs(first[start : start + count], behind[start : start + count])
            start += count
    return found


def _pixels(runs: _Runs) -> int:
    return int((runs.behind - runs.first).sum())


def _box(runs: _Runs, height: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom around the runs; right and bottom are exclusive."""
    left, top = np.divmod(runs.first, height)
    right, bottom = np.divmod(runs.behind - 1, height)
    one_column = left == right
    return (
        float(left.min()),
        float(np.where(one_column, top, 0).min()),
        float(right.max() + 1),
        float(np.where(one_column, bottom + 1, height).max()),
    )


def _masks(class_map: NDArray[np.uint8], runs: dict[int, _Runs], max_bytes: int) -> dict[int, RleMask]:
    """A mask for each class, all in `max_bytes`; none where that cannot be."""
    for halved in range(_COARSEST + 1):
        step = 1 << halved
        coarse = class_map[::step, ::step]
        parts = runs if halved == 0 else {key: part for key, part in _runs_by_class(coarse).items() if key in runs}
        # A run costs two counts of at least one byte: what cannot fit is not written out.
        if sum(2 * len(part.first) for part in parts.values()) > max_bytes:
            continue
        texts = {class_id: compress(_counts(part, coarse.size)) for class_id, part in parts.items()}
        if sum(map(len, texts.values())) <= max_bytes:
            size = (coarse.shape[0], coarse.shape[1])
            return {class_id: RleMask(size=size, counts=text) for class_id, text in texts.items()}
    return {}


def _counts(runs: _Runs, total: int) -> NDArray[np.int64]:
    """Lengths of runs of 0 and 1 by turns; the first is of 0 and may have no length, the last has some."""
    edges = np.stack((runs.first, runs.behind), axis=1).ravel()
    edges = np.append(edges, total) if edges[-1] != total else edges
    return np.diff(edges, prepend=0).astype(np.int64)
