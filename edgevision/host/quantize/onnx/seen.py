"""Through which function a tensor is seen: what its readers make of it before anything else is mixed in.

Most activations are several nodes (SiLU is Sigmoid and Mul, hard swish Add, Clip, Mul and Div), and each exporter writes
its own. Instead of knowing them by name, the nodes that depend on this one tensor and on single numbers are gathered, and
computed on a line of values.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgevision.host.quantize.onnx.ranges import Scalar

ELEMENTWISE: Final = frozenset({
    "Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min",
    "Mish", "Mul", "Neg", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh", "ThresholdedRelu",
})  # fmt: skip


class Readers:
    """A graph's nodes by the tensors that they read."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index the graph once; it must not change afterwards."""
        self._opset = list(model.opset_import)
        self._order: dict[str, int] = {node.name: index for index, node in enumerate(model.graph.node)}
        self._outputs = {value.name for value in model.graph.output}
        self._constants = {t.name for t in model.graph.initializer}
        self._numbers = {t.name: t for t in model.graph.initializer if int(np.prod(t.dims)) == 1}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    def of(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return self._readers.get(tensor, [])

    def seen_through(self, tensor: str) -> Scalar | None:
        """The function of one variable through which alone a tensor is seen, or None if it is seen as it is."""
        inside, result = self._region(tensor, self._numbers)
        if not inside or result is None:
            return None
        needed = {name for node in inside for name in node.input}
        numbers = [numpy_helper.from_array(numpy_helper.to_array(t).reshape(()), n)
                   for n, t in self._numbers.items() if n in needed]  # fmt: skip
        graph = helper.make_graph(
            inside,
            "seen",
            [helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, ["n"])],
            [helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, ["n"])],
            numbers,
        )
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opset))

        def function(x: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(over="ignore", invalid="ignore"):  # exp(100) in float32, inside a sigmoid
                made: Any = evaluator.run([result], {tensor: x.astype(np.float32)})
            return np.asarray(made[0], np.float64)

        return function

    def activation(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes of that function, in order; none if the tensor is seen as it is."""
        inside, result = self._region(tensor, self._numbers)
        return inside if result is not None else []

    def following(self, tensor: str) -> list[onnx.NodeProto]:
        """As `activation`, but constants of any shape may take part, such as a factor a channel."""
        inside, result = self._region(tensor, self._constants)
        return inside if result is not None else []

    def _region(self, tensor: str, constants: Container[str]) -> tuple[list[onnx.NodeProto], str | None]:
        """The nodes that depend on the tensor and on constants only, and the one tensor through which they are seen."""
        known = {tensor}
        inside: dict[str, onnx.NodeProto] = {}
        waiting = list(self.of(tensor))
        while waiting:
            node = min(waiting, key=lambda n: self._order[n.name])
            waiting.remove(node)
            enough = all(name in known or name in constants or not name for name in node.input)
            if node.name in inside or node.op_type not in ELEMENTWISE or not enough:
                continue
            inside[node.name] = node
            known.update(node.output)
            waiting.extend(reader for name in node.output for reader in self.of(name))
        seen = [name for name in known if name in self._outputs or any(r.name not in inside for r in self.of(name))]
        nodes = sorted(inside.values(), key=lambda n: self._order[n.name])
        return nodes, seen[0] if len(seen) == 1 and seen[0] != tensor else None
