"""The comment inside a JPEG: where a snapshot carries its JSON."""

from __future__ import annotations

# JPEG (ITU-T T.81, B.1.1.3): the file begins with SOI; a COM segment is FF FE, a 16-bit length that counts itself, the text.
_SOI, _COM = b"\xff\xd8", b"\xff\xfe"
_MAX_COMMENT = 0xFFFF - 2


def add_jpeg_comment(jpeg: bytes, comment: bytes) -> bytes:
    """Put `comment` into a JPEG as its first segment; every reader of pictures passes over it."""
    if jpeg[:2] != _SOI or len(comment) > _MAX_COMMENT:
        raise ValueError(f"needs a JPEG and a comment of at most {_MAX_COMMENT} bytes")
    return b"".join((_SOI, _COM, (len(comment) + 2).to_bytes(2, "big"), comment, jpeg[2:]))


def read_jpeg_comment(jpeg: bytes) -> bytes:
    """The comment that `add_jpeg_comment` put in.

    Raises:
        ValueError: there is none.
    """
    if jpeg[:4] != _SOI + _COM:
        raise ValueError("the JPEG does not begin with a comment")
    length = int.from_bytes(jpeg[4:6], "big")
    return jpeg[6 : 4 + length]
