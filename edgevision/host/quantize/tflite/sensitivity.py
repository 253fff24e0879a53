"""Which operators lose the most when a model is quantised: the order in which they should go back to float.

Both models see the same pictures; every tensor that both have is compared, equalised ones (`equalize`) in the float
model's scale. The ratio counts all errors up to that operator,
so what tells about an operator itself is how far it falls below what it read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevision.host.quantize.tflite.equalize import unscaled
from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.runner import Calibration, Runner, samples
from edgevision.host.quantize.tflite.silu import seen_through

PICTURES = 8
"""Looked at unless more are asked for: the ratio is over millions of values, and moves by tenths of a decibel after these."""
_PERFECT_DB = 200.0
"""Stands for no difference at all; float32 itself ends near 150."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSqnr:
    """How well one operator's result survived."""

    tensor: str
    """Name of the tensor that it makes; also what `quantize_tflite(float_operators=...)` takes."""
    kind: str
    """CONV_2D, ADD ..."""
    sqnr_db: float
    """Signal to quantisation noise of the result, in decibels: 10 log10(sum x^2 / sum (x - y)^2). For a convolution that is
    seen through SiLU or a sigmoid only, that of the activation's result."""
    loss_db: float
    """How far that is below the worst of the operator's inputs; negative where the operator evens errors out."""


def layer_sqnr(
    float_content: bytes,
    quantized_content: bytes,
    calibration: Calibration,
    *,
    name: str,
    pictures: int = PICTURES,
    threads: int = 1,
) -> tuple[LayerSqnr, ...]:
    """Compare every tensor of a float model with that of the model made of it.

    Args:
        float_content: the float .tflite file that was quantised.
        quantized_content: what `quantize_tflite` made of it.
        calibration: pictures, in the float model's own type and layout.
        name: the model's name, for messages.
        pictures: how many are looked at.
        threads: of one inference.

    Returns:
        One entry per operator that both models have, in the order they run.

    Raises:
        ModelError: a file is damaged, or a model fails.
        UsageError: there are no pictures, or they do not fit the model.
    """
    graph = Graph(float_content, name)
    graph.unfold_float16()
    graph.make_names_unique()
    exact, rounded = (Runner(content, name, threads=threads) for content in (graph.to_bytes(), quantized_content))
    operators = [step for step in graph.operators() if step.outputs and graph.type_name(step.outputs[0]) == "FLOAT32"]
    both = rounded.names()
    scaled = unscaled(graph, lambda wanted: rounded.real(wanted) if wanted in both else None)
    tensors = [graph.tensor_name(i) for step in operators for i in step.outputs if graph.tensor_name(i) in both]
    tensors += [graph.tensor_name(i) for i in graph.inputs if graph.tensor_name(i) in both]
    signal = dict.fromkeys(tensors, 0.0)
    noise = dict.fromkeys(tensors, 0.0)
    for sample in samples(calibration, name, limit=pictures):
        exact.run(sample)
        rounded.run(sample)
        for tensor in tensors:
            wanted = exact.real(tensor).reshape(-1)
            got = rounded.real(tensor)
            error = wanted - (got * scaled[tensor] if tensor in scaled else got).reshape(-1)
            signal[tensor] += _energy(wanted)
            noise[tensor] += _energy(error)
    ratios = {tensor: _decibels(signal[tensor], noise[tensor]) for tensor in tensors}
    # Where the activation is flat a result is cut on purpose: what counts is what the activation makes of it.
    ratios |= {tensor: ratios[seen] for tensor, seen in seen_through(graph).items() if {tensor, seen} <= ratios.keys()}
    found = []
    for step in operators:
        tensor = graph.tensor_name(step.outputs[0])
        if tensor in ratios:
            read = [ratios[graph.tensor_name(i)] for i in step.inputs if i >= 0 and graph.tensor_name(i) in ratios]
            loss = (min(read) if read else _PERFECT_DB) - ratios[tensor]
            found.append(LayerSqnr(tensor=tensor, kind=step.kind, sqnr_db=ratios[tensor], loss_db=loss))
    return tuple(found)


def worst_first(layers: tuple[LayerSqnr, ...]) -> tuple[LayerSqnr, ...]:
    """The order in which operators should go back to float: those that lose the most of what they were given."""
    return tuple(sorted(layers, key=lambda layer: (-layer.loss_db, layer.sqnr_db, layer.tensor)))


def _energy(values: NDArray[np.float32]) -> float:
    return float(np.einsum("i,i->", values, values, dtype=np.float64))


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0:
        return _PERFECT_DB
    if signal <= 0:
        return -_PERFECT_DB
    return min(_PERFECT_DB, 10 * math.log10(signal / noise))
