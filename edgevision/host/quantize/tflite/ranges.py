"""Which real values the 256 steps of each tensor cover: measured on the calibration set, in bounded memory.

The library's own calibration keeps a moving average of the extremes, in which one picture with an outlier widens a range
and the order of the pictures matters. Here two passes are made, the first for extremes and channel means, the second for
histograms, and the range is the one with the least expected error. For a tensor that only feeds SiLU or HardSwish the error
is that of the activation: far below zero both are flat, and steps spent there are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgevision.errors import ModelError
from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.operators import CONVOLUTIONS, Operator
from edgevision.host.quantize.tflite.runner import Calibration, Runner, samples

RangeMethod: TypeAlias = Literal["min_max", "percentile", "mse"]

BINS = 2048
"""Eight a step where nothing is clipped."""
MOST_VALUES = 1 << 16
"""Values of one tensor of one picture that go into its histogram; of larger ones every n-th (n odd, so that it walks through
the channels, whose number is even)."""
PERCENTILE = 99.999
_SAME_VALUES = frozenset({
    "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PAD", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "STRIDED_SLICE",
    "SLICE", "SPLIT", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "GATHER", "UNPACK",
})  # fmt: skip
"""Operators whose result holds values of their first (SPLIT: second) input or zeros: LiteRT wants one scale on both sides."""
_CANDIDATES = np.linspace(0.02, 1.0, 50)
"""Shares of an extreme that are tried as the bound."""

_Function: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The real values that a tensor's steps cover; zero is always one of them."""

    low: float
    high: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Seen:
    """What was seen of one tensor."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.int64] | None = None
    """(BINS,) between low and high."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """The result of calibration."""

    ranges: Mapping[str, Range]
    """By tensor name, for every float tensor that is no constant."""
    channel_means: Mapping[str, NDArray[np.float64]]
    """Mean of each channel (last axis) of what a convolution reads, by tensor name: (channels,)."""
    pictures: int


def measure(
    graph: Graph,
    calibration: Calibration,
    *,
    method: RangeMethod,
    floors: Mapping[str, float] | None = None,
    threads: int = 1,
) -> Measured:
    """Run the calibration set through a float model.

    Args:
        graph: the float model; its tensor names are unique.
        calibration: the set.
        method: how a range is chosen: the extremes, `PERCENTILE` at either end, or the least expected error. The model's
            inputs and outputs always get their extremes.
        floors: by tensor name: the lowest value that matters (`equalize` gives them).
        threads: of one inference.

    Raises:
        ModelError: a tensor becomes infinite or NaN, or the model fails.
        UsageError: the set is empty or does not fit the model.
    """
    runner = Runner(graph.to_bytes(), graph.name, threads=threads)
    sources = _sources(graph)
    names = {graph.tensor_name(i): i for i in sources}
    measured = sorted({graph.tensor_name(i) for i in sources.values()})
    read = {graph.tensor_name(step.data): graph.tensor_name(sources.get(step.data, step.data))
            for step in graph.operators() if step.kind in CONVOLUTIONS and step.data in sources}  # fmt: skip
    seen = {name: _Seen() for name in measured}
    sums: dict[str, NDArray[np.float64]] = {}
    pictures = 0
    for sample in samples(calibration, graph.name):
        runner.run(sample)
        pictures += 1
        for name, what in seen.items():
            value = runner.real(name)
            low, high = float(value.min()), float(value.max())
            if not np.isfinite(high - low):  # before they are compared: nothing is less than NaN
                raise ModelError(
                    f"model {graph.name!r}: tensor {name!r} becomes infinite or NaN on calibration picture {pictures}; "
                    "is the preprocessing (mean, std) the model's?"
                )
            what.low, what.high = min(what.low, low), max(what.high, high)
        for name in read:
            value = runner.real(name)
            mean = value.reshape(-1, value.shape[-1]).mean(0, dtype=np.float64)
            sums[name] = sums[name] + mean if name in sums else mean
    if method != "min_max":
        _fill_histograms(runner, seen, calibration, graph.name)
    ends = {graph.tensor_name(sources[i]) for i in (*graph.inputs, *graph.outputs) if i in sources}
    shapes = _activations(graph, sources)
    for tensor, floor in (floors or {}).items():
        origin = graph.tensor_name(sources[names[tensor]])
        shapes[origin] = partial(_above, floor)
    chosen = {
        name: Range(low=what.low, high=what.high)
        if method == "min_max" or name in ends
        else _choose(what, method, shapes.get(name))
        for name, what in seen.items()
    }
    return Measured(
        ranges={graph.tensor_name(index): chosen[graph.tensor_name(source)] for index, source in sources.items()},
        channel_means={name: total / pictures for name, total in sums.items()},
        pictures=pictures,
    )


def _fill_histograms(runner: Runner, seen: Mapping[str, _Seen], calibration: Calibration, name: str) -> None:
    counts = {tensor: np.zeros(BINS, np.int64) for tensor in seen}
    for tensor, what in seen.items():
        what.counts = counts[tensor]
    for sample in samples(calibration, name):
        runner.run(sample)
        for tensor, what in seen.items():
            width = what.high - what.low
            if width <= 0:
                continue
            value = runner.real(tensor).reshape(-1)
            value = value[:: value.size // MOST_VALUES | 1]
            # Faster than numpy.histogram: the bins are even, so a value's bin is a product.
            bins = ((value - np.float32(what.low)) * np.float32(BINS / width)).astype(np.int32)
            counts[tensor] += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)


def _sources(graph: Graph) -> dict[int, int]:
    """For each float tensor that is computed or given: the tensor whose values it holds (often itself)."""
    sources = {i: i for i in graph.inputs if graph.type_name(i) == "FLOAT32"}
    for step in graph.operators():
        origin = step.inputs[1 if step.kind == "SPLIT" else 0] if step.inputs else -1
        for output in step.outputs:
            if output < 0 or graph.type_name(output) != "FLOAT32":
                continue
            follows = step.kind in _SAME_VALUES and origin in sources
            sources[output] = sources[origin] if follows else output
    return sources


def _choose(what: _Seen, method: RangeMethod, function: _Function | None) -> Range:
    counts, low, high = what.counts, what.low, what.high
    if counts is None or not counts.any() or high <= low:
        return Range(low=low, high=high)
    edges = np.linspace(low, high, BINS + 1)
    if method == "percentile":
        share = counts.cumsum() / counts.sum()
        rest = 1 - PERCENTILE / 100
        first, last = int((share < rest).sum()), int((share < 1 - rest).sum()) + 1
        return Range(low=min(0.0, float(edges[first])), high=max(0.0, float(edges[min(last, BINS)])))
    centres = (edges[:-1] + edges[1:]) / 2
    apply = function if function is not None else _identity
    best = (low, high)
    # One bound after the other: the error is smooth and has one valley along each.
    for _ in range(2):
        best = _best(centres, counts, apply, [(low * c, best[1]) for c in _CANDIDATES]) if low < 0 else best
        best = _best(centres, counts, apply, [(best[0], high * c) for c in _CANDIDATES]) if high > 0 else best
    return Range(low=best[0], high=best[1])


def _best(
    centres: NDArray[np.float64],
    counts: NDArray[np.int64],
    apply: _Function,
    candidates: list[tuple[float, float]],
) -> tuple[float, float]:
    """The range with the least expected squared error.

    Inside a range rounding adds step^2 / 12 (uniform noise) times the function's slope squared; outside a value is cut.
    """
    wanted = apply(centres)
    width = centres[1] - centres[0]
    slope = (apply(centres + width / 2) - apply(centres - width / 2)) / width
    errors = []
    for low, high in candidates:
        cut = apply(np.clip(centres, low, high)) - wanted
        inside = (centres >= low) & (centres <= high)
        noise = slope**2 * ((high - low) / 255) ** 2 / 12
        errors.append(float((counts * np.where(inside, noise, cut**2)).sum()))
    return candidates[int(np.argmin(errors))]


def _activations(graph: Graph, sources: Mapping[int, int]) -> dict[str, _Function]:
    """The function that a tensor's readers compute, by tensor name; only where all of them make one activation."""
    readers: dict[int, list[Operator]] = {}
    for step in graph.operators():
        for tensor in dict.fromkeys(step.inputs):
            if tensor in sources and step.kind not in _SAME_VALUES:
                readers.setdefault(sources[tensor], []).append(step)
    found: dict[str, _Function] = {}
    for tensor, steps in readers.items():
        kinds = sorted(step.kind for step in steps)
        if kinds == ["LOGISTIC"]:
            found[graph.tensor_name(tensor)] = _sigmoid
        elif kinds == ["HARD_SWISH"]:
            found[graph.tensor_name(tensor)] = _hard_swish
        elif kinds == ["LOGISTIC", "MUL"]:
            gate, product = (next(step for step in steps if step.kind == kind) for kind in ("LOGISTIC", "MUL"))
            if gate.outputs[0] in {sources.get(i) for i in product.inputs}:
                found[graph.tensor_name(tensor)] = _silu
    return found


def _above(floor: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(x, floor)


def _identity(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def _silu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * _sigmoid(x)


def _hard_swish(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x * np.clip(x + 3, 0, 6) / 6)
