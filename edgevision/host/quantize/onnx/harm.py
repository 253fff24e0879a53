"""Which layers a finished quantised model owes its error to: each is quantised alone, and the network's ends are compared.

What a layer's own output tells (its noise beside its signal) is another thing: a layer may be noisy and matter to nobody. The
usual culprits are two or three of the first layers. In YOLOX-nano the second and third of 113 make 83 % of the noise, with
whatever pictures; with these in float its AP is 0.283 to 0.288 by calibration set, and 0.282 without (float 0.287).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevision.host.progress import track
from edgevision.host.quantize.onnx.prepare import open_session
from edgevision.host.quantize.onnx.ranges import with_outputs
from edgevision.host.quantize.onnx.tail import WEIGHTED, find_tail

MOST_SHARE: Final = 0.05
"""Of the layers, that are left in float at most; always two may be."""


def harm(
    model: onnx.ModelProto,
    quantised: onnx.ModelProto,
    tensors: Iterable[Mapping[str, NDArray[Any]]],
    *,
    threads: int = 0,
) -> list[tuple[str, float]]:
    """Each quantised layer's noise at the network's last convolutions or matrix products, the most harmful first.

    An input that is joined from several is left in float: its quantisers belong to no single layer.

    Args:
        model: the float model, its nodes named.
        quantised: made from it in QDQ form; nodes and inputs have the same names.
        tensors: a few pictures as input tensors; four are enough.
        threads: of ONNX Runtime; 0 for its own choice.

    Returns:
        (node name, noise power over signal power, a mean over the network's ends).
    """
    fed = [dict(picture) for picture in tensors]
    last = find_tail(model).last
    results = [node.output[0] for node in model.graph.node if node.name in last]
    session = open_session(with_outputs(model, results), threads=threads)
    wanted = [session.run(results, picture) for picture in fed]
    found = []
    layers = [node for node in quantised.graph.node if node.op_type in WEIGHTED]
    for node in track("finding the layers that do harm", layers):
        alone = _alone(model, quantised, node.name)
        if alone is None:
            continue
        session = open_session(with_outputs(alone, results), threads=threads)
        found.append((node.name, _noise(wanted, [session.run(results, picture) for picture in fed])))
    return sorted(found, key=lambda entry: -entry[1])


def culprits(harms: Sequence[tuple[str, float]], share: float) -> list[str]:
    """The fewest layers that make so much of all layers' noise, as far as they stand out.

    Args:
        harms: what `harm` gives.
        share: of the noise power, 0-1.

    Returns:
        Node names, the most harmful first: each is above the average of all, and they are at most `MOST_SHARE` of them.
    """
    total = sum(noise for _, noise in harms)
    most = max(2, math.ceil(MOST_SHARE * len(harms)))
    found: list[str] = []
    taken = 0.0
    for name, noise in harms[:most]:
        if taken >= share * total or noise * len(harms) <= total:
            break
        found.append(name)
        taken += noise
    return found


def _alone(model: onnx.ModelProto, quantised: onnx.ModelProto, name: str) -> onnx.ModelProto | None:
    """The float model with one layer's input and weights quantised; None for a layer that is in float."""
    maker = {output: node for node in quantised.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    layer = next(node for node in quantised.graph.node if node.name == name)
    needed: list[onnx.NodeProto] = []
    for source in layer.input[:2]:
        last = maker.get(source)
        if last is None or last.op_type != "DequantizeLinear":
            continue
        first = maker.get(last.input[0])
        needed += [last] if first is None else [first, last]
    if not needed:
        return None
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    there = {tensor.name for tensor in alone.graph.initializer}
    wanted = {source for node in needed for source in node.input if source in constants} - there
    alone.graph.initializer.extend(constants[source] for source in sorted(wanted))
    kept = list(alone.graph.node)
    place = next(index for index, node in enumerate(kept) if node.name == name)
    made = {output for node in needed for output in node.output}
    for position in (0, 1):
        if layer.input[position] in made:
            kept[place].input[position] = layer.input[position]
    nodes = [*kept[:place], *needed, *kept[place:]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del alone.graph.node[:]
    alone.graph.node.extend(copies)
    return alone


def _noise(wanted: Sequence[Sequence[NDArray[Any]]], got: Sequence[Sequence[NDArray[Any]]]) -> float:
    """Noise power over signal power of each end, over all pictures; their mean."""
    ratios = []
    for exact, rounded in zip(zip(*wanted, strict=True), zip(*got, strict=True), strict=True):
        signal = sum(float(np.square(one, dtype=np.float64).sum()) for one in exact)
        noise = sum(
            float(np.square(one - other, dtype=np.float64).sum()) for one, other in zip(exact, rounded, strict=True)
        )
        ratios.append(noise / max(signal, 1e-30))
    return float(np.mean(ratios))
