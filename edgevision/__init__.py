"""edgevision: camera frames in, INT8 model, detections out over MQTT.

    import edgevision
    model = edgevision.load_model("efficientnet-lite0")
    print(model.predict("photo.jpg"))

The names below are loaded when they are first used: `import edgevision` needs no camera, runtime, broker or SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgevision._version import __version__

if TYPE_CHECKING:
    from edgevision.assembly import load_model
    from edgevision.errors import EdgevisionError
    from edgevision.pipeline import Model
    from edgevision.tiling import Tiling
    from edgevision.types import Classifications, Detections, Embedding, Frame, Segmentation

__all__ = [
    "Classifications",
    "Detections",
    "EdgevisionError",
    "Frame",
    "Model",
    "Embedding",
    "Segmentation",
    "Tiling",
    "__version__",
    "load_model",
]

_HOMES = {
    "load_model": "edgevision.assembly",
    "Model": "edgevision.pipeline",
    "Tiling": "edgevision.tiling",
    "EdgevisionError": "edgevision.errors",
    "Classifications": "edgevision.types",
    "Detections": "edgevision.types",
    "Frame": "edgevision.types",
    "Embedding": "edgevision.types",
    "Segmentation": "edgevision.types",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
