"""How large a picture is as it is shown, without decoding it: the header's size, turned as the EXIF data says.

A reader of pictures turns a photo by its EXIF orientation, so a label tool shows it turned and boxes are drawn on that. A
size from the bare header would put every box of such a photo outside its picture. Whether the file is all there is told
by the same look; damage within it shows only when it is decoded (`capture.images.read_image`).

Sources: CIPA DC-008 (EXIF), tag 0x0112; PNG 3, chunk eXIf; RFC 9649 (WebP), chunk EXIF.
"""

from __future__ import annotations

import stat
import struct
from pathlib import Path

from edgevision.capture._header import read_header
from edgevision.capture.images import IMAGE_SUFFIXES, MAX_FILE_BYTES, MAX_PIXELS
from edgevision.errors import ImageError

_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})
"""Orientations that swap width and height."""


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as `read_image` will give them.

    Raises:
        ImageError: missing, not readable, empty, no picture, cut off, or too large. The text does not name the file.
    """
    content = _content(path)
    header = read_header(content)
    if header is None:
        raise ImageError("is not a picture that can be read; known: JPEG, PNG, BMP, TIFF, WebP, GIF")
    if not header.complete:
        raise ImageError(f"the {header.kind} file is cut off: its end is missing; copy it again")
    if header.width_px <= 0 or header.height_px <= 0:
        raise ImageError(f"the {header.kind} file is damaged: its size is {header.width_px}x{header.height_px}")
    if header.width_px * header.height_px > MAX_PIXELS:
        size = f"{header.width_px}x{header.height_px}"
        raise ImageError(f"{size} is above the limit of {MAX_PIXELS // 1_000_000} million pixels; scale it down")
    if _orientation(content, header.kind) in _SIDEWAYS:
        return header.height_px, header.width_px
    return header.width_px, header.height_px


def pictures_under(folder: Path) -> list[Path]:
    """Every picture in a folder and the folders inside it, by suffix; hidden ones are left out. Sorted by path."""
    found = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in inside):
            found.append(path)
    return sorted(path for path in found if path.is_file())


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(f"{status.st_size} bytes are above the limit of {MAX_FILE_BYTES}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError("the picture is missing") from None
    except (OSError, ValueError) as failure:  # ValueError: a zero byte in the name
        raise ImageError(f"cannot be read: {getattr(failure, 'strerror', None) or failure}") from failure
    if not content:
        raise ImageError("is empty (0 bytes)")
    return content


def _orientation(content: bytes, kind: str) -> int:
    """1 to 8; 1 is upright, and what a file without (readable) EXIF data is taken for."""
    try:
        block = _EXIF[kind](content) if kind in _EXIF else b""
        return _orientation_of_tiff(block) if block else 1
    except (struct.error, IndexError):
        return 1


def _orientation_of_tiff(block: bytes) -> int:
    order = "<" if block.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", block, 4)
    (entries,) = struct.unpack_from(f"{order}H", block, directory)
    for position in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, _kind, _count, value = struct.unpack_from(f"{order}HHIH", block, position)
        if tag == _ORIENTATION:
            return int(value)
    return 1


def _jpeg_exif(content: bytes) -> bytes:
    position = 2
    while content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xDA:  # start of scan: no more headers
            break
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # filling, or a marker without a length
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if marker == 0xE1 and content[position + 4 : position + 10] == b"Exif\0\0":
            return content[position + 10 : position + 2 + length]
        position += 2 + length
    return b""


def _png_exif(content: bytes) -> bytes:
    position = 8
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        if name == b"eXIf":
            return content[position + 8 : position + 8 + length]
        position += 12 + length
    return b""


def _webp_exif(content: bytes) -> bytes:
    position = 12
    while position + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, position)
        if name == b"EXIF":
            return content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return b""


def _tiff_exif(content: bytes) -> bytes:
    return content


_EXIF = {"JPEG": _jpeg_exif, "PNG": _png_exif, "WebP": _webp_exif, "TIFF": _tiff_exif}
