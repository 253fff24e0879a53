"""The process in which onnx2tf and TensorFlow convert a model: `python -m ... MODEL.onnx FOLDER SHAPES`, run by `convert.py`.

A process of its own, because TensorFlow fills memory and logs that the tool needs for other things, onnx2tf ends the process
on some errors, and both can crash. Nothing is downloaded: a calibration sample lies where onnx2tf looks before it would
fetch one, and no socket can be connected.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

_SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""onnx2tf's name for it, looked for in the working directory."""


def main() -> None:
    """Convert; the working directory is a temporary one."""
    source, folder, shapes = sys.argv[1:4]
    socket.socket.connect = _refuse  # type: ignore[method-assign]
    socket.socket.connect_ex = _refuse  # type: ignore[method-assign]
    # Noise and not zeros: onnx2tf tries layouts out on it and compares the results.
    np.save(Path(_SAMPLE), np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
    options: dict[str, Any] = {"overwrite_input_shape": json.loads(shapes)} if json.loads(shapes) else {}
    importlib.import_module("onnx2tf").convert(
        input_onnx_file_path=source,
        output_folder_path=folder,
        not_use_onnxsim=True,
        non_verbose=True,
        **options,
    )


def _refuse(*_: Any) -> NoReturn:
    raise ConnectionRefusedError("a model is converted without a network")


if __name__ == "__main__":
    main()
