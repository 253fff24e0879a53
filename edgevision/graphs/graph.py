"""A model file's content, alike for every format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

MAX_ITEMS = 200_000
"""Nodes, tensors and names of one file together. The largest networks for cameras have some thousands."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tensor:
    """A tensor: an input, an output, a constant, or what passes between nodes where the file tells its shape."""

    name: str
    dtype: str
    """As numpy names it (`float32`, `int8`), else the format's own name in small letters."""
    shape: tuple[int, ...] | None
    """-1: left open; None: not even the number of dimensions is told."""
    content: memoryview | None = field(default=None, repr=False)
    """A constant's bytes as they lie in the file, little-endian; None for what is none, or lies in fields of single numbers."""
    constant: bool = False
    scales: int = 0
    """How many scales a quantised tensor has: 1 for the whole, more for one a channel; 0 where it is not quantised."""

    @property
    def elements(self) -> int:
        """How many numbers; 0 where the shape is open or unknown."""
        if self.shape is None or any(size < 0 for size in self.shape):
            return 0
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator. Tensors go by name; an input that is left out is an empty name."""

    op: str
    """`Conv`, `CONV_2D`; a custom operator's own name."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""
    domain: str = ""
    """ONNX: who defines the operator; empty for the standard. TFLite: `custom`, or empty."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """ONNX: numbers, text (bytes) and lists of them; tensors and graphs are left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A whole file."""

    format: Literal["onnx", "tflite", "openvino"]
    inputs: tuple[Tensor, ...]
    """What the caller gives: constants that ONNX lists as inputs are left out."""
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    """In the file's order; those inside the bodies of If and Loop and of functions come behind, in `inner`."""
    inner: tuple[Node, ...] = ()
    tensors: Mapping[str, Tensor] = field(repr=False)
    """Constants, and every other tensor that the file describes, by name."""
    opsets: Mapping[str, int] = field(default_factory=dict)
    """ONNX: version by domain; the standard one is under the empty name."""
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    """ONNX: `metadata_props`. TFLite: `description`, and which blobs there are."""
    blobs: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """TFLite: metadata by name, such as TFLITE_METADATA; those of more than 1 MiB are left out."""
    size_bytes: int

    @cached_property
    def operators(self) -> Counter[str]:
        """How often each operator stands in it, inner ones included; those of a domain of their own as `domain.Name`."""
        return Counter(
            f"{node.domain}.{node.op}" if node.domain not in ("", "ai.onnx", "custom") else node.op
            for node in (*self.nodes, *self.inner)
        )

    @cached_property
    def parameters(self) -> int:
        """How many numbers the constants hold."""
        return sum(tensor.elements for tensor in self.tensors.values() if tensor.constant)
