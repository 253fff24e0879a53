"""PicoDet as PaddleDetection exports it without post-processing: class scores and distributions for four grids.

The roles are `scores_8`, `boxes_8` ... for strides 8, 16, 32, 64; scores have their sigmoid already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from edgevision.decode._gfl import GflOptions, make
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.types import TensorSpec


class Options(GflOptions):
    """As PicoDet has them."""

    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(8, 16, 32, 64), min_length=1)
    """Input pixels per cell of each grid, which also name the roles: `scores_8`, `boxes_8` ..."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the roles `scores_8`, `boxes_8` ... or `predictions`.

    Raises:
        ModelError: a role is missing, or its shape, type or activation does not fit.
    """
    return make("picodet", options, outputs, context, clip=False)
