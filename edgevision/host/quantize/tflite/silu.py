"""Where a .tflite network has SiLU, and which convolutions the channels of its results reach.

A .tflite file knows no SiLU: it is a LOGISTIC and a MUL of one tensor. What is done with these layers is
`equalize.py`'s and `sensitivity.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.operators import CONVOLUTIONS, Operator

_PASSING = frozenset({"PAD", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR"})
"""Operators that leave channels apart and commute with a positive factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silu:
    """A convolution whose result is read by SiLU only."""

    convolution: Operator
    gate: Operator
    product: Operator
    argument: int
    """Tensor that sigmoid and product read: the convolution's output, perhaps transposed."""
    axis: int
    """The argument's axis of channels."""


class Channels:
    """Which channels must have one factor: a union-find over all channels that are looked at."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: set[int] = set()

    def new(self, count: int, *, frozen: bool) -> NDArray[np.int64]:
        """Numbers of so many new channels; frozen ones keep factor 1: (count,)."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        if frozen:
            self._frozen.update(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, channel: int) -> int:
        """The number that stands for all channels of one factor."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Give two tensors one factor, channel by channel."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            first, second = self.root(a), self.root(b)
            if first != second:
                self._parent[second] = first
                if second in self._frozen:
                    self._frozen.add(first)

    def freeze(self, channels: NDArray[np.int64]) -> None:
        """Keep these and all that are joined with them as they are."""
        self._frozen.update(self.root(channel) for channel in channels.tolist())

    def is_frozen(self, channel: int) -> bool:
        """Whether a channel must keep factor 1."""
        return self.root(channel) in self._frozen


def seen_through(graph: Graph) -> dict[str, str]:
    """By name of a convolution's result that is read by SiLU or a sigmoid only: the name of what that makes of it."""
    operators = graph.operators()
    made = {step.outputs[0] for step in operators if step.kind in CONVOLUTIONS}
    readers: dict[int, list[Operator]] = {}
    for step in operators:
        for tensor in step.inputs:
            readers.setdefault(tensor, []).append(step)
    found = {tensor: steps[0].outputs[0] for tensor, steps in readers.items()
             if tensor in made and [step.kind for step in steps] == ["LOGISTIC"]}  # fmt: skip
    for layer in silu_layers(graph):
        found[layer.argument] = found[layer.convolution.outputs[0]] = layer.product.outputs[0]
    return {graph.tensor_name(tensor): graph.tensor_name(seen) for tensor, seen in found.items()}


def silu_layers(graph: Graph) -> list[Silu]:
    """All convolutions whose result is read by SiLU only, in the order the sigmoids run."""
    operators = graph.operators()
    readers: dict[int, list[Operator]] = {}
    maker = {output: step for step in operators for output in step.outputs}
    for step in operators:
        for tensor in dict.fromkeys(step.inputs):
            readers.setdefault(tensor, []).append(step)
    found = []
    for gate in operators:
        argument, opened = gate.inputs[0], gate.outputs[0]
        products = readers.get(opened, [])
        if gate.kind != "LOGISTIC" or [step.kind for step in products] != ["MUL"]:
            continue
        alone = len(readers[argument]) == 2 and not {argument, opened} & set(graph.outputs)
        if not alone or set(products[0].inputs) != {argument, opened} or _fused(graph, products[0]):
            continue
        source = _source(graph, argument, maker, readers)
        if source is not None:
            convolution, axis = source
            found.append(Silu(convolution=convolution, gate=gate, product=products[0], argument=argument, axis=axis))
    return found


def carry(graph: Graph, layers: list[Silu], channels: Channels) -> dict[int, tuple[NDArray[np.int64], int]]:
    """Follow the channels of SiLU results to the convolutions that read them.

    Returns:
        Channel numbers and their axis by tensor; a channel that reaches anything but a convolution is frozen.
    """
    products = {layer.product.index: layer for layer in layers}
    carried: dict[int, tuple[NDArray[np.int64], int]] = {}

    def freeze(tensors: tuple[int, ...]) -> None:
        for tensor in tensors:
            if tensor in carried:
                channels.freeze(carried[tensor][0])

    for step in graph.operators():
        made: tuple[NDArray[np.int64], int] | None = None
        if step.index in products:
            layer = products[step.index]
            made = (channels.new(graph.constant(layer.convolution.bias).size, frozen=False), layer.axis)
        elif any(tensor in carried for tensor in step.inputs):
            made = _passed(graph, step, carried, channels)
            if made is None and not _absorbs(graph, step, carried):
                freeze(step.inputs)
        if made is not None:
            carried[step.outputs[0]] = made
    freeze(graph.outputs)
    return carried


def _source(
    graph: Graph, tensor: int, maker: Mapping[int, Operator], readers: Mapping[int, list[Operator]]
) -> tuple[Operator, int] | None:
    """The convolution that makes a tensor, through transpositions of which nobody else reads; and the axis of channels."""
    orders: list[NDArray[np.int64]] = []
    step = maker.get(tensor)
    while step is not None and step.kind == "TRANSPOSE" and graph.is_constant(step.inputs[1]):
        if len(readers[step.inputs[0]]) != 1 or step.inputs[0] in graph.outputs:
            return None
        orders.append(graph.constant(step.inputs[1]))
        step = maker.get(step.inputs[0])
    if step is None or step.kind not in {"CONV_2D", "DEPTHWISE_CONV_2D"} or not _is_plain(graph, step):
        return None
    axis = 3
    for order in reversed(orders):
        axis = int(np.flatnonzero(order == axis)[0])
    return step, axis


def _is_plain(graph: Graph, step: Operator) -> bool:
    """Weight and bias are float constants and no activation is fused."""
    options = graph.subgraph.operators[step.index].builtinOptions
    constants = step.bias >= 0 and graph.is_constant(step.weight) and graph.is_constant(step.bias)
    if not constants or options is None or options.fusedActivationFunction != 0:
        return False
    return graph.type_name(step.weight) == "FLOAT32" and len(graph.constant(step.weight).shape) == 4


def _passed(
    graph: Graph, step: Operator, carried: Mapping[int, tuple[NDArray[np.int64], int]], channels: Channels
) -> tuple[NDArray[np.int64], int] | None:
    """The channels of an operator's result where it leaves them apart; None where it mixes them or their factors."""
    known = [carried[tensor] for tensor in step.inputs if tensor in carried]
    numbers, axis = known[0]
    if step.kind in _PASSING:
        return known[0]
    if step.kind == "TRANSPOSE" and graph.is_constant(step.inputs[1]):
        return numbers, int(np.flatnonzero(graph.constant(step.inputs[1]) == axis)[0])
    if step.kind == "CONCATENATION":
        return _concatenated(graph, step, carried, channels)
    if step.kind == "ADD" and len(known) == 2 and not _fused(graph, step):
        other, other_axis = known[1]
        if numbers.size == other.size and axis == other_axis:
            channels.join(numbers, other)
            return known[0]
    return None


def _concatenated(
    graph: Graph, step: Operator, carried: Mapping[int, tuple[NDArray[np.int64], int]], channels: Channels
) -> tuple[NDArray[np.int64], int] | None:
    options = graph.subgraph.operators[step.index].builtinOptions
    axes = {carried[i][1] for i in step.inputs if i in carried}
    axis = options.axis % 4
    if axes != {axis} or options.fusedActivationFunction != 0:
        return None
    parts = []
    for tensor in step.inputs:
        size = int(graph.subgraph.tensors[tensor].shape[axis])
        parts.append(carried[tensor][0] if tensor in carried else channels.new(size, frozen=True))
    return np.concatenate(parts), axis


def _fused(graph: Graph, step: Operator) -> int:
    options = graph.subgraph.operators[step.index].builtinOptions
    return int(options.fusedActivationFunction) if options is not None else 0


def _absorbs(graph: Graph, step: Operator, carried: Mapping[int, tuple[NDArray[np.int64], int]]) -> bool:
    """Whether an operator is a convolution that can take its input's factors into its weight."""
    if step.kind not in {"CONV_2D", "DEPTHWISE_CONV_2D"} or step.data not in carried:
        return False
    numbers, axis = carried[step.data]
    if axis != 3 or not graph.is_constant(step.weight) or graph.type_name(step.weight) != "FLOAT32":
        return False
    width = graph.constant(step.weight).shape[3]
    return bool(width == numbers.size if step.kind == "CONV_2D" else width % numbers.size == 0)
