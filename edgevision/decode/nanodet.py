"""NanoDet and NanoDet-Plus: class scores and distributions over box sides, for each grid or in one tensor.

NanoDet (RangiLyu/nanodet, GFL head) gives `scores_8`, `boxes_8` and so on for strides 8, 16, 32. NanoDet-Plus gives the
one tensor `predictions`, has a fourth grid of stride 64, and counts from a cell's corner: `strides: [8, 16, 32, 64]`,
`cell_offset: 0`. Boxes end at the input's border before their overlaps are compared, as in the authors' `get_bboxes`.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgevision.decode._gfl import GflOptions, make
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.types import TensorSpec


class Options(GflOptions):
    """As NanoDet-m has them."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the roles `scores_8`, `boxes_8` ... or `predictions`.

    Raises:
        ModelError: a role is missing, or its shape, type or activation does not fit.
    """
    return make("nanodet", options, outputs, context, clip=True)
