"""What a preprocessor is: it puts a frame's pixels into the model's input, straight into one reused buffer.

One file a way of fitting the picture (letterbox, centre crop, stretch); the pixel arithmetic, which they share, is in
`_pixels.py`. A preprocessor knows nothing of runtimes: it is told the input's `TensorSpec` and how the model wants pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from edgevision.types import Frame, ModelInput


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputFormat:
    """How the model wants its picture, from the manifest's `input`."""

    size: tuple[int, int]
    """Width, height in pixels."""
    color: Literal["RGB", "BGR"]
    mean: tuple[float, float, float] | None = None
    """real = (pixel - mean) / std per channel in the model's colour order; None with `std` None is the raw pixel, 0-255."""
    std: tuple[float, float, float] | None = None
    buffer: NDArray[Any] | None = None
    """Where the tensor is to be written, in the input's shape (1, ...) and type: one picture's place in a batch. None: the
    preprocessor makes its own. One that writes elsewhere costs a copy and is no fault."""


class Preprocessor(Protocol):
    """Frame in, tensors in the model's own dtype and layout out."""

    def __call__(self, frame: Frame) -> ModelInput:
        """Fill the buffer from `frame.image` (within `frame.roi`, if set). The result is valid until the next call."""
        ...
