"""The limit: LiteRT alone on a tensor that is ready, with its defaults."""

from __future__ import annotations

from pathlib import Path

from peer import LITERT, Looker

REQUIREMENTS = LITERT
TASKS = ("yolox-tflite", "ssd-tflite", "mobilenet-tflite")
NOTE = "the inference call alone, on one ready tensor: no picture is looked at"


def make(task: str, model: Path, threads: int) -> Looker:  # noqa: ARG001
    """Load the model."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=threads)
    interpreter.allocate_tensors()
    (spec,) = interpreter.get_input_details()
    interpreter.set_tensor(spec["index"], np.full(spec["shape"], 114, spec["dtype"]))
    return Looker(look=lambda _: interpreter.invoke(), tell=None)
