"""Faster R-CNN as torchvision exports it, and torchvision's other detectors: RetinaNet, FCOS, SSD, SSDLite.

All of them decode and suppress inside the model and give three outputs without a batch, of as many rows as were found: `boxes`
[n, 4] as left, top, right, bottom in pixels of the input, `classes` [n] and `scores` [n]. torchvision counts its classes from 1
and calls 0 the background, so the first line of the labels is `__background__`, or `class_offset` is -1.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgevision import registry
from edgevision.decode._ready import ReadyRows
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.types import TensorSpec


class Options(registry.Options):
    """How class numbers are meant."""

    class_offset: int = 0
    """Added to the model's class numbers to make line numbers of its labels (from 0); -1 where no line is the background."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the roles `boxes`, `classes` and `scores`.

    Raises:
        ModelError: a role is missing, or its shape or type or the activation does not fit.
    """
    return ReadyRows("faster_rcnn", outputs, context, class_offset=options.class_offset, suppress=False)
