"""Class maps as palette PNGs, and the JSON that such a picture carries: OpenCV writes neither.

A palette PNG keeps the numbers and shows colours: whoever opens it sees the picture's parts, and whoever reads its indices
(Pillow's mode `P`) has the class map. It is a few kilobytes for a whole frame, and exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# PNG (ISO/IEC 15948), 5.2 and 11: the signature; chunks of length, type, data, and the CRC of type and data.
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD_END = len(_SIGNATURE) + 4 + 4 + 13 + 4
"""Behind the signature and IHDR, which comes first and has 13 bytes."""
_KEYWORD = b"edgevision"
_ITXT_HEAD = _KEYWORD + b"\0\0\0\0\0"
"""Keyword; not compressed, twice; no language, no translated keyword."""
_PALETTE, _UP = 3, 2
"""IHDR's colour type; the filter that takes the pixel above off: equal rows become zeros."""


def class_map_png(class_map: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """A class map (H, W) as a palette PNG; `palette` is red, green, blue by class id, 256 of them."""
    height, width = class_map.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = class_map[0]
    np.subtract(class_map[1:], class_map[:-1], out=rows[1:, 1:])  # modulo 256, as the filter is
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, _PALETTE, 0, 0, 0))
    colors = bytes(value for color in palette for value in color)
    parts = ((b"IHDR", head), (b"PLTE", colors), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def add_png_text(png: bytes, text: bytes) -> bytes:
    """Put `text` (UTF-8) into a PNG as an iTXt chunk right behind its header; every reader of pictures passes over it."""
    if not png.startswith(_SIGNATURE) or len(png) < _HEAD_END:
        raise ValueError("needs a PNG")
    return png[:_HEAD_END] + _chunk(b"iTXt", _ITXT_HEAD + text) + png[_HEAD_END:]


def read_png_text(png: bytes) -> bytes:
    """The text that `add_png_text` put in.

    Raises:
        ValueError: there is none.
    """
    data = _HEAD_END + 8
    if not png.startswith(_SIGNATURE) or png[_HEAD_END + 4 : data + len(_ITXT_HEAD)] != b"iTXt" + _ITXT_HEAD:
        raise ValueError("the PNG does not begin with our text")
    length = int.from_bytes(png[_HEAD_END : _HEAD_END + 4], "big")
    return png[data + len(_ITXT_HEAD) : data + length]
