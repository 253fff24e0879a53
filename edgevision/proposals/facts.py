"""What is known of a file before anything is proposed: its tensors as the runtime tells them, its graph, its metadata."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevision.graphs import Graph, Node, Tensor
from edgevision.proposals.metadata import Notes
from edgevision.proposals.proposal import Line, Sureness
from edgevision.types import TensorSpec

_PASSING = {"Reshape", "Flatten", "Squeeze", "Identity", "Cast", "Transpose", "RESHAPE", "SQUEEZE", "QUANTIZE", "DEQUANTIZE",
    "QuantizeLinear", "DequantizeLinear", "CAST", "TRANSPOSE", "Convert"}  # fmt: skip
"""Operators that leave numbers as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One file."""

    graph: Graph
    notes: Notes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    """From the file or the user."""
    said_size: tuple[int, int] | None = None
    """Width, height, where the user says them."""

    @property
    def picture(self) -> TensorSpec | None:
        """The one input that is a colour picture; None where there is none, or more than one."""
        found = [spec for spec in self.inputs if spec.layout is not None]
        return found[0] if len(found) == 1 else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width, height of the picture; None where the model leaves them open."""
        spec = self.picture
        if spec is None:
            return None
        height, width = spec.shape[-2:] if spec.layout == "NCHW" else spec.shape[-3:-1]
        return (width, height) if width > 0 and height > 0 else self.said_size

    def cells(self, *strides: int) -> int | None:
        """Cells of grids over the picture."""
        if self.size is None:
            return None
        return sum((self.size[0] // stride) * (self.size[1] // stride) for stride in strides)

    def maker(self, tensor: str) -> Node | None:
        """What computes an output, seen through operators that leave numbers as they are."""
        makers = {name: node for node in self.graph.nodes for name in node.outputs}
        node = makers.get(tensor)
        for _ in range(16):
            if node is None or node.op not in _PASSING or not node.inputs:
                return node
            node = makers.get(node.inputs[0])
        return node

    def constant(self, name: str) -> Tensor | None:
        """The constant behind a name: the file's own, or what a node `Constant` gives; None for what is none."""
        tensor = self.graph.tensors.get(name)
        if tensor is not None and tensor.constant:
            return tensor
        makers = {name: node for node in self.graph.nodes for name in node.outputs}
        for _ in range(4):
            node = makers.get(name)
            if node is None:
                return None
            if node.op == "Constant":
                value = node.attributes.get("value")
                return (
                    value
                    if isinstance(value, Tensor)
                    else Tensor(name=name, dtype="unknown", shape=None, constant=True)
                )
            if node.op not in _PASSING or not node.inputs:
                return None
            name = node.inputs[0]
            tensor = self.graph.tensors.get(name)
            if tensor is not None and tensor.constant:
                return tensor
        return None

    def first(self) -> list[Node]:
        """Up to four operators behind the picture, one after the other."""
        found: list[Node] = []
        name = "" if self.picture is None else self.picture.name
        for _ in range(8):
            node = next((node for node in self.graph.nodes if name in node.inputs), None)
            if node is None or not node.outputs:
                break
            name = node.outputs[0]
            if node.op not in _PASSING:
                found.append(node)
        return found[:4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A decoder that fits, and what it needs to be told."""

    name: str
    task: str
    sureness: Sureness
    why: str
    outputs: tuple[Line, ...]
    """Roles."""
    decoder: tuple[Line, ...] = ()
    activation: Line | None = None
    confidence: float = 0.0
    constants: tuple[Line, ...] = ()
    kind: str = ""
    """Whose pixels it wants: a key of `pixels.CONVENTIONS`; the family's own name where that is one."""


def whole(spec: TensorSpec) -> bool:
    """Whether a tensor holds whole numbers that are meant as such."""
    return np.issubdtype(spec.dtype, np.integer) and spec.quantization is None


def role_line(role: str, spec: TensorSpec | str, sureness: Sureness, why: str) -> Line:
    """Which tensor has a role."""
    name = spec if isinstance(spec, str) else spec.name
    return Line(key=f"outputs.{role}", value=name, sureness=sureness, why=why, say=f"--output {role}=TENSOR")


def option_line(key: str, value: object, sureness: Sureness, why: str) -> Line:
    """An option of the decoder."""
    return Line(key=f"decoder.{key}", value=value, sureness=sureness, why=why, say=f"--decoder {key}=VALUE")


def activation_line(value: str, sureness: Sureness, why: str) -> Line:
    """What the scores still need."""
    return Line(key="activation", value=value, sureness=sureness, why=why, say="--activation softmax|sigmoid|none")


def only_output(facts: Facts) -> TensorSpec | None:
    """The one output; None where there are more."""
    return facts.outputs[0] if len(facts.outputs) == 1 else None
