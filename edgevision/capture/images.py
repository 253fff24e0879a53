"""Pictures as a camera: one file, a folder, or a list; and the one reader of pictures that everybody uses.

`read_image` exists because `cv2.imread` answers `None` to six different mistakes, fills what is missing of a cut-off
file with grey, and allocates whatever a header asks for. Files and uploaded pictures go through the same checks.
"""

from __future__ import annotations

import logging
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from edgevision import registry
from edgevision.capture._header import read_header
from edgevision.capture._pacing import NS_PER_S, Pacer
from edgevision.capture._quiet import quieten
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.errors import CaptureError, ImageError
from edgevision.types import Frame

_LOG = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes (lower case) that make a file of a folder a picture."""

MAX_PIXELS = 128_000_000
"""The largest picture that is decoded: 384 MB as BGR. A line-scan camera's 12000x9000 is 108 million."""

MAX_FILE_BYTES = 256 * 1024 * 1024
"""The largest file that is read."""

_LOOP_FPS = 1.0


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture: (H, W, 3) uint8 BGR.

    Grey, palette, CMYK, 16-bit and transparent pictures become 8-bit BGR; an alpha channel is dropped, 16 bits keep
    their high byte, and of an animation or a multi-page file the first picture is taken. The orientation in a photo's
    EXIF data is applied, so that boxes fit what a viewer shows.

    Raises:
        ImageError: missing, not readable, empty, no picture, cut off, damaged, or too large.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{path}: is a folder; give a picture")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: is not a regular file; give a picture")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(f"{path}: {status.st_size} bytes are above the limit of {MAX_FILE_BYTES}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path.absolute()}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    return decode_image(content, name=str(path))


def decode_image(content: bytes, *, name: str) -> NDArray[np.uint8]:
    """As `read_image`, from a picture file's bytes; `name` is for the message.

    Raises:
        ImageError: empty, no picture, cut off, damaged, or too large.
    """
    if not content:
        raise ImageError(f"{name}: is empty (0 bytes)")
    header = read_header(content)
    if header is None:
        raise ImageError(f"{name}: is not a picture that can be read; known: JPEG, PNG, BMP, TIFF, WebP, GIF")
    size = f"{header.width_px}x{header.height_px}"
    if header.width_px * header.height_px > MAX_PIXELS:
        raise ImageError(
            f"{name}: {size} is above the limit of {MAX_PIXELS // 1_000_000} million pixels; scale it down"
        )
    if not header.complete:
        raise ImageError(f"{name}: the {header.kind} file is cut off: its end is missing; copy it again")
    if header.width_px <= 0 or header.height_px <= 0:
        raise ImageError(f"{name}: the {header.kind} file is damaged: its size is {size}")
    quieten()
    try:
        image = cast("Any", cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    except (cv2.error, MemoryError) as error:
        reason = "out of memory" if isinstance(error, MemoryError) or error.code == cv2.Error.StsNoMem else "damaged"
        raise ImageError(f"{name}: the {header.kind} file of {size} cannot be decoded: {reason}") from error
    if image is None:
        raise ImageError(
            f"{name}: the {header.kind} file cannot be decoded: damaged, or of a kind that OpenCV cannot read"
        )
    return cast("NDArray[np.uint8]", image)


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sorts picture2 before picture10."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def image_files(folder: str | Path) -> list[Path]:
    """The pictures of a folder by suffix, in natural order; folders inside are not entered, hidden files are left out.

    Raises:
        CaptureError: the folder is missing, is none, or cannot be listed.
    """
    folder = Path(folder)
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
    except OSError as error:
        raise CaptureError(f"{folder.absolute()}: cannot be listed: {error.strerror}") from error
    return sorted(found, key=lambda path: (natural_key(path), path.name))


class Options(registry.Options):
    """Which pictures, and whether they come again."""

    path: str | list[str] = Field(min_length=1)
    """A picture, a folder of pictures (natural order, not recursive), or a list of pictures."""
    loop: bool = False
    """Start again at the end. The camera's `fps` sets the pace; without it pictures come as fast as they are taken, and
    in a loop one a second."""

    @field_validator("path")
    @classmethod
    def _no_empty_path(cls, path: str | list[str]) -> str | list[str]:
        if not all(part.strip() and "\0" not in part for part in ([path] if isinstance(path, str) else path)):
            raise ValueError("is empty; give a picture, a folder or a list of pictures")
        return path


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is read yet."""
    return ImagesSource(options, context)


class ImagesSource:
    """Pictures one after the other. One that cannot be read is logged, counted, and leaves a gap in `sequence`."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        self._options = options
        self._context = context
        self._closing = threading.Event()
        self.unreadable = 0
        """Pictures that were skipped since the source was made."""

    @property
    def live(self) -> bool:
        """False: pictures wait."""
        return False

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures; a looped folder is listed anew each time round. See the protocol."""
        clock, fps = self._context.clock, self._context.fps or (_LOOP_FPS if self._options.loop else None)
        pacer = Pacer(clock, self._closing) if fps is not None else None
        warned: set[Path] = set()
        sequence = 0
        while not self._closing.is_set():
            paths = self._paths()
            readable, first_fault = 0, ""
            for path in paths:
                if pacer and fps and not pacer.wait_for(round(sequence * NS_PER_S / fps)):
                    return
                if self._closing.is_set():
                    return
                time_ns, mono_ns = clock.time_ns(), clock.monotonic_ns()
                try:
                    image = read_image(path)
                except ImageError as error:
                    self.unreadable += 1
                    first_fault = first_fault or str(error)
                    if path not in warned:
                        warned.add(path)
                        _LOG.warning("camera %s: skipped: %s", self._context.camera, error)
                else:
                    readable += 1
                    yield Frame(
                        image=image,
                        camera=self._context.camera,
                        sequence=sequence,
                        captured_at_ns=time_ns,
                        captured_mono_ns=mono_ns,
                    )
                sequence += 1
            if readable == 0:
                raise CaptureError(f"none of {len(paths)} pictures can be read; the first: {first_fault}")
            if not self._options.loop:
                return

    def close(self) -> None:
        """Stop `frames()`."""
        self._closing.set()

    def _paths(self) -> list[Path]:
        """The pictures to show, in order."""
        if isinstance(self._options.path, list):
            paths = [Path(path) for path in self._options.path]
        elif Path(self._options.path).is_dir():
            paths = image_files(self._options.path)
            if not paths:
                known = " ".join(sorted(IMAGE_SUFFIXES))
                raise CaptureError(f"{Path(self._options.path).absolute()}: holds no picture; known: {known}")
        else:
            paths = [Path(self._options.path)]
        for path in paths:
            if not path.exists():
                raise CaptureError(f"{path.absolute()}: no such picture or folder; check `path`")
        return paths
