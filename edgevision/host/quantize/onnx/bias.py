"""Bias correction: the mean error that rounding leaves in each channel is taken out of the channel's bias.

Rounded weights shift the mean of what a channel computes, the more so in depthwise convolutions with few weights a
channel. Layer by layer, with the error of the layers before already in the picture, the shift is measured on calibration
pictures and subtracted (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.2, with pictures instead of assumptions).

Each layer is computed from the results of the layers before, in a small graph of its own: the cost is that of one pass
over the pictures, and only results that a later layer still reads are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgevision.host.progress import track
from edgevision.host.quantize.onnx.prepare import open_session
from edgevision.host.quantize.onnx.ranges import CalibrationInputs
from edgevision.host.quantize.onnx.rounding import MOST_COLUMNS, geometry, round_weights, sample

PICTURES: Final = 32
"""More change a channel's mean by less than a step."""
KEPT_BYTES: Final = 512 * 2**20
"""Of the results that are kept at a time, float and quantised together; fewer pictures are taken if they are large."""

_LAYERS: Final = frozenset({"Conv", "Gemm"})


class Steps:
    """A model that is computed layer by layer, with all pictures at one layer before the next."""

    def __init__(self, model: onnx.ModelProto, layers: Iterable[str], *, threads: int) -> None:
        """Plan which results each layer reads and how long each is kept.

        Args:
            model: whose layers are computed.
            layers: names of nodes, in the graph's order.
            threads: of ONNX Runtime.
        """
        self._model = model
        self._threads = threads
        self._maker = {name: node for node in model.graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inputs = {value.name: value for value in model.graph.input}
        readers: dict[str, int] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                readers[name] = readers.get(name, 0) + 1
        nodes = {node.name: node for node in model.graph.node}
        self.results = {layer: nodes[layer].output[0] for layer in layers}
        # Where paths fork, the result is kept too: else a chain of additions is computed anew by each layer.
        self._forks = {name for name, count in readers.items() if count > 1 and name in self._maker}
        self._plans: dict[str, tuple[list[str], list[str], list[onnx.NodeProto]]] = {}
        made = set(self._inputs)
        for layer, result in self.results.items():
            wanted = [result, *self._new_forks(result, made)]
            self._plans[layer] = self._plan(wanted, made)
            made.update(wanted)
        self._last_use = {name: layer for layer, (reads, _, _) in self._plans.items() for name in reads}

    def run(self, layer: str, kept: list[dict[str, NDArray[Any]]], *, also: str | None = None) -> list[NDArray[Any]]:
        """Compute one layer of each picture.

        Args:
            layer: whose turn it is.
            kept: results by tensor name, one entry a picture; gains this layer's, loses what nobody reads any more.
            also: a tensor on the way, to be given back.

        Returns:
            That tensor of each picture.
        """
        reads, gives, nodes = self._plans[layer]
        between = also is not None and also not in reads and also not in gives
        asked = [*gives, also] if also is not None and between else gives
        session = open_session(self._part(reads, asked, nodes), threads=self._threads)
        given = []
        for tensors in kept:
            made = dict(zip(asked, session.run(asked, {name: tensors[name] for name in reads}), strict=True))
            if also is not None:
                given.append(made[also] if also in made else tensors[also])
            tensors.update((name, made[name]) for name in gives)
            for name in reads:
                if self._last_use[name] == layer:
                    del tensors[name]
        return given

    def alone(self, layer: str, read: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """A layer's results from what it reads, with its weights as they are now."""
        result = self.results[layer]
        node = self._maker[result]
        parts = [self._maker[name] for name in node.input[1:] if name in self._maker]
        session = open_session(self._part([node.input[0]], [result], [*parts, node]), threads=self._threads)
        return [session.run(None, {node.input[0]: tensor})[0] for tensor in read]

    def forget(self, layer: str, kept: list[dict[str, NDArray[Any]]]) -> None:
        """Drop a layer's result if no later layer reads it."""
        for tensors in kept:
            for name in self._plans[layer][1]:
                if name not in self._last_use:
                    tensors.pop(name, None)

    def _plan(self, wanted: list[str], made: set[str]) -> tuple[list[str], list[str], list[onnx.NodeProto]]:
        """What a layer reads, what it gives, and the nodes between."""
        reads: dict[str, None] = {}
        inside: dict[str, onnx.NodeProto] = {}
        waiting = list(wanted)
        while waiting:
            name = waiting.pop()
            if name in made:
                reads[name] = None
            elif name in self._maker and self._maker[name].name not in inside:
                node = self._maker[name]
                inside[node.name] = node
                waiting.extend(node.input)
        return list(reads), wanted, [node for node in self._model.graph.node if node.name in inside]

    def _new_forks(self, result: str, made: set[str]) -> list[str]:
        """Forks between what is made and a layer's result."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        waiting = list(self._maker[result].input)
        while waiting:
            name = waiting.pop()
            if name in seen or name in made or name not in self._maker:
                continue
            seen.add(name)
            if name in self._forks and not self._of_constants(name):
                found[name] = None
            waiting.extend(self._maker[name].input)
        return list(found)

    def _of_constants(self, name: str) -> bool:
        return all(i in self._constants or not i for i in self._maker[name].input)

    def _part(self, reads: list[str], gives: list[str], nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        kinds = {v.name: v for v in [*self._model.graph.value_info, *self._model.graph.output]}
        needed = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "part",
            [self._inputs.get(n) or helper.make_tensor_value_info(n, self._kind(n, kinds), None) for n in reads],
            [helper.make_empty_tensor_value_info(name) for name in gives],
            [tensor for name, tensor in self._constants.items() if name in needed],
        )
        return helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)

    def _kind(self, name: str, kinds: Mapping[str, onnx.ValueInfoProto]) -> int:
        """A tensor's element type: quantise nodes' results are integers, as their zero point is."""
        node = self._maker[name]
        if node.op_type == "QuantizeLinear":
            return int(self._constants[node.input[2]].data_type)
        return int(kinds[name].type.tensor_type.elem_type) if name in kinds else int(onnx.TensorProto.FLOAT)


def correct(
    model: onnx.ModelProto,
    quantised: onnx.ModelProto,
    calibration: CalibrationInputs,
    *,
    new_weights: bool = False,
    pair_safe: bool = False,
    refit: bool = False,
    threads: int = 0,
) -> dict[str, float]:
    """Correct the biases of a quantised model in place, and before each its layer's weights if that is asked for.

    Args:
        model: the float model; nodes have the same names in both.
        quantised: whose biases are constants, float or dequantised int32.
        calibration: pictures; the first `PICTURES` are used, fewer if memory does not hold them.
        new_weights: round int8 weights anew, see `rounding`.
        pair_safe: then keep them so.
        refit: then aim at the float layer's result, not at what the trained weights make of the quantised input.
        threads: of ONNX Runtime; 0 for its own choice.

    Returns:
        The mean absolute correction of the bias by layer, in real values.
    """
    held = _Constants(quantised)
    layers = [n.name for n in model.graph.node if n.op_type in _LAYERS and n.name in held.nodes]
    exact, rounded = (Steps(m, layers, threads=threads) for m in (model, quantised))
    fed = [dict(tensors) for tensors in islice(calibration(), _affordable(model, layers))]
    kept, kept_rounded = [dict(t) for t in fed], [dict(t) for t in fed]
    corrections = {}
    for layer in track("rounding weights and correcting biases", layers):
        wanted, got = exact.results[layer], rounded.results[layer]
        exact.run(layer, kept)
        read = rounded.run(layer, kept_rounded, also=held.read_by(layer) if new_weights else None)
        if read:
            targets = [tensors[wanted] for tensors in kept]
            if held.round(layer, _weight_of(model, layer), read, targets, pair_safe=pair_safe, refit=refit):
                for tensors, made in zip(kept_rounded, rounded.alone(layer, read), strict=True):
                    tensors[got] = made
        errors = [_channel_means(a[wanted] - b[got]) for a, b in zip(kept, kept_rounded, strict=True)]
        applied = held.add(layer, np.mean(errors, axis=0))
        if applied is not None:
            for tensors in kept_rounded:
                value = tensors[got]
                tensors[got] = value + applied.reshape(1, -1, *[1] * (value.ndim - 2)).astype(value.dtype)
            corrections[layer] = float(np.abs(applied).mean())
        exact.forget(layer, kept)
        rounded.forget(layer, kept_rounded)
    return corrections


def _weight_of(model: onnx.ModelProto, layer: str) -> NDArray[Any]:
    name = next(node.input[1] for node in model.graph.node if node.name == layer)
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


class _Constants:
    """The weights and biases of a quantised model's layers, that can be changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = {node.name: node for node in model.graph.node}
        self._maker = {name: node for node in model.graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def read_by(self, layer: str) -> str | None:
        """The tensor that a layer with int8 weights reads, if its weights can be rounded anew."""
        node = self.nodes[layer]
        source = self._maker.get(node.input[1])
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in self._constants:
            return None
        shape = tuple(self._constants[source.input[0]].dims)
        columns = int(np.prod(shape[1:]))
        return node.input[0] if geometry(node, shape) is not None and columns <= MOST_COLUMNS else None

    def round(
        self,
        layer: str,
        weight: NDArray[Any],
        read: list[NDArray[Any]],
        wanted: list[NDArray[Any]],
        *,
        pair_safe: bool,
        refit: bool,
    ) -> bool:
        """Round a layer's weights anew; whether that was done."""
        node = self.nodes[layer]
        source = self._maker[node.input[1]]
        tensor, scale = self._constants[source.input[0]], numpy_helper.to_array(self._constants[source.input[1]])
        shape = geometry(node, weight.shape)
        if shape is None or tensor.data_type != onnx.TensorProto.INT8:
            return False
        generator = np.random.default_rng(0)
        parts = [sample(a, b, shape, generator) for a, b in zip(read, wanted, strict=True)]
        x, y = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        steps = round_weights(weight, scale, x, pair_safe=pair_safe, wanted=y if refit else None)
        tensor.CopyFrom(numpy_helper.from_array(steps, tensor.name))
        return True

    def add(self, layer: str, change: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Add to a layer's bias.

        Args:
            layer: the node.
            change: (channels,) in real values.

        Returns:
            (channels,) what was really added after rounding to the bias's steps; None if the bias is no constant.
        """
        node = self.nodes[layer]
        if len(node.input) < 3:
            return None
        name, scale = node.input[2], np.ones(1)
        source = self._maker.get(name)
        if source is not None and source.op_type == "DequantizeLinear":
            name = source.input[0]
            scale = numpy_helper.to_array(self._constants[source.input[1]]).astype(np.float64)
        tensor = self._constants.get(name)
        if tensor is None or tensor.dims != [len(change)]:
            return None
        held = numpy_helper.to_array(tensor)
        if held.dtype == np.int32:
            limits = np.iinfo(np.int32)
            new = np.clip(held + np.rint(change / scale), limits.min, limits.max)
        else:
            new = held + change
        tensor.CopyFrom(numpy_helper.from_array(new.astype(held.dtype), name))
        added: NDArray[np.float64] = (new - held) * scale
        return added


def _channel_means(error: NDArray[np.floating]) -> NDArray[np.float64]:
    """(1, channels, ...) -> (channels,)."""
    means: NDArray[np.float64] = error.astype(np.float64).reshape(*error.shape[:2], -1).mean(axis=(0, 2))
    return means


def _affordable(model: onnx.ModelProto, layers: list[str]) -> int:
    """How many pictures' results can be kept: at worst the four largest layers' at a time, in both models."""
    names = {node.output[0] for node in model.graph.node if node.name in set(layers)}
    sizes = sorted(
        4 * int(np.prod([max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]))
        for value in [*model.graph.value_info, *model.graph.output]
        if value.name in names
    )
    return max(1, min(PICTURES, KEPT_BYTES // (2 * max(sum(sizes[-4:]), 1))))
