"""OpenCV and the FFmpeg inside it write to stderr by themselves; a user should see one line, and it should be ours.

Whoever wants their noise back, to look into a camera that will not open, sets `OPENCV_LOG_LEVEL` or
`OPENCV_FFMPEG_LOGLEVEL`: what is set is left alone.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, cast

import cv2

_AV_LOG_QUIET = "-8"


@lru_cache(maxsize=1)
def quieten() -> None:
    """Silence OpenCV's and FFmpeg's own log, once; call it before anything of theirs is opened or decoded."""
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 4.9 has the function at its top, 5.0 in a module of its own; 0 is silent in both.
        own_module = getattr(cv2.utils, "logging", None)
        (own_module or cast("Any", cv2)).setLogLevel(0)
    # FFmpeg's level is read when the first capture of the process is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _AV_LOG_QUIET)
