"""Opening a `cv2.VideoCapture` well: the right backend, timeouts that count, few threads, and a reason where it fails.

Timeouts and the number of decoding threads only count with FFmpeg, and only when given at open. OpenCV takes an RTSP
transport only from the environment of the process; the lock is there because of that.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import cv2

from edgevision.capture._diagnose import check_file, why_no_device, why_no_stream
from edgevision.capture._login import Login, with_login
from edgevision.capture._quiet import quieten
from edgevision.capture._urls import redact_url
from edgevision.capture.images import MAX_PIXELS
from edgevision.errors import CaptureError

_LOG = logging.getLogger(__name__)

Kind: TypeAlias = Literal["device", "stream", "file"]

_THREADS = 1
"""FFmpeg decoding threads. It would take all cores; one gives up no speed at these sizes, and costs less CPU time."""

# V4L2_EXPOSURE_MANUAL, and V4L2_EXPOSURE_APERTURE_PRIORITY, which is what UVC cameras call automatic.
_MANUAL_EXPOSURE, _AUTO_EXPOSURE = 1.0, 3.0
_EXPOSURE_UNITS_PER_MS = 10

_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_V4L_TIMEOUT = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"
_ENVIRONMENT_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """What is to be opened, and how."""

    url: str | int = field(repr=False)  # may hold a password, and a traceback shows reprs
    kind: Kind
    open_timeout_s: float
    read_timeout_s: float
    transport: Literal["tcp", "udp"]
    width: int | None
    height: int | None
    fps: float | None
    fourcc: str | None
    buffers: int
    exposure_ms: float | Literal["auto"] | None
    login: Callable[[], Login | None]
    """Asked for each connection to a stream."""

    @property
    def target(self) -> str:
        """What OpenCV is given: a device's path, an address, or a file's absolute path."""
        if isinstance(self.url, int):
            return f"/dev/video{self.url}"
        return str(Path(self.url).absolute()) if self.kind == "file" else self.url

    @property
    def shown(self) -> str:
        """`target` without its password; for logs and errors."""
        return redact_url(self.target)

    def open(self) -> cv2.VideoCapture:
        """Open it.

        Raises:
            CaptureError: it cannot be opened; the message says why, as far as that can be found out.
        """
        quieten()
        if self.kind == "device":
            capture = self._open_device()
        elif self.kind == "stream":
            capture = self._open_stream()
        else:
            capture = self._open_file()
        width, height = (capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            capture.release()
            raise CaptureError(f"{self.shown}: pictures of {width:.0f}x{height:.0f} are above {MAX_PIXELS} pixels")
        return capture

    def _open_device(self) -> cv2.VideoCapture:
        # V4L2 in OpenCV knows one timeout for the process, in whole seconds, read when the first camera is opened.
        os.environ.setdefault(_V4L_TIMEOUT, str(math.ceil(self.read_timeout_s)))
        capture = _capture(self.target, cv2.CAP_V4L2, [])
        if capture is None:
            raise CaptureError(f"{self.target}: cannot be opened: {why_no_device(self.target)}")
        # The pixel format first: it decides which sizes and rates there are.
        wanted: list[tuple[str, int, float | None]] = [
            ("fourcc", cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self.fourcc) if self.fourcc else None),
            ("width", cv2.CAP_PROP_FRAME_WIDTH, self.width),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT, self.height),
            ("fps_request", cv2.CAP_PROP_FPS, self.fps),
            ("buffers", cv2.CAP_PROP_BUFFERSIZE, self.buffers),
            *self._exposure(),
        ]
        for _, key, value in wanted:
            if value is not None:
                capture.set(key, value)
        # Read back after all are set: the size may still move when the rate is set.
        for name, key, value in wanted:
            given = capture.get(key)
            if value is not None and abs(given - value) > 0.01 * value:
                _LOG.warning(
                    "%s: %s was asked to be %s, the camera gives %s",
                    self.target,
                    name,
                    *(_told(name, v) for v in (value, given)),
                )
        return capture

    def _exposure(self) -> list[tuple[str, int, float | None]]:
        """V4L2_CID_EXPOSURE_AUTO, and V4L2_CID_EXPOSURE_ABSOLUTE in units of 100 us, which OpenCV hands on as they are."""
        if self.exposure_ms is None:
            return []
        if self.exposure_ms == "auto":
            return [("exposure mode", cv2.CAP_PROP_AUTO_EXPOSURE, _AUTO_EXPOSURE)]
        return [
            ("exposure mode", cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL_EXPOSURE),
            ("exposure_ms", cv2.CAP_PROP_EXPOSURE, max(1.0, round(self.exposure_ms * _EXPOSURE_UNITS_PER_MS))),
        ]

    def _open_stream(self) -> cv2.VideoCapture:
        address = with_login(self.target, self.login())
        parameters = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(self.open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(self.read_timeout_s * 1000),
            cv2.CAP_PROP_N_THREADS, _THREADS,
        ]  # fmt: skip
        started_s = time.monotonic()
        if self.target.lower().startswith("rtsp"):
            with _ENVIRONMENT_LOCK:
                before = os.environ.get(_FFMPEG_OPTIONS)
                # What the user has set stays, and comes after ours, so that it wins.
                os.environ[_FFMPEG_OPTIONS] = f"rtsp_transport;{self.transport}" + (f"|{before}" if before else "")
                try:
                    capture = _capture(address, cv2.CAP_FFMPEG, parameters)
                finally:
                    if before is None:
                        del os.environ[_FFMPEG_OPTIONS]
                    else:
                        os.environ[_FFMPEG_OPTIONS] = before
        else:
            capture = _capture(address, cv2.CAP_FFMPEG, parameters)
        if capture is not None:
            return capture
        if time.monotonic() - started_s >= 0.9 * self.open_timeout_s:
            reason = f"no video within {self.open_timeout_s:g} s (open_timeout_s)"
            raise CaptureError(
                f"{self.shown}: cannot be opened: {reason}; check that the camera is on and not overloaded"
            )
        reason = why_no_stream(self.target, timeout_s=min(3.0, self.open_timeout_s))
        raise CaptureError(f"{self.shown}: cannot be opened: {reason}")

    def _open_file(self) -> cv2.VideoCapture:
        check_file(Path(self.target))
        capture = _capture(self.target, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, _THREADS])
        if capture is None:
            raise CaptureError(
                f"{self.target}: is not a video that can be read: another kind of file, cut off, or damaged"
            )
        return capture


def _told(name: str, value: float) -> str:
    """A property's value for people."""
    if name == "exposure_ms":
        return f"{value / _EXPOSURE_UNITS_PER_MS:g}"
    if name == "exposure mode":
        return {_MANUAL_EXPOSURE: "manual", _AUTO_EXPOSURE: "auto", 0.0: "auto"}.get(value, f"{value:g}")
    return int(value).to_bytes(4, "little").decode("ascii", "replace") if name == "fourcc" else f"{value:g}"


def _capture(target: str, api: int, parameters: list[int]) -> cv2.VideoCapture | None:
    """An open capture, or None."""
    try:
        capture = cv2.VideoCapture(target, api, parameters)
    except cv2.error:  # some builds raise where others only stay closed; why is found out by the caller
        return None
    if capture.isOpened():
        return capture
    capture.release()
    return None
