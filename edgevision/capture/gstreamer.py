"""Frames from a GStreamer pipeline, for cameras that only it reaches: a Jetson's CSI camera, decoders in hardware.

OpenCV runs the pipeline, and only a build that has GStreamer in it can: PyPI's have not, Debian's and JetPack's have. What is
wrong with a pipeline GStreamer tells on standard error, so its words are let through to the log here and nowhere else.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, cast

import cv2
from pydantic import Field, field_validator

from edgevision import registry
from edgevision.capture._grabbing import Grabber
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.capture.images import MAX_PIXELS
from edgevision.errors import CaptureError, PluginError
from edgevision.types import Frame

_log = logging.getLogger(__name__)

_SINK = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
"""Ours, where the pipeline has none: 8-bit BGR, and the newest frame only."""
_HAS_SINK = re.compile(r"(^|[!\s])appsink\b")
_ELEMENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_KNOWS_TIMEOUTS = (4, 7)
_WARNINGS = 3
"""cv::utils::logging::LOG_LEVEL_WARNING."""
_TOOL_S = 20


class Options(registry.Options):
    """What to run."""

    pipeline: str = Field(min_length=1, max_length=8192)
    """As for gst-launch-1.0, without the sink: `nvarguscamerasrc ! ... ! nvvidconv ! video/x-raw,format=BGRx`. One that ends in
    an `appsink` of its own is run as it is."""
    read_timeout_s: float = Field(10.0, gt=0, le=300)
    """How long the next frame may take."""

    def __repr_args__(self) -> Any:
        """The fields for `repr`: a pipeline may hold a password, so its digest stands for it."""
        digest = hashlib.sha256(self.pipeline.encode()).hexdigest()
        return [(name, digest if name == "pipeline" else value) for name, value in super().__repr_args__()]

    @field_validator("pipeline")
    @classmethod
    def _check_pipeline(cls, pipeline: str) -> str:
        if not pipeline.strip(" \t\n!") or "\0" in pipeline:
            raise ValueError("is empty; give a source and what follows it, parted by ` ! `")
        if pipeline.strip().endswith("!"):
            raise ValueError("ends in `!`; give the last element without it, our sink is put behind it")
        return " ".join(pipeline.split())


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is opened yet.

    Raises:
        PluginError: this OpenCV has no GStreamer.
    """
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise PluginError(
            f"capture type gstreamer needs an OpenCV with GStreamer in it, and this one ({cv2.__version__}, {cv2.__file__}) "
            "has none, as all of PyPI's: make the environment with `python3 -m venv --system-site-packages`, then `pip "
            "uninstall opencv-python-headless` in it and `apt-get install python3-opencv gstreamer1.0-plugins-good` (on a "
            "Jetson, JetPack's OpenCV has it)"
        )
    return GStreamerSource(options, context)


class GStreamerSource:
    """A pipeline's frames."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        self._options = options
        self._closing = threading.Event()
        self._checked = False
        self._shown = f"GStreamer pipeline {options.pipeline.split(maxsplit=1)[0][:60]} ..."
        self._grabber = Grabber(context, shown=self._shown)

    @property
    def live(self) -> bool:
        """True: a pipeline does not wait for us."""
        return True

    @property
    def unreadable(self) -> int:
        """Frames that could not be decoded since the source was made."""
        return self._grabber.unreadable

    def frames(self) -> Iterator[Frame]:
        """Run the pipeline, and yield its frames; see the protocol."""
        self._grabber.restart()
        return self._grabber.live_frames(
            self._open,
            self._closing,
            read_timeout_s=self._options.read_timeout_s,
            ended="the pipeline ended, or an element failed; what GStreamer says of it stands in the log",
        )

    def close(self) -> None:
        """Ask `frames()` to end; the thread that runs it ends the pipeline."""
        self._closing.set()

    def _open(self) -> cv2.VideoCapture:
        pipeline = self._options.pipeline
        if not _HAS_SINK.search(pipeline):
            pipeline = f"{pipeline} ! {_SINK}"
        own_module = getattr(cv2.utils, "logging", None)
        (own_module or cast("Any", cv2)).setLogLevel(_WARNINGS)
        self._check_elements(pipeline)
        timeout_ms = round(self._options.read_timeout_s * 1000)
        parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        # Builds before that refuse to open with them: there a pipeline that hangs is ended with its reader process.
        knows = tuple(map(int, cv2.__version__.split(".")[:2])) >= _KNOWS_TIMEOUTS
        try:
            capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER, parameters if knows else [])
        except cv2.error as failure:
            raise CaptureError(f"{self._shown}: cannot be run: {failure.err}") from failure
        if not capture.isOpened():
            capture.release()
            raise CaptureError(
                f"{self._shown}: cannot be run: what GStreamer says of it stands in the log before this; try it with "
                "`gst-launch-1.0 -v PIPELINE ! fakesink`, and look for an element with `gst-inspect-1.0 NAME`"
            )
        self._check_size(capture)
        return capture

    def _check_elements(self, pipeline: str) -> None:
        """Refuse an element that is not installed: OpenCV would leave it out, and wait for ever for what it should give."""
        tool = shutil.which("gst-inspect-1.0")
        if tool is None or self._checked:
            return
        for part in pipeline.split("!"):
            words = part.split(maxsplit=1)
            name = words[0] if words else ""
            if not _ELEMENT.fullmatch(name):  # caps, or a branch
                continue
            try:
                # No shell, and `name` is letters, digits and dashes.
                done = subprocess.run([tool, "--exists", name], check=False, capture_output=True, timeout=_TOOL_S)  # noqa: S603  see above
            except (OSError, subprocess.TimeoutExpired) as failure:
                _log.warning("%s: its elements cannot be checked: %s", self._shown, failure)
                return
            if done.returncode:
                raise CaptureError(
                    f"{self._shown}: GStreamer has no element {name!r} here: correct `pipeline`, or install its plug-in "
                    "(`gstreamer1.0-plugins-*`, nvidia-l4t-gstreamer on a Jetson)"
                )
        self._checked = True

    def _check_size(self, capture: cv2.VideoCapture) -> None:
        width, height = (capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            capture.release()
            raise CaptureError(f"{self._shown}: pictures of {width:.0f}x{height:.0f} are above {MAX_PIXELS} pixels")
