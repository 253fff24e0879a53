"""Two models timed in turns: the ratio tells which one works more."""

import numpy as np

from edgevision.host.quantize.latency import compare_latency
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


def test_ten_times_the_work_is_slower_and_a_tenth_is_faster():
    slower = compare_latency(Stage(20), Stage(200), seconds=0.1)
    assert slower.slower
    assert not slower.faster
    assert slower.ratio > 2
    faster = compare_latency(Stage(200), Stage(20), seconds=0.1)
    assert faster.faster
    assert faster.ratio < 0.5


def test_the_document_is_plain_numbers():
    found = compare_latency(Stage(5), Stage(5), seconds=0.01).document()
    assert found.keys() == {"float_ms", "ms", "ratio", "low", "high", "threads"}
    assert found["low"] <= found["ratio"] <= found["high"]
