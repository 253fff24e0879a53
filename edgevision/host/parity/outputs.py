"""Two models' outputs: which belongs to which, and how far apart they are.

Integers are made real first, so a model with int8 outputs is compared with its float source in the same unit. SQNR, the
signal-to-quantisation-noise ratio, is 10 log10(sum a^2 / sum (a - b)^2) over all pictures: 20 dB is an error of a tenth of
the signal, 60 dB of a thousandth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.errors import InferenceError
from edgevision.pipeline import Model
from edgevision.quantization import dequantize
from edgevision.types import Frame, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two outputs that mean the same."""

    first: TensorSpec
    second: TensorSpec
    by: str
    """How they were paired: `role predictions`, `name`, `shape`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """All outputs of two models."""

    pairs: tuple[Pair, ...]
    alone: tuple[str, ...]
    """Outputs of either that found no partner, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDifference:
    """One pair over all pictures."""

    first: str
    second: str
    by: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    """As they came with the first picture."""
    comparable: bool
    """False where the shapes differ: then nothing below was measured."""
    max_error: float | None
    """The largest absolute difference of one value."""
    mean_error: float | None
    cosine: float | None
    """Of the two as one vector; None where one is all zero."""
    sqnr_db: float | None
    """None where it is infinite: the two are equal (see `max_error`)."""
    not_finite: int
    """Values that are NaN or infinite in one and not the same in the other; they are left out of the rest."""


def pair_outputs(first: Model, second: Model) -> Pairing:
    """Pair outputs by the role that the models' manifests give them, else by name, else by shape where only one fits."""
    left = {spec.name: spec for spec in first.backend.outputs}
    right = {spec.name: spec for spec in second.backend.outputs}
    pairs = []

    def join(one: str, two: str, by: str) -> None:
        pairs.append(Pair(first=left.pop(one), second=right.pop(two), by=by))

    roles = second.manifest.outputs_for(second.backend_name)
    for role, name in first.manifest.outputs_for(first.backend_name).items():
        if name in left and roles.get(role) in right:
            join(name, roles[role], f"role {role}")
    for name in [name for name in left if name in right]:
        join(name, name, "name")
    for name in list(left):
        shape = left[name].shape
        fitting = [other for other, spec in right.items() if spec.shape == shape]
        if len(fitting) == 1 and sum(spec.shape == shape for spec in left.values()) == 1:
            join(name, fitting[0], "shape")
    alone = [f"{spec.name!r} of {first.name}" for spec in left.values()]
    alone += [f"{spec.name!r} of {second.name}" for spec in right.values()]
    return Pairing(pairs=tuple(pairs), alone=tuple(alone))


def raw_outputs(model: Model, frame: Frame) -> dict[str, NDArray[np.float64]]:
    """One picture's outputs in real values, by name, as copies.

    Raises:
        InferenceError: the runtime failed.
    """
    tensors = model.backend.run(model.preprocessor(frame).tensors)
    return {spec.name: _real(tensors[spec.name], spec) for spec in model.backend.outputs}


def _real(values: NDArray[Any], spec: TensorSpec) -> NDArray[np.float64]:
    if spec.quantization is not None:
        return dequantize(values, spec.quantization).astype(np.float64)
    return values.astype(np.float64)


class Difference:
    """Adds up one pair's differences, picture by picture."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._comparable = True
        self._count = self._not_finite = 0
        self._max = self._sum = self._noise = self._dot = self._left = self._right = 0.0

    def add(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
        """One picture's two outputs."""
        if self._shapes is None:
            self._shapes = (first.shape, second.shape)
        # Axes of size 1 carry nothing: [1, 1000] and [1, 1000, 1, 1] are the same numbers in the same order.
        squeezed = [tuple(size for size in shape if size != 1) for shape in (first.shape, second.shape)]
        if squeezed[0] != squeezed[1]:
            self._comparable = False
            return
        left, right = first.ravel(), second.ravel()
        finite = np.isfinite(left) & np.isfinite(right)
        if not finite.all():
            # Two equal infinities are equal; everything else that is not finite is a fault.
            self._not_finite += int((~finite & ~(left == right)).sum())
            left, right = left[finite], right[finite]
        if not left.size:
            return
        error = np.abs(left - right)
        self._count += left.size
        self._max = max(self._max, float(error.max()))
        self._sum += float(error.sum())
        self._noise += float(error @ error)
        self._dot += float(left @ right)
        self._left += float(left @ left)
        self._right += float(right @ right)

    def result(self) -> OutputDifference:
        """What came together."""
        if self._shapes is None:
            raise InferenceError(f"output {self._pair.first.name!r}: nothing was compared")
        measured = self._comparable and self._count > 0
        norm = math.sqrt(self._left) * math.sqrt(self._right)
        return OutputDifference(
            first=self._pair.first.name,
            second=self._pair.second.name,
            by=self._pair.by,
            shapes=self._shapes,
            comparable=self._comparable,
            max_error=self._max if measured else None,
            mean_error=self._sum / self._count if measured else None,
            cosine=self._dot / norm if measured and norm > 0 else None,
            sqnr_db=self._sqnr() if measured else None,
            not_finite=self._not_finite,
        )

    def _sqnr(self) -> float | None:
        if self._noise == 0:
            return None
        # A source of zeros has no signal: any error is then all there is.
        return 10 * math.log10(self._left / self._noise) if self._left > 0 else -math.inf


def lowest_sqnr(differences: Sequence[OutputDifference]) -> float | None:
    """Of those that differ at all; None where none does or none could be compared."""
    found = [single.sqnr_db for single in differences if single.sqnr_db is not None]
    return min(found, default=None)
