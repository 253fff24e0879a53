"""What a V4L2 camera offers, asked through ioctl(2): no v4l2-ctl is needed.

Structures and numbers are those of linux/videodev2.h; all fields are 32 bits wide, so they are the same on every machine.
"""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

QUERYCAP, ENUM_FMT, ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
CAPTURE, DEVICE_CAPS = 0x1 | 0x1000, 0x80000000  # V4L2_CAP_VIDEO_CAPTURE and _MPLANE; V4L2_CAP_DEVICE_CAPS
_TYPES = (1, 9)  # V4L2_BUF_TYPE_VIDEO_CAPTURE, and its multi-planar form
_DISCRETE = 1
_MOST = 64
"""Of each list: a driver that never ends its list is none of ours."""

Ioctl = Callable[[int, int, bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Who a device node is."""

    driver: str
    card: str
    bus: str
    captures: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A pixel format and size, with the rates it can have."""

    fourcc: str
    size: str
    """`1280x720`, or a range `160x120-1920x1080`."""
    fps: tuple[float, ...]
    """Frames per second, fastest first; empty where the driver tells none."""

    def __str__(self) -> str:
        """For people: `MJPG 1280x720 at 30, 15`."""
        return f"{self.fourcc} {self.size}" + (f" at {', '.join(f'{rate:g}' for rate in self.fps)}" if self.fps else "")


def query(descriptor: int, ioctl: Ioctl = fcntl.ioctl) -> Card:
    """VIDIOC_QUERYCAP; raises OSError for what is no V4L2 device."""
    answer = ioctl(descriptor, QUERYCAP, bytes(104))
    everything, own = struct.unpack_from("=II", answer, 84)
    return Card(
        driver=_text(answer[:16]),
        card=_text(answer[16:48]),
        bus=_text(answer[48:80]),
        captures=bool((own if everything & DEVICE_CAPS else everything) & CAPTURE),
    )


def modes(descriptor: int, ioctl: Ioctl = fcntl.ioctl) -> Iterator[Mode]:
    """Every mode of a camera, in the driver's order."""
    for kind in _TYPES:
        for index in range(_MOST):
            answer = _ask(ioctl, descriptor, ENUM_FMT, struct.pack("=II56x", index, kind))
            if answer is None:
                break
            fourcc = bytes(answer[44:48])
            for size, width, height in _sizes(descriptor, fourcc, ioctl):
                rates = _rates(descriptor, fourcc, width, height, ioctl)
                yield Mode(fourcc=fourcc.decode("ascii", "replace").rstrip(), size=size, fps=rates)


def _sizes(descriptor: int, fourcc: bytes, ioctl: Ioctl) -> Iterator[tuple[str, int, int]]:
    for index in range(_MOST):
        answer = _ask(ioctl, descriptor, ENUM_FRAMESIZES, struct.pack("=I4s36x", index, fourcc))
        if answer is None:
            return
        kind, *numbers = struct.unpack_from("=I6I", answer, 8)
        if kind != _DISCRETE:
            least_w, most_w, _, least_h, most_h, _ = numbers
            yield f"{least_w}x{least_h}-{most_w}x{most_h}", most_w, most_h
            return
        yield f"{numbers[0]}x{numbers[1]}", numbers[0], numbers[1]


def _rates(descriptor: int, fourcc: bytes, width: int, height: int, ioctl: Ioctl) -> tuple[float, ...]:
    found = set()
    for index in range(_MOST):
        asked = struct.pack("=I4sII36x", index, fourcc, width, height)
        answer = _ask(ioctl, descriptor, ENUM_FRAMEINTERVALS, asked)
        if answer is None:
            break
        kind, numerator, denominator = struct.unpack_from("=III", answer, 16)
        if numerator:  # seconds a frame
            found.add(round(denominator / numerator, 2))
        if kind != _DISCRETE:
            break  # a range: its shortest interval is the fastest rate
    return tuple(sorted(found, reverse=True))


def _ask(ioctl: Ioctl, descriptor: int, request: int, asked: bytes) -> bytes | None:
    """One entry of a list; None behind its end (EINVAL), and where a driver has no such list (ENOTTY)."""
    try:
        return ioctl(descriptor, request, asked)
    except OSError:
        return None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")
