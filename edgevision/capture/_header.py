"""What a picture file says of itself, read before a single pixel is decoded.

A decoder allocates what the header asks for, and a header of a hundred bytes can ask for gigabytes: so the size is read
here first. The same look tells whether the file is all there, because decoders fill what is missing with grey. Only the
formats that cameras and data sets use; what is not recognised here is not decoded.

Sources: ITU-T T.81 (JPEG), W3C PNG 3, GIF89a, the Windows BITMAPINFOHEADER, RFC 9649 (WebP), TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureHeader:
    """Kind, size and wholeness of a picture file."""

    kind: str
    width_px: int = 0
    height_px: int = 0
    complete: bool = True
    """False where the file is known to end too early, within its header or after it."""


def read_header(content: bytes) -> PictureHeader | None:
    """The header of a picture file; None where it is none of the kinds that we know."""
    for magic, kind, reader in _READERS:
        if content.startswith(magic):
            try:
                return reader(content)
            except (struct.error, IndexError):
                return PictureHeader(kind=kind, complete=False)
    return None


def _jpeg(content: bytes) -> PictureHeader:
    position, width, height, least_bytes = 2, 0, 0, 0
    while content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # filling, or a marker without a length
            position += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # start of frame: precision, height, width
            height, width = struct.unpack_from(">HH", content, position + 5)
            # Huffman codes have at least one bit, and every 8x8 block has one: less data cannot hold the picture, and a decoder
            # would allocate all of it and fill it with grey.
            least_bytes = width * height // 512 if marker <= 0xC2 else 0
        if marker == 0xDA:  # start of scan: within its data FF is always stuffed, so FF D9 can only be the end
            complete = content.find(b"\xff\xd9", position) != -1 and len(content) >= least_bytes
            return PictureHeader(kind="JPEG", width_px=width, height_px=height, complete=complete)
        position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    return PictureHeader(kind="JPEG", width_px=width, height_px=height, complete=False)


def _png(content: bytes) -> PictureHeader:
    width, height = struct.unpack_from(">II", content, 16)
    position, complete = 8, False
    while position + 12 <= len(content) and not complete:
        length, name = struct.unpack_from(">I4s", content, position)
        position += 12 + length
        complete = name == b"IEND" and position <= len(content)
    return PictureHeader(kind="PNG", width_px=width, height_px=height, complete=complete)


def _gif(content: bytes) -> PictureHeader:
    width, height = struct.unpack_from("<HH", content, 6)
    return PictureHeader(kind="GIF", width_px=width, height_px=height)


def _bmp(content: bytes) -> PictureHeader:
    (pixels_at,) = struct.unpack_from("<I", content, 10)
    (header_bytes,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", content, 18)
    # A negative height is a picture stored from the top down.
    return PictureHeader(kind="BMP", width_px=width, height_px=abs(height), complete=len(content) > pixels_at)


def _webp(content: bytes) -> PictureHeader | None:
    if content[8:12] != b"WEBP":  # a sound or a film: RIFF holds those too
        return None
    riff_bytes, chunk = struct.unpack_from("<I", content, 4)[0], content[12:16]
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(content[24:27], "little")
        height = 1 + int.from_bytes(content[27:30], "little")
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        return PictureHeader(kind="WebP")
    return PictureHeader(kind="WebP", width_px=width, height_px=height, complete=len(content) >= riff_bytes + 8)


def _tiff(content: bytes) -> PictureHeader:
    order = "<" if content.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", content, 4)
    (entries,) = struct.unpack_from(f"{order}H", content, directory)
    sides: dict[int, int] = {}
    for index in range(entries):
        position = directory + 2 + 12 * index
        tag, kind = struct.unpack_from(f"{order}HH", content, position)
        if tag in {256, 257}:  # ImageWidth, ImageLength: SHORT (3) or LONG (4)
            (sides[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", content, position + 8)
    return PictureHeader(kind="TIFF", width_px=sides.get(256, 0), height_px=sides.get(257, 0))


_READERS: tuple[tuple[bytes, str, Callable[[bytes], PictureHeader | None]], ...] = (
    (b"\xff\xd8\xff", "JPEG", _jpeg),
    (b"\x89PNG\r\n\x1a\n", "PNG", _png),
    (b"GIF87a", "GIF", _gif),
    (b"GIF89a", "GIF", _gif),
    (b"BM", "BMP", _bmp),
    (b"RIFF", "WebP", _webp),
    (b"II*\x00", "TIFF", _tiff),
    (b"MM\x00*", "TIFF", _tiff),
)
