"""What a .tflite file holds, read and written through the schema's own classes.

The quantiser's library works on tensor names and operator codes; what we decide (which operators form the tail, whether a
file is quantised already, how many of its convolutions run on integers) needs the graph itself. No runtime arithmetic
here: `ranges.py` and `sensitivity.py` run models.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.errors import ModelError
from edgevision.host.quantize.tflite.file import check, names, schema, tools
from edgevision.host.quantize.tflite.operators import CONVOLUTIONS, Operator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorFacts:
    """One tensor, for tables and figures."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    """The schema's name: FLOAT32, INT8 ..."""
    constant: bool
    scale: NDArray[np.float32] | None
    """(1,) or (channels,); None where the tensor is not quantised."""


class Graph:
    """A model's first subgraph; changing it changes what `to_bytes` writes."""

    def __init__(self, content: bytes, name: str) -> None:
        """Read a file.

        Args:
            content: the .tflite file.
            name: the model's name, for messages.

        Raises:
            ModelError: it is no .tflite file, damaged, larger than 2 GB, or has control flow.
            PluginError: the library is not installed.
        """
        self.name = name
        check(content, name)
        try:
            self.model: Any = tools().read_model_from_bytearray(content)
        except (struct.error, ValueError, TypeError, IndexError, AttributeError) as error:
            raise ModelError(f"model {name!r}: the .tflite file is damaged ({error}); export it again") from error
        if len(self.model.subgraphs) != 1:
            raise ModelError(
                f"model {name!r}: it has {len(self.model.subgraphs)} subgraphs (control flow or composites); "
                "only a plain graph can be quantised: export it without them"
            )
        self.subgraph = self.model.subgraphs[0]
        if not self.subgraph.operators or not self.subgraph.tensors:
            raise ModelError(f"model {name!r}: the graph is empty; export it again")
        fault = self.fault()
        if fault:
            raise ModelError(f"model {name!r}: the .tflite file is damaged ({fault}); export it again")

    def fault(self) -> str:
        """What does not fit together, in words; the runtime's verifier looks at offsets only, not at indices."""
        graph, steps = self.subgraph, self.subgraph.operators
        entries = [entry for signature in self.model.signatureDefs or []
                   for entry in (*(signature.inputs or []), *(signature.outputs or []))]  # fmt: skip
        ends = [*self.inputs, *self.outputs, *(entry.tensorIndex for entry in entries)]
        named = [*ends, *(i for step in steps for i in (*_indices(step.inputs), *_indices(step.outputs)) if i != -1)]
        faults = {
            "a tensor names a buffer that is not there": not all(
                0 <= tensor.buffer < len(self.model.buffers) for tensor in graph.tensors
            ),
            "a tensor's name is no text": not all(_is_text(tensor.name) for tensor in graph.tensors),
            "an operator's code is not there": not all(
                0 <= step.opcodeIndex < len(self.model.operatorCodes) for step in steps
            ),
            "an operator, input or output names a tensor that is not there": not all(
                0 <= i < len(graph.tensors) for i in named
            ),
            "an operator reads or makes nothing": not ends
            or not all(_indices(step.inputs) and _indices(step.outputs) for step in steps),
        }
        found = next((text for text, there in faults.items() if there), "")
        if not found and any(
            len(step.inputs) < 2 or step.data < 0 or step.weight < 0
            for step in self.operators()
            if step.kind in CONVOLUTIONS
        ):
            found = "a convolution has no weight"
        return found

    @property
    def tensors(self) -> list[Any]:
        """The schema's tensor objects."""
        return list(self.subgraph.tensors)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tensor indices of the graph's inputs."""
        return tuple(int(i) for i in self.subgraph.inputs)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Tensor indices of the graph's outputs."""
        return tuple(int(i) for i in self.subgraph.outputs)

    def operators(self) -> tuple[Operator, ...]:
        """All steps in the order they run."""
        return tuple(
            Operator(
                index=index,
                kind=self._kind(operator),
                inputs=_indices(operator.inputs),
                outputs=_indices(operator.outputs),
            )
            for index, operator in enumerate(self.subgraph.operators)
        )

    def _kind(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)  # old writers know only the one-byte field
        return names("BuiltinOperator").get(number, f"OPERATOR_{number}")

    def tensor_name(self, index: int) -> str:
        """A tensor's name."""
        return bytes(self.subgraph.tensors[index].name or b"").decode()

    def rename(self, index: int, name: str) -> None:
        """Give a tensor another name."""
        self.subgraph.tensors[index].name = name.encode()

    def type_name(self, index: int) -> str:
        """A tensor's element type by the schema's name, FLOAT32."""
        return names("TensorType").get(self.subgraph.tensors[index].type, "UNKNOWN")

    def is_constant(self, index: int) -> bool:
        """Whether the file holds the tensor's values."""
        data = self.model.buffers[self.subgraph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def constant(self, index: int) -> NDArray[Any]:
        """A copy of a constant's values, in its own type and shape.

        Raises:
            ModelError: the tensor is no constant, or its bytes do not fill its shape.
        """
        tensor, type_name = self.subgraph.tensors[index], self.type_name(index)
        data = self.model.buffers[tensor.buffer].data
        shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
        try:
            return np.frombuffer(bytes(data), np.dtype(type_name.lower())).reshape(shape).copy()
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"model {self.name!r}: tensor {self.tensor_name(index)!r} ({type_name} {shape}) is damaged: {error}"
            ) from error

    def set_constant(self, index: int, value: NDArray[Any]) -> None:
        """Replace a constant's values; it gets a buffer of its own, as files share buffers between equal constants."""
        tensor = self.subgraph.tensors[index]
        tensor.type = getattr(schema().TensorType, value.dtype.name.upper())
        tensor.shape = list(value.shape)
        tensor.buffer = len(self.model.buffers)
        buffer = schema().BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.model.buffers.append(buffer)

    def add_like(self, index: int, name: str) -> int:
        """Add a tensor of another's type and shape; its index."""
        tensor = copy.copy(self.subgraph.tensors[index])
        tensor.name, tensor.buffer = name.encode(), 0
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def add_constant(self, name: str, value: NDArray[Any]) -> int:
        """Add a constant; its index."""
        tensor = schema().TensorT()
        tensor.name, tensor.hasRank = name.encode(), True
        self.subgraph.tensors.append(tensor)
        self.set_constant(len(self.subgraph.tensors) - 1, value)
        return len(self.subgraph.tensors) - 1

    def scope(self, operator: Operator) -> str:
        """What the library matches a recipe's expression with: the names of the operator's outputs."""
        return "".join(f"{self.tensor_name(i)};" for i in operator.outputs if i >= 0 and self.tensor_name(i))

    def to_bytes(self) -> bytes:
        """The file, without the values that `set_constant` replaced."""
        self._drop_unheld_buffers()
        return bytes(tools().convert_object_to_bytearray(self.model))

    def unfold_float16(self) -> int:
        """Turn float16 constants behind DEQUANTIZE into float32 constants, and drop those operators.

        The quantiser takes a DEQUANTIZE for a quantised model's and cannot see the weights behind it.

        Returns:
            How many operators were dropped.
        """
        dropped: set[int] = set()
        for operator in self.operators():
            if operator.kind != "DEQUANTIZE" or not self.is_constant(operator.inputs[0]):
                continue
            if self.type_name(operator.inputs[0]) == "FLOAT16":
                self.set_constant(operator.outputs[0], self.constant(operator.inputs[0]).astype(np.float32))
                dropped.add(operator.index)
        kept = [step for index, step in enumerate(self.subgraph.operators) if index not in dropped]
        self.subgraph.operators = kept
        self._drop_unused()
        return len(dropped)

    def _drop_unused(self) -> None:
        """Leave out tensors and buffers that no operator reads: the float16 copies would stay in the file."""
        used = {*self.inputs, *self.outputs}
        for operator in self.operators():
            used.update(i for i in (*operator.inputs, *operator.outputs) if i >= 0)
        order = sorted(used)
        place = {old: new for new, old in enumerate(order)}
        place[-1] = -1
        for step in self.subgraph.operators:
            step.inputs = [place[i] for i in _indices(step.inputs)]
            step.outputs = [place[i] for i in _indices(step.outputs)]
            if step.intermediates is not None:
                step.intermediates = [place[i] for i in _indices(step.intermediates) if i in place]
        self.subgraph.inputs = [place[i] for i in self.inputs]
        self.subgraph.outputs = [place[i] for i in self.outputs]
        self.subgraph.tensors = [self.subgraph.tensors[i] for i in order]
        for signature in self.model.signatureDefs or []:
            for entry in (*(signature.inputs or []), *(signature.outputs or [])):
                entry.tensorIndex = place[entry.tensorIndex]

    def _drop_unheld_buffers(self) -> None:
        held = {tensor.buffer for tensor in self.subgraph.tensors} | {0}
        held |= {entry.buffer for entry in self.model.metadata or []}
        for index, buffer in enumerate(self.model.buffers):
            if index not in held:
                buffer.data = None

    def make_names_unique(self) -> None:
        """Give inner tensors of one name a number: the library tells tensors by name. Inputs and outputs keep theirs."""
        kept = {*self.inputs, *self.outputs}
        taken = {self.tensor_name(i) for i in kept}
        for index, tensor in enumerate(self.subgraph.tensors):
            if index in kept:
                continue
            name = wanted = self.tensor_name(index) or f"tensor_{index}"
            if name in taken:
                name = f"{wanted}__{index}"
            taken.add(name)
            tensor.name = name.encode()

    def tail(self) -> tuple[Operator, ...]:
        """The operators after the last convolution or fully connected layer on every path to an output.

        Scores and boxes of a detector are put together there; one scale for both zeroes the scores.
        """
        operators = self.operators()
        maker = {output: step for step in operators for output in step.outputs}
        found: dict[int, Operator] = {}
        open_tensors = list(self.outputs)
        while open_tensors:
            step = maker.get(open_tensors.pop())
            if step is None or step.kind in CONVOLUTIONS or step.index in found:
                continue
            found[step.index] = step
            open_tensors.extend(i for i in step.inputs if i >= 0)
        if not any(step.kind in CONVOLUTIONS for step in operators):
            return ()
        return tuple(found[index] for index in sorted(found))

    def is_quantized(self) -> bool:
        """Whether any tensor holds integers of a scale: a quantised model, its weights or its activations."""
        return any(tensor.quantization is not None and _has(tensor.quantization.scale) for tensor in self.tensors)

    def facts(self) -> tuple[TensorFacts, ...]:
        """Every tensor in the file's order."""
        return tuple(
            TensorFacts(
                name=self.tensor_name(index),
                shape=() if tensor.shape is None else tuple(int(size) for size in tensor.shape),
                type_name=self.type_name(index),
                constant=self.is_constant(index),
                scale=np.asarray(tensor.quantization.scale, np.float32)
                if tensor.quantization is not None and _has(tensor.quantization.scale)
                else None,
            )
            for index, tensor in enumerate(self.tensors)
        )


def is_quantized(content: bytes, name: str = "model") -> bool:
    """Whether a file holds a quantised model already; errors as `Graph`."""
    return Graph(content, name).is_quantized()


def _indices(values: Iterable[int] | None) -> tuple[int, ...]:
    return () if values is None else tuple(int(i) for i in values)


def _is_text(name: bytes | None) -> bool:
    try:
        bytes(name or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _has(values: Any) -> bool:
    return values is not None and len(values) > 0
