"""Which real values an 8-bit tensor should cover, from calibration pictures and in bounded memory.

ONNX Runtime's own percentile and entropy calibrations keep every activation of every picture
(microsoft/onnxruntime#10503). Here two passes leave one histogram a tensor.

The rule that matters most is `Rule.MSE`. A convolution's result is rarely seen as it is: SiLU makes next to nothing of all
below -6, hard swish of all below -3. Covering those values wastes the steps of the others. So a tensor that is only seen
through a function of one variable gets the range with the least error *after* that function.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.prepare import open_session

CalibrationInputs: TypeAlias = Callable[[], Iterable[Mapping[str, NDArray[Any]]]]
"""Each call starts a fresh pass over the calibration pictures, as the float model's input tensors with a batch of one."""

Scalar: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function of one variable, value by value."""

BINS: Final = 4096
GROUP_BYTES: Final = 256 * 2**20
"""Of the tensors that one run of the model gives back at most."""
LEVELS: Final = 255
"""Steps between the lowest and the highest of 256 values."""

_CANDIDATES: Final = 160
"""Ends tried on each side by `Rule.MSE`."""


class Rule(enum.Enum):
    """How a range is chosen from a histogram."""

    MINMAX = "minmax"
    """All that was seen."""
    PERCENTILE = "percentile"
    """All but 0.001 % at either end."""
    MSE = "mse"
    """The least mean squared error after the function through which the tensor is seen."""


PERCENTILE: Final = 99.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The real values that 256 steps cover; zero is always one of them."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high:
            raise ValueError(f"a range must hold 0, not {self.low} to {self.high}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """How often which values of one tensor were seen, over all calibration pictures."""

    low: float
    """The least value seen."""
    high: float
    """The greatest."""
    counts: NDArray[np.float64]
    """(BINS,) between `low` and `high`; exact zeros are not counted: every range holds them without error."""
    zeros: float = 0.0
    """How many exact zeros."""

    @property
    def centres(self) -> NDArray[np.float64]:
        """(BINS,) the value that stands for each bin."""
        return self.low + (np.arange(len(self.counts)) + 0.5) * (self.high - self.low) / len(self.counts)


def observe(
    model: onnx.ModelProto, tensors: Iterable[str], calibration: CalibrationInputs, *, threads: int = 0
) -> dict[str, Histogram]:
    """Watch tensors while the calibration pictures go through the float model, twice.

    Args:
        model: prepared float model.
        tensors: names of float tensors: outputs of nodes, or inputs of the model.
        calibration: pictures; both passes must give the same.
        threads: of ONNX Runtime; 0 for its own choice.

    Returns:
        A histogram by tensor name.

    Raises:
        ModelError: there is no calibration picture, or a tensor took a value that is no number.
    """
    found: dict[str, Histogram] = {}
    for group in _groups(model, list(dict.fromkeys(tensors))):
        low, high = dict.fromkeys(group, np.inf), dict.fromkeys(group, -np.inf)
        for name, value in watch(model, group, calibration, threads=threads):
            # numpy's own: they pass a NaN on.
            low[name] = float(np.minimum(low[name], value.min()))
            high[name] = float(np.maximum(high[name], value.max()))
        for name in group:
            if high[name] == -np.inf and low[name] == np.inf:
                raise ModelError("no calibration picture was given; give some: 100 to 300 that look like the real ones")
            if not (np.isfinite(low[name]) and np.isfinite(high[name])):
                raise ModelError(f"tensor {name!r} became {low[name]} to {high[name]}; the float model is broken")
        counts = {name: np.zeros(BINS) for name in group}
        zeros = dict.fromkeys(group, 0.0)
        for name, value in watch(model, group, calibration, threads=threads):
            seen = value[value != 0].ravel()
            zeros[name] += value.size - seen.size
            width = (high[name] - low[name]) / BINS or 1.0
            places = np.clip((seen - low[name]) * np.float32(1 / width), 0, BINS - 1).astype(np.int32)
            counts[name] += np.bincount(places, minlength=BINS)
        for name in group:
            found[name] = Histogram(low=low[name], high=high[name], counts=counts[name], zeros=zeros[name])
    return found


def watch(
    model: onnx.ModelProto, tensors: Sequence[str], calibration: CalibrationInputs, *, threads: int = 0
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Run the calibration pictures through a model and give each named tensor of each picture, one at a time."""
    inputs = {value.name for value in model.graph.input}
    inner = [name for name in tensors if name not in inputs]
    session = open_session(with_outputs(model, inner), threads=threads)
    for fed in calibration():
        for name in tensors:
            if name in inputs:
                yield name, np.asarray(fed[name], np.float32)
        if inner:
            yield from zip(inner, session.run(inner, dict(fed)), strict=True)


def with_outputs(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """The model with these tensors as its outputs, and no others."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kinds = {value.name: value for value in [*model.graph.value_info, *model.graph.output]}
    del copy.graph.output[:]
    copy.graph.output.extend(kinds.get(name, helper.make_empty_tensor_value_info(name)) for name in tensors)
    return copy


def choose(histogram: Histogram, rule: Rule, *, symmetric: bool = False, seen_through: Scalar | None = None) -> Range:
    """Choose the range of one tensor.

    Args:
        histogram: what was seen of it.
        rule: how.
        symmetric: as much below zero as above, for integers whose zero point is 0.
        seen_through: the function of one variable through which alone the tensor is seen; None for as it is.
    """
    if rule is Rule.MINMAX or not histogram.counts.any() or histogram.low == histogram.high:
        low, high = histogram.low, histogram.high
    elif rule is Rule.PERCENTILE:
        low, high = _percentile(histogram)
    else:
        low, high = _least_error(histogram, symmetric=symmetric, seen_through=seen_through)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    return Range(low=low, high=high)


def _percentile(histogram: Histogram) -> tuple[float, float]:
    total = histogram.counts.sum() + histogram.zeros
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    tail = (1 - PERCENTILE / 100) * total
    below, above = np.cumsum(histogram.counts), np.cumsum(histogram.counts[::-1])
    return float(edges[int((below < tail).sum())]), float(edges[::-1][int((above < tail).sum())])


def _least_error(histogram: Histogram, *, symmetric: bool, seen_through: Scalar | None) -> tuple[float, float]:
    """The ends with the least sum of two errors: rounding between them, clipping beyond.

    A value that is rounded to steps of s is off by s^2/12 in the mean of squares, times the squared slope of the function
    that it goes through. A value that is clipped is off by the function's difference to the end. Both are sums over bins,
    so that running sums give every pair of ends at once.
    """
    x, n = histogram.centres, histogram.counts
    f = x if seen_through is None else np.asarray(seen_through(x), np.float64)
    slope = np.gradient(f, x)
    sums = [np.concatenate([[0.0], np.cumsum(v)]) for v in (n, n * f, n * f * f, n * slope * slope)]
    n_sum, f_sum, ff_sum, slope_sum = sums
    edges = np.linspace(histogram.low, histogram.high, len(n) + 1)
    picks = np.unique(np.linspace(0, len(n), _CANDIDATES + 1).round().astype(int))
    lows = np.unique([*picks[edges[picks] < 0], int(np.abs(edges).argmin()) if histogram.low < 0 else 0])
    highs = np.unique([*picks[edges[picks] > 0], int(np.abs(edges).argmin()) if histogram.high > 0 else len(n)])
    value = np.interp(edges, x, f)
    low, high = np.minimum(edges[lows], 0)[:, None], np.maximum(edges[highs], 0)[None, :]
    span = 2 * np.maximum(-low, high) if symmetric else high - low
    below = ff_sum[lows] - 2 * value[lows] * f_sum[lows] + value[lows] ** 2 * n_sum[lows]
    n_up, f_up, ff_up = (s[-1] - s[highs] for s in (n_sum, f_sum, ff_sum))
    above = ff_up - 2 * value[highs] * f_up + value[highs] ** 2 * n_up
    rounding = (span / LEVELS) ** 2 / 12 * np.maximum(slope_sum[highs][None, :] - slope_sum[lows][:, None], 0)
    error = np.where(span > 0, below[:, None] + above[None, :] + rounding, np.inf)
    first, second = np.unravel_index(int(error.argmin()), error.shape)
    return float(low[first, 0]), float(high[0, second])


def _groups(model: onnx.ModelProto, tensors: Sequence[str]) -> Iterator[list[str]]:
    """Tensors in groups that take at most `GROUP_BYTES` together."""
    sizes = {}
    for value in [*model.graph.value_info, *model.graph.output, *model.graph.input]:
        sizes[value.name] = 4 * int(np.prod([max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]))
    group: list[str] = []
    taken = 0
    for name in tensors:
        if group and taken + sizes.get(name, 0) > GROUP_BYTES:
            yield group
            group, taken = [], 0
        group.append(name)
        taken += sizes.get(name, 0)
    if group:
        yield group
