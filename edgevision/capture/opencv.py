"""Frames through OpenCV: V4L2 cameras, RTSP and HTTP streams, and video files.

Live sources are read without pause and only the wanted frames are converted, because frames that nobody reads queue up
and become lag. Files wait for the reader and lose nothing. What opening means for each kind is in `_open.py`; a source
that breaks off says so with a `CaptureError` and leaves trying again to the camera's supervisor.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import cv2
from pydantic import Field, field_validator, model_validator

from edgevision.capture._diagnose import DEFAULT_PORTS
from edgevision.capture._grabbing import Grabber, grab
from edgevision.capture._login import LoginOptions
from edgevision.capture._open import Kind, Opener
from edgevision.capture._pacing import FramePicker, MediaTime, Pacer
from edgevision.capture._urls import redact_url
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.errors import CaptureError
from edgevision.types import Frame

_LOG = logging.getLogger(__name__)

_ONLY_FOR = {
    "device": ("width", "height", "fps_request", "fourcc", "buffers", "exposure_ms"),
    "stream": ("username", "password", "password_file"),
    "file": ("loop", "pace"),
}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


_KINDS = {"device": "V4L2 cameras", "stream": "streams", "file": "video files"}


class Options(LoginOptions):
    """What a camera, stream or file is opened with; `username` and `password_file` are for streams."""

    url: str | int
    """V4L2 index (0) or device (/dev/video0, /dev/v4l/by-id/...), rtsp(s):// or http(s):// address, or a file."""
    loop: bool = False
    """Files: start again at the end."""
    pace: Literal["realtime", "max"] = "realtime"
    """Files: at the speed of recording, or as fast as frames are taken."""
    width: int | None = Field(None, ge=1, le=16384)
    """V4L2: pixels to ask the camera for."""
    height: int | None = Field(None, ge=1, le=16384)
    """V4L2: pixels to ask the camera for."""
    fps_request: float | None = Field(None, gt=0, le=1000)
    """V4L2: the camera's own frame rate. The camera's `fps` in the config only chooses among the frames that come."""
    fourcc: str | None = Field(None, pattern=r"^[ -~]{4}$")
    """V4L2: pixel format, such as MJPG or YUYV."""
    exposure_ms: Annotated[float, Field(gt=0, le=10_000)] | Literal["auto"] | None = None
    """V4L2: a fixed exposure time, so that what moves stays sharp and no lamp changes the picture; or the camera's own choice.
    Without it, the camera stays as it is."""
    buffers: int = Field(1, ge=1, le=10)
    """V4L2: frames that the driver holds. 1 is the least lag; a camera that then gives half its rate wants 2."""
    open_timeout_s: float = Field(10.0, gt=0, le=300)
    """Streams: how long opening may take."""
    read_timeout_s: float = Field(10.0, gt=0, le=300)
    """Live sources: how long the next frame may take; for V4L2 in whole seconds."""
    transport: Literal["tcp", "udp"] = "tcp"
    """RTSP."""

    def __repr_args__(self) -> Any:
        """The fields for `repr`, without the address's password."""
        return [
            (name, redact_url(value) if name == "url" and isinstance(value, str) else value)
            for name, value in super().__repr_args__()
        ]

    @property
    def kind(self) -> Kind:
        """What `url` is."""
        if isinstance(self.url, int) or self.url.startswith("/dev/"):
            return "device"
        return "stream" if _SCHEME.match(self.url) else "file"

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | int) -> str | int:
        if isinstance(url, str) and url.isascii() and url.strip().isdigit():
            url = int(url)
        if isinstance(url, int):
            if not 0 <= url < 256:
                raise ValueError("a V4L2 index is 0 to 255")
            return url
        if not url.strip() or "\0" in url:
            raise ValueError(
                "is empty; give a device (0, /dev/video0), an rtsp:// or http:// address, or a file's path"
            )
        scheme = _SCHEME.match(url)
        if scheme is not None:
            if scheme[1].lower() == "file":
                return url[scheme.end() :]
            _check_stream(url, scheme[1].lower())
        return url

    @model_validator(mode="after")
    def _check_kind(self) -> Options:
        for kind, names in _ONLY_FOR.items():
            given = [name for name in names if name in self.model_fields_set]
            if given and self.kind != kind:
                raise ValueError(
                    f"{', '.join(given)}: only for {_KINDS[kind]}, and `url` is a {self.kind}; take it out"
                )
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height: give both or neither")
        if "transport" in self.model_fields_set and not str(self.url).lower().startswith("rtsp"):
            raise ValueError("transport: only for rtsp:// addresses; take it out")
        return self


def _check_stream(url: str, scheme: str) -> None:
    """Refuse an address that cannot be meant; the texts hold nothing of it, because it may hold a password."""
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"unknown kind of address {scheme}://; known: {', '.join(DEFAULT_PORTS)}, a device, a file")
    try:
        parts = urlsplit(url)
        fault = "" if parts.hostname else "the address names no host"
        _ = parts.port
    except ValueError:
        fault = "the address has no valid host and port"
    if fault:
        raise ValueError(f"{fault}; special characters in a password must be percent-encoded (@ is %40, / is %2F)")


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is opened yet."""
    return OpenCvSource(options, context)


class OpenCvSource:
    """A camera, stream or file read through `cv2.VideoCapture`."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        self._options = options
        self._context = context
        self._closing = threading.Event()
        self._opener = Opener(
            url=options.url,
            kind=options.kind,
            open_timeout_s=options.open_timeout_s,
            read_timeout_s=options.read_timeout_s,
            transport=options.transport,
            width=options.width,
            height=options.height,
            fps=options.fps_request,
            fourcc=options.fourcc,
            buffers=options.buffers,
            exposure_ms=options.exposure_ms,
            login=options.login,
        )
        self._grabber = Grabber(context, shown=self._opener.shown)

    @property
    def live(self) -> bool:
        """True for cameras and streams, False for files."""
        return self._options.kind != "file"

    @property
    def unreadable(self) -> int:
        """Frames that could not be decoded since the source was made."""
        return self._grabber.unreadable

    def frames(self) -> Iterator[Frame]:
        """Open, and yield frames until the end, a fault, or `close()`; see the protocol.

        The times are taken as soon as the frame has been grabbed, before its pixels are converted; a file that is read
        at its own pace gives them when the frame is due.
        """
        self._grabber.restart()
        if not self.live:
            return self._file_frames()
        ended = (
            "the camera was unplugged or failed"
            if self._options.kind == "device"
            else "the other side ended the stream"
        )
        return self._grabber.live_frames(
            self._opener.open, self._closing, read_timeout_s=self._options.read_timeout_s, ended=ended
        )

    def close(self) -> None:
        """Ask `frames()` to end. The thread that runs it releases the device: a release beside a grab crashes."""
        self._closing.set()

    def _file_frames(self) -> Iterator[Frame]:
        picker, media = FramePicker(self._context.fps), MediaTime()
        pacer = Pacer(self._context.clock, self._closing) if self._options.pace == "realtime" else None
        first_pass = True
        while not self._closing.is_set():
            capture = self._opener.open()
            try:
                yield from self._one_pass(capture, picker, media, pacer, first_pass=first_pass)
            finally:
                capture.release()
            if not self._grabber.delivered and not self._closing.is_set():
                raise CaptureError(f"{self._opener.shown}: holds no picture that can be decoded; is it a video?")
            if not self._options.loop:
                return
            first_pass = False

    def _one_pass(
        self, capture: cv2.VideoCapture, picker: FramePicker, media: MediaTime, pacer: Pacer | None, *, first_pass: bool
    ) -> Iterator[Frame]:
        clock = self._context.clock
        fps = capture.get(cv2.CAP_PROP_FPS)
        if not media.restart(fps) and first_pass:
            self._warn("tells no frame rate; 25 frames a second are assumed")
        position_ms, repaired = 0.0, media.repaired
        while not self._closing.is_set():
            if not grab(capture):
                self._end_of_pass(capture, position_ms, media.repaired - repaired, first_pass=first_pass)
                return
            position_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            media_ns = media.advance(position_ms)
            if not picker.wanted(media_ns):
                continue
            if pacer is not None and not pacer.wait_for(media_ns):
                return
            if frame := self._grabber.frame(capture, clock.time_ns(), clock.monotonic_ns()):
                yield frame

    def _end_of_pass(self, capture: cv2.VideoCapture, last_ms: float, repaired: int, *, first_pass: bool) -> None:
        """Say, once, what was odd about a file."""
        if not first_pass:
            return
        fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if repaired:
            self._warn(f"{repaired} frame times stand still or jump; the file's frame rate was used in their place")
        # By time and not by number: the number of frames is an estimate where the rate varies.
        elif fps > 0 and count > 0 and last_ms < 900 * count / fps - 1000:
            self._warn(f"ends after {last_ms / 1000:.1f} of {count / fps:.1f} s: the file is cut off or damaged")

    def _warn(self, text: str) -> None:
        _LOG.warning("camera %s: %s: %s", self._context.camera, self._opener.shown, text)
