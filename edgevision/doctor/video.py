"""What OpenCV was built with: which sources it can open at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import cv2

from edgevision.doctor.findings import Finding, fault, ok, warning

_GSTREAMER = (
    "PyPI's OpenCV has none: install the system's OpenCV (Debian, JetPack: python3-opencv) in a venv made with "
    "--system-site-packages"
)


def build(job: dict[str, Any]) -> Iterator[Finding]:
    """OpenCV's version, FFmpeg, GStreamer and V4L2; what is lacking is a fault only where a camera needs it."""
    yield from judge(cv2.__version__, cv2.getBuildInformation(), [_source(camera) for camera in job["cameras"]])


def _source(camera: dict[str, Any]) -> dict[str, Any]:
    source = camera.get("source")
    return source if isinstance(source, dict) else {}


def judge(version: str, information: str, sources: list[dict[str, Any]]) -> Iterator[Finding]:
    """What OpenCV's build information says; `sources` are those of the config."""
    has = {name: _has(information, name) for name in ("FFMPEG", "GStreamer", "v4l/v4l2")}
    words = ", ".join(f"{name} {has[name] or 'no'}" for name in has)
    yield ok("video", "opencv", f"OpenCV {version}: {words}")
    if not has["FFMPEG"]:
        found = "no FFmpeg: neither streams nor video files can be opened"
        needs = any(_needs_ffmpeg(source) for source in sources)
        yield (fault if needs else warning)("video", "FFmpeg", found, "pip install opencv-python-headless")
    if not has["GStreamer"]:
        needs = any(
            "gst" in str(source.get("type", "")) or "gst" in str(source.get("backend", "")) for source in sources
        )
        if needs:
            yield fault("video", "GStreamer", "a camera needs GStreamer, which this OpenCV has not", _GSTREAMER)
        else:
            yield ok("video", "GStreamer", f"not in this OpenCV, and no camera needs it ({_GSTREAMER})")


def _needs_ffmpeg(source: dict[str, Any]) -> bool:
    url = source.get("url")
    return source.get("type") == "opencv" and isinstance(url, str) and not url.startswith("/dev/") and not url.isdigit()


def _has(information: str, name: str) -> str:
    """What stands behind a part's name: a version or YES; empty for NO and for a part that is not named."""
    found = re.search(rf"^\s*{re.escape(name)}:\s*(\S.*?)\s*$", information, re.MULTILINE)
    return found[1] if found and not found[1].startswith("NO") else ""
