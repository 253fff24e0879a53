"""ONNX Runtime's `quantize_static` with nothing but its defaults.

python quantize_onnxrt_defaults.py MODEL CALIBRATION OUTPUT
"""

from __future__ import annotations

from typing import Any

import calibration
import onnx
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """One picture at a time."""

    def __init__(self, name: str) -> None:
        self._feeds = ({name: tensor} for tensor in calibration.tensors(calibration.paths()[1]))

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, None at the end."""
        return next(self._feeds, None)


if __name__ == "__main__":
    model, _, output = calibration.paths()
    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))  # as its documentation wants
    quantize_static(str(prepared), str(output), Reader(onnx.load(model).graph.input[0].name))
