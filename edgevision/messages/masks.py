"""Masks of single objects as COCO's compressed run lengths, numpy alone.

A mask is told in the grid of the whole picture, column by column, as the lengths of runs of 0 and 1 by turns, from 0, so that
`pycocotools.mask.decode` reads it (the source of the format is that package's `maskApi.c`: `rleEncode` and `rleToString`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgevision.messages.contract import RleMask
from edgevision.messages.rle import compress
from edgevision.types import Mask

MAX_MASK_BYTES = 65536
"""What the `counts` of all masks of one result take together at most."""

_COARSEST = 8
"""Masks are halved so often at most."""


def mask_items(masks: Sequence[Mask | None], *, max_bytes: int = MAX_MASK_BYTES) -> list[RleMask | None]:
    """Each mask as a value of the contract.

    Masks that take more than `max_bytes` together are made from every second pixel, every fourth ...: their `size` tells.
    None where there is no mask, where even the coarsest take more, and where a coarser one would have lost its last pixel.
    """
    for halved in range(_COARSEST + 1):
        step = 1 << halved
        texts: list[str | None] = []
        room = max_bytes
        for mask in masks:
            counts = None if mask is None else _coarse_counts(mask, step)
            text = None
            if counts is not None:
                # A count takes at least one byte: what cannot fit is not written out.
                text = compress(counts) if len(counts) <= room else None
                room -= len(counts) if text is None else len(text)
            texts.append(text)
            if room < 0:
                break
        else:
            return [
                None if mask is None or text is None else RleMask(size=_size(mask, step), counts=text)
                for mask, text in zip(masks, texts, strict=True)
            ]
    return [None] * len(masks)


def _size(mask: Mask, step: int) -> tuple[int, int]:
    """Height, width of the grid of every `step`-th pixel of the frame."""
    width, height = mask.frame_size
    return -(-height // step), -(-width // step)


def _coarse_counts(mask: Mask, step: int) -> NDArray[np.int64] | None:
    """The run lengths of a mask of every `step`-th pixel; None where it would lose its last pixel."""
    height, width = _size(mask, step)
    pixels = mask.pixels[-mask.top % step :: step, -mask.left % step :: step]
    if step > 1 and mask.pixels.any() and not pixels.any():
        return None
    return _counts(pixels, -(-mask.left // step), -(-mask.top // step), height, width * height)


def _counts(pixels: NDArray[np.bool_], left: int, top: int, height: int, total: int) -> NDArray[np.int64]:
    """Lengths of runs of 0 and 1 by turns; the first is of 0 and may have no length, the last has some."""
    # Column by column, a 0 behind each: every run ends in its own column.
    columns = np.zeros((pixels.shape[1], pixels.shape[0] + 1), np.bool_)
    columns[:, :-1] = pixels.T
    flat = columns.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.append(0, changes)
    column, row = np.divmod(changes, columns.shape[1])
    first, behind = ((column + left) * height + row + top).reshape(-1, 2).T
    # A run that reaches the bottom of one column and goes on at the top of the next is one.
    apart = first[1:] != behind[:-1]
    first, behind = np.append(first[:1], first[1:][apart]), np.append(behind[:-1][apart], behind[-1:])
    edges = np.stack((first, behind), axis=1).ravel()
    if not edges.size or edges[-1] != total:
        edges = np.append(edges, total)
    return np.diff(edges, prepend=0).astype(np.int64)
