"""Which layers quantising hurts: figures for a report, and the order in which layers are worth leaving in float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevision.host.progress import track
from edgevision.host.quantize.onnx.prepare import open_session
from edgevision.host.quantize.onnx.qdq import Recipe, choose_ranges, nodes_to_quantize, rewrite
from edgevision.host.quantize.onnx.ranges import Histogram, Range, with_outputs
from edgevision.host.quantize.onnx.seen import Readers
from edgevision.host.quantize.onnx.tail import WEIGHTED, find_tail

EXACT_DB: Final = 120.0
"""What a layer without any error is given: more than float32 itself has over a network."""


def layer_sqnr(
    model: onnx.ModelProto,
    quantised: onnx.ModelProto,
    tensors: Iterable[Mapping[str, NDArray[Any]]],
    *,
    quantised_tensors: Iterable[Mapping[str, NDArray[Any]]] | None = None,
    threads: int = 0,
) -> list[tuple[str, float]]:
    """How far each layer's result is from float, with the errors of the layers before.

    Args:
        model: the float model.
        quantised: made from it; nodes and inputs have the same names.
        tensors: a few pictures as input tensors.
        quantised_tensors: the same pictures for the quantised model, where it takes them otherwise (as bytes).
        threads: of ONNX Runtime; 0 for its own choice.

    Returns:
        (node name, signal to quantisation noise in dB) of each convolution and matrix product, in the graph's order.
    """
    there = {node.name: node.output[0] for node in quantised.graph.node if node.op_type in WEIGHTED}
    pairs = {n.name: (n.output[0], there[n.name]) for n in model.graph.node if n.name in there}
    exact = open_session(with_outputs(model, [a for a, _ in pairs.values()]), threads=threads)
    rounded = open_session(with_outputs(quantised, [b for _, b in pairs.values()]), threads=threads)
    signal, noise = np.zeros(len(pairs)), np.zeros(len(pairs))
    pictures = list(tensors)
    others = pictures if quantised_tensors is None else list(quantised_tensors)
    for fed, other in zip(pictures, others, strict=True):
        results = zip(exact.run(None, dict(fed)), rounded.run(None, dict(other)), strict=True)
        for index, (wanted, got) in enumerate(results):
            signal[index] += float(np.square(wanted, dtype=np.float64).sum())
            noise[index] += float(np.square(wanted - got, dtype=np.float64).sum())
    return [(name, decibels(s, n)) for name, s, n in zip(pairs, signal, noise, strict=True)]


def rank(
    model: onnx.ModelProto,
    observed: Mapping[str, Histogram],
    recipe: Recipe,
    tensors: Iterable[Mapping[str, NDArray[Any]]],
    *,
    fixed_ranges: Mapping[str, Range] | None = None,
    threads: int = 0,
) -> list[tuple[str, float]]:
    """Quantise each layer alone, with its activation, and see what that does to the network's last layers.

    The last layers are ranked too where the recipe makes them integer (`float_last`).

    Args:
        model: prepared float model.
        observed: from `qdq.observe_all`.
        recipe: how layers would be quantised.
        tensors: a few pictures as input tensors; four are enough.
        fixed_ranges: as for `qdq.quantize`.
        threads: of ONNX Runtime; 0 for its own choice.

    Returns:
        (node name, signal to quantisation noise in dB), the most harmful layer first.
    """
    ranges = choose_ranges(model, observed, recipe) | dict(fixed_ranges or {})
    chosen = nodes_to_quantize(model, recipe)
    allowed, readers, end = set(chosen), Readers(model), find_tail(model)
    results = [node.output[0] for node in model.graph.node if node.name in end.last]
    fed = [dict(picture) for picture in tensors]
    session = open_session(with_outputs(model, results), threads=threads)
    wanted = [session.run(results, picture) for picture in fed]
    found = []
    layers = [node for node in model.graph.node if node.op_type in WEIGHTED and node.name in allowed]
    for node in track("ranking layers", layers):
        group = [node.name, *(n.name for n in readers.following(node.output[0]) if n.name in allowed)]
        alone = open_session(with_outputs(rewrite(model, ranges, recipe, group), results), threads=threads)
        noise = _noise(wanted, [alone.run(results, picture) for picture in fed])
        found.append((node.name, decibels(1.0, noise)))
    return sorted(found, key=lambda entry: entry[1])


def worst(
    model: onnx.ModelProto, recipe: Recipe, ranked: Iterable[tuple[str, float]], *, integer_share: float = 0.9
) -> frozenset[str]:
    """As many of the most harmful convolutions as may stay in float; for `Recipe.float_nodes`.

    Args:
        model: prepared float model.
        recipe: whose own choice of float layers counts too.
        ranked: from `rank` with the same recipe.
        integer_share: of all convolutions, 0 to 1, that must become integer.
    """
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    integer = convolutions & set(nodes_to_quantize(model, recipe))
    free = int(len(integer) - np.ceil(integer_share * len(convolutions) - 1e-9))
    return frozenset([name for name, _ in ranked if name in integer][: max(free, 0)])


def _noise(wanted: list[list[NDArray[Any]]], got: list[list[NDArray[Any]]]) -> float:
    """Noise as a share of the signal in each result, over all pictures; mean of the results."""
    shares = []
    for exact, rounded in zip(zip(*wanted, strict=True), zip(*got, strict=True), strict=True):
        signal = sum(float(np.square(a, dtype=np.float64).sum()) for a in exact)
        noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(exact, rounded, strict=True))
        shares.append(noise / max(signal, 1e-30))
    return float(np.mean(shares))


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in dB, at most `EXACT_DB`."""
    if noise <= 0:
        return EXACT_DB
    return min(EXACT_DB, 10 * float(np.log10(max(signal, 1e-30) / noise)))
