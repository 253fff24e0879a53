"""NNCF's `quantize` on the ONNX model, preset MIXED and nothing else.

python quantize_nncf.py MODEL CALIBRATION OUTPUT
"""

from __future__ import annotations

from typing import Any

import calibration
import nncf
import onnx
from onnx import version_converter

PER_CHANNEL_OPSET = 13
"""Weights with one scale per channel need it."""

if __name__ == "__main__":
    file, folder, output = calibration.paths()
    model = onnx.load(file)
    if model.opset_import[0].version < PER_CHANNEL_OPSET:
        model = version_converter.convert_version(model, PER_CHANNEL_OPSET)
    name = model.graph.input[0].name

    def feed(tensor: Any) -> dict[str, Any]:
        """One picture as the model's input."""
        return {name: tensor}

    pictures = list(calibration.tensors(folder))
    dataset = nncf.Dataset(pictures, feed)
    onnx.save(nncf.quantize(model, dataset, preset=nncf.QuantizationPreset.MIXED, subset_size=len(pictures)), output)
