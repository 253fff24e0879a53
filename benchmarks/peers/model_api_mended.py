"""The smallest repair of openvino-model-api's YOLOX wrapper, which does not run as released (0.4.7).

Since the base class lets the adapter resize the picture, the wrapper's own resizing, which notes the scale for the decoder,
is no longer called (KeyError: 'scale'). Here the scale is noted beside it. And the ONNX Runtime adapter is refused for
every wrapper that is not on a list of names, for no reason that the wrapper knows.
"""

from __future__ import annotations

from typing import Any

from model_api_onnx import CONFIGURATION

SETTINGS = {**CONFIGURATION, "resize_type": "fit_to_window", "pad_value": 114}


def wrapper(adapter: Any, *, model_type: str) -> Any:
    """The YOLOX wrapper; `model_type` is the name that it tells the base class."""
    from model_api.models.yolo import YOLOX

    class Mended(YOLOX):  # type: ignore[misc]
        """YOLOX that finds its scale."""

        __model__ = model_type

        def preprocess(self, dict_inputs: Any, meta: Any) -> Any:
            """Note the scale of the letterbox."""
            dict_inputs, meta = super().preprocess(dict_inputs, meta)
            height, width = meta["original_shape"][:2]
            meta["scale"] = min(self.w / width, self.h / height)
            return dict_inputs, meta

    return Mended(adapter, SETTINGS, preload=True)
