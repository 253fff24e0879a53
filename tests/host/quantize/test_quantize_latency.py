"""Two models timed in turns: the ratio tells which one works more."""

from typing import cast

import numpy as np

from edgevision.host.quantize.latency import Latency, compare_latency
from edgevision.pipeline import Model
from edgevision.types import Frame, ImageTransform, ModelInput, TensorSpec


class Stage:
    """A preprocessor and a backend of so much work."""

    def __init__(self, work):
        self._work = work
        self._matrix = np.random.default_rng(0).random((64, 64))
        self.threads = 1
        self.inputs = (TensorSpec(name="x", shape=(64, 64), dtype=np.dtype(float)),)
        self.backend = self.preprocessor = self

    def __call__(self, frame: Frame) -> ModelInput:
        size = (frame.image.shape[1], frame.image.shape[0])
        whole = ImageTransform(frame_size=size, input_size=size, scale=(1, 1), offset=(0, 0), region=(0, 0, *size))
        return ModelInput(tensors={"x": self._matrix}, transform=whole)

    def run(self, tensors):
        for _ in range(self._work):
            self._matrix @ tensors["x"]


def compared(first, second, *, seconds) -> Latency:
    return compare_latency(cast("Model", Stage(first)), cast("Model", Stage(second)), seconds=seconds)


def test_ten_times_the_work_is_slower_and_a_tenth_is_faster():
    slower = compared(20, 200, seconds=0.1)
    assert slower.slower
    assert not slower.faster
    assert slower.ratio > 2
    faster = compared(200, 20, seconds=0.1)
    assert faster.faster
    assert faster.ratio < 0.5


def test_the_document_is_plain_numbers():
    found = compared(5, 5, seconds=0.01).document()
    assert found.keys() == {"float_ms", "ms", "ratio", "low", "high", "threads"}
    assert found["low"] <= found["ratio"] <= found["high"]
