"""Finding the end of a network that must stay in float: what follows its last convolutions.

There boxes and scores share a tensor, and one scale for both zeroes the scores (ultralytics/ultralytics#25045,
microsoft/onnxruntime#14233); and nothing is gained, since a handful of small tensors is left. A classifier's end is what
follows its last matrix product.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

import onnx

from edgevision.errors import ModelError

WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The end of a network, by node names."""

    after: frozenset[str]
    """What no convolution or matrix product with weights follows."""
    last: frozenset[str]
    """The convolutions and matrix products with weights that are the last on some path to an output."""


def find_tail(model: onnx.ModelProto) -> Tail:
    """Walk back from the outputs to the first convolution or matrix product with constant weights on each path.

    Args:
        model: prepared: each node has a name.

    Raises:
        ModelError: the network has no convolution and no matrix product with weights: there is nothing to quantise.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output if name}
    after: set[str] = set()
    last: set[str] = set()
    waiting = [value.name for value in graph.output]
    while waiting:
        node = maker.get(waiting.pop())
        if node is None or node.name in after | last:
            continue
        if is_weighted(node, constants):
            last.add(node.name)
        else:
            after.add(node.name)
            waiting.extend(node.input)
    if not last:
        raise ModelError("the network has no convolution or matrix product with constant weights; nothing to quantise")
    # A path may leave the network early and another go on: what a later convolution still reads is not the end.
    return Tail(after=frozenset(after - _before(graph.node, maker, last)), last=frozenset(last))


def is_weighted(node: onnx.NodeProto, constants: Container[str]) -> bool:
    """Whether a node multiplies by weights that the file holds."""
    return node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in constants


def _before(nodes: Iterable[onnx.NodeProto], maker: dict[str, onnx.NodeProto], last: set[str]) -> set[str]:
    """All nodes that some last convolution depends on."""
    found: set[str] = set()
    waiting = [name for node in nodes if node.name in last for name in node.input]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return found
