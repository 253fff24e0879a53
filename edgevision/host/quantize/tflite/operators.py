"""One operator of a .tflite file's graph, and where its kind keeps data, weight and bias."""

from __future__ import annotations

from dataclasses import dataclass

CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"})
"""Operators with weights, where a network spends its time; the second input is the weight, `_BIAS_INPUT` the bias."""

_BIAS_INPUT = {"TRANSPOSE_CONV": 3}
_CHANNEL_AXIS = {"DEPTHWISE_CONV_2D": 3}
"""The weight's axis that counts output channels: 0 but here (TensorFlow Lite quantisation specification)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One step of the graph; tensors by index, -1 for an input that is left out."""

    index: int
    kind: str
    """The schema's name, CONV_2D."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def weight(self) -> int:
        """Tensor index of a convolution's weight."""
        return self.inputs[1]

    @property
    def bias(self) -> int:
        """Tensor index of a convolution's bias; -1 where it has none."""
        place = _BIAS_INPUT.get(self.kind, 2)
        return self.inputs[place] if place < len(self.inputs) else -1

    @property
    def data(self) -> int:
        """Tensor index of what a convolution reads."""
        return self.inputs[2] if self.kind == "TRANSPOSE_CONV" else self.inputs[0]

    @property
    def channel_axis(self) -> int:
        """The weight's axis of output channels."""
        return _CHANNEL_AXIS.get(self.kind, 0)
