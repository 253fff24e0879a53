"""What the benchmarks share: a picture to look at, and what the machine was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import edgevision
from edgevision.capture.images import read_image

_PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "ai-edge-litert", "paho-mqtt", "pydantic")
_PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


def scene(width: int, height: int) -> NDArray[np.uint8]:
    """A picture of the package's own photos side by side, (height, width, 3) BGR."""
    files = sorted(_PHOTOS.glob("*.jpg"))
    pictures = [cv2.resize(read_image(file), (width // len(files) + 1, height)) for file in files]
    return np.ascontiguousarray(np.hstack(pictures)[:, :width]).astype(np.uint8)


def environment() -> dict[str, Any]:
    """The machine and the versions that figures were taken with."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    flags = next((line for line in cpu.splitlines() if line.startswith("flags")), "")
    return {
        "edgevision": edgevision.__version__,
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "features": [name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8") if name in flags],
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
