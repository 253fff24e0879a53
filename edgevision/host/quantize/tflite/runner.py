"""Runs a .tflite model and lets its inner tensors be looked at: for calibration, bias correction and sensitivity.

Not the daemon's backend, which gives outputs only and keeps nothing in memory that it does not need.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.errors import ModelError, UsageError
from edgevision.host.quantize.tflite.file import PACKAGE

Sample: TypeAlias = Mapping[str, NDArray[Any]]
"""One picture's input tensors by name, batch 1, in the float model's own type and layout."""

Calibration: TypeAlias = Callable[[], Iterable[Sample]]
"""Gives a fresh pass over the calibration set at each call, always the same pictures in the same order."""


class Runner:
    """One interpreter that keeps all inner tensors."""

    def __init__(self, content: bytes, name: str, *, threads: int = 1) -> None:
        """Load a model.

        Args:
            content: the .tflite file.
            name: the model's name, for messages.
            threads: of one inference; sums may differ in their last bit with another number.

        Raises:
            ModelError: LiteRT refuses the model.
        """
        self._name = name
        self._content = content  # the interpreter reads the weights out of these bytes
        runtime = registry.require("ai_edge_litert.interpreter", package=PACKAGE, purpose="calibrating a .tflite model")
        try:
            with warnings.catch_warnings():
                # It warns that keeping all tensors costs memory, which is what we want them for.
                warnings.simplefilter("ignore", UserWarning)
                self._interpreter: Any = runtime.Interpreter(
                    model_content=content,
                    num_threads=threads,
                    experimental_op_resolver_type=runtime.OpResolverType.BUILTIN,
                    experimental_preserve_all_tensors=True,
                )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"model {name!r}: LiteRT cannot run it: {' '.join(str(error).split())}") from error
        self._inputs: dict[str, dict[str, Any]] = {d["name"]: d for d in self._interpreter.get_input_details()}
        self._details: dict[str, dict[str, Any]] = {}

    def run(self, sample: Sample) -> None:
        """One inference; integer inputs get the sample's real values quantised.

        Raises:
            UsageError: the sample has other tensors than the model's inputs.
            ModelError: the model fails.
        """
        if set(sample) != set(self._inputs):
            raise UsageError(
                f"model {self._name!r}: calibration gives tensors {', '.join(sorted(sample)) or 'none'}; "
                f"the model's inputs are {', '.join(sorted(self._inputs))}"
            )
        try:
            for key, detail in self._inputs.items():
                value = sample[key]
                if tuple(detail["shape"]) != value.shape:
                    self._resize(key, value.shape)
                if value.dtype == np.float32 and detail["dtype"] != np.float32:
                    value = _quantize(value, detail)
                self._interpreter.set_tensor(detail["index"], value)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"model {self._name!r}: calibration fails: {' '.join(str(error).split())}") from error

    def _resize(self, key: str, shape: tuple[int, ...]) -> None:
        self._interpreter.resize_tensor_input(self._inputs[key]["index"], shape)
        self._interpreter.allocate_tensors()
        self._inputs = {d["name"]: d for d in self._interpreter.get_input_details()}
        self._details = {}

    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._by_name())

    def real(self, name: str) -> NDArray[np.float32]:
        """A tensor's values after the last run, dequantised where it holds integers.

        Args:
            name: the tensor's; the last of that name where several have it.
        """
        detail = self._by_name()[name]
        value = self._interpreter.get_tensor(detail["index"])
        scales = np.asarray(detail["quantization_parameters"]["scales"], np.float32)
        if not scales.size:
            return np.asarray(value, np.float32)
        zero_points = np.asarray(detail["quantization_parameters"]["zero_points"], np.float32)
        shape = [1] * value.ndim
        if scales.size > 1:
            shape[int(detail["quantization_parameters"]["quantized_dimension"])] = scales.size
            scales, zero_points = scales.reshape(shape), zero_points.reshape(shape)
        return np.asarray((value.astype(np.float32) - zero_points) * scales, np.float32)

    def _by_name(self) -> dict[str, dict[str, Any]]:
        if not self._details:
            self._details = {detail["name"]: detail for detail in self._interpreter.get_tensor_details()}
        return self._details


def samples(calibration: Calibration, name: str, *, limit: int | None = None) -> Iterator[Sample]:
    """One pass over the calibration set.

    Args:
        calibration: the set.
        name: the model's name, for messages.
        limit: look at so many at most.

    Raises:
        UsageError: the set is empty.
    """
    count = 0
    for sample in calibration():
        if limit is not None and count >= limit:
            return
        count += 1
        yield sample
    if not count:
        raise UsageError(f"model {name!r}: there are no calibration pictures; give a folder of at least a hundred")


def _quantize(value: NDArray[np.float32], detail: Mapping[str, Any]) -> NDArray[Any]:
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    steps = np.rint(value / np.float32(scale)) + zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(detail["dtype"]))
