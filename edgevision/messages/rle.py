"""COCO's text of run lengths, which masks of objects and of whole classes are told in.

The source of the format is pycocotools' `maskApi.c`, `rleToString`; `pycocotools.mask.decode` reads it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compress(counts: NDArray[np.int64]) -> str:
    """COCO's text of counts: from the fourth on each less the one two before; five bits a character, lowest first, plus 48."""
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    characters = np.zeros((len(rest), 7), np.uint8)  # 35 bits hold every difference of 32-bit lengths
    going_on = np.ones(len(rest), np.bool_)
    for column in range(characters.shape[1]):
        bits = rest & 31
        rest >>= 5
        more = np.where(bits & 16, rest != -1, rest != 0)
        characters[:, column] = np.where(going_on, (bits | (more << 5)) + 48, 0)
        going_on &= more
        if not going_on.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")
