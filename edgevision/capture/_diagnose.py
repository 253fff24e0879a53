"""Why a camera, stream or file would not open, in words that say what to do: OpenCV only says that it did not.

Asked once, after the failure, so it may take a moment; it never repeats what a stream's address holds of secrets.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from pathlib import Path
from urllib.parse import urlsplit

from edgevision.errors import CaptureError

_V4L_MAJOR = 81
_VIDIOC_QUERYCAP = 0x80685600
_CAPTURE_CAPABILITIES = 0x1 | 0x1000  # V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_CAPTURE_MPLANE

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


def why_no_device(path: str) -> str:
    """Why a V4L2 device cannot be opened, and what to do."""
    try:
        status = Path(path).stat()
    except OSError as error:
        present = ", ".join(sorted(str(device) for device in Path("/dev").glob("video[0-9]*"))) or "none"
        return (
            f"{error.strerror}; video devices present: {present}. Is the camera plugged in and handed to the container?"
        )
    if not (stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _V4L_MAJOR):
        return "it is not a video device; `v4l2-ctl --list-devices` lists those that are"
    return why_not_usable(path)


def why_not_usable(path: str) -> str:
    """Why an existing device node gives no pictures: permission, another program, or no camera behind it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except PermissionError:
        return f"no permission; add the user that runs edgevision to the group that owns {path} (mostly `video`)"
    except OSError as error:
        return (
            _BUSY.format(path=path)
            if error.errno == errno.EBUSY
            else f"{error.strerror}; unplug it and plug it in again"
        )
    try:
        answer = fcntl.ioctl(descriptor, _VIDIOC_QUERYCAP, bytes(104))
    except OSError:
        return "it does not answer as a V4L2 camera; `v4l2-ctl --list-devices` lists those that do"
    finally:
        os.close(descriptor)
    if not struct.unpack_from("=I", answer, 88)[0] & _CAPTURE_CAPABILITIES:
        return "it takes no pictures (a metadata or output node); most cameras take them on their first node"
    return _BUSY.format(path=path)


_BUSY = "it is busy: another program has it; `fuser {path}` names that program"


def check_file(path: Path) -> None:
    """Refuse what is no readable file before a video library sees it.

    Raises:
        CaptureError: missing, a folder, no regular file, empty, or not ours to read.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise CaptureError(f"{path}: no such video file; check `url`") from None
    except OSError as error:
        raise CaptureError(f"{path}: cannot be opened: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise CaptureError(f"{path}: is a folder; for pictures in a folder use `type: images`")
    if not stat.S_ISREG(status.st_mode):
        raise CaptureError(f"{path}: is not a regular file; cameras are /dev/videoN, streams rtsp:// or http://")
    if status.st_size == 0:
        raise CaptureError(f"{path}: is empty (0 bytes); copy the video again")
    if not os.access(path, os.R_OK):
        raise CaptureError(f"{path}: no permission to read it; check its owner and mode")


def why_no_stream(url: str, *, timeout_s: float) -> str:
    """Why a stream's address gives no video, found by knocking at its port; and what to do."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme.lower()]
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except socket.gaierror as error:
        return f"the host name {host!r} cannot be resolved ({error.strerror}); check the name and the DNS"
    except TimeoutError:
        return f"{host}:{port} does not answer; check the cable, the power, the address and the firewall"
    except OSError as error:
        return f"{host}:{port}: {error.strerror}; check the address and the port, and that the camera is on"
    return (
        f"{host}:{port} answers, but gives no video; check the path, the user name and password "
        "(special characters must be percent-encoded), and how many viewers the camera allows"
    )
