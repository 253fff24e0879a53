"""What the search asks of a file format: recipes to try, layers to spare, and figures of what came out.

Two formats answer it, ONNX and TFLite, each with well-kept libraries behind it; the search knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal["float", "float16", "weights", "int8"]
"""float: the reference. float16 and weights (8-bit weights, float arithmetic): to compare with. int8: what is looked for."""

GIVEN = "given"
"""The parameter of an attempt that was made elsewhere: nothing is known of its layers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """One way to quantise the model."""

    name: str
    kind: Kind
    parameters: Mapping[str, Any]
    """All that it follows from, as plain values: for the lineage, and to know it again."""
    make: Callable[[], bytes]
    spared: tuple[str, ...] = ()
    """Layers that are left in float for the accuracy's sake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerShare:
    """How much of a candidate really runs as integers, counted in the graph that the runtime executes."""

    integer: int
    total: int
    """Convolutions, fully connected layers included."""
    operators: Mapping[str, int]

    @property
    def share(self) -> float:
        """0-1; 1 for a model without any."""
        return self.integer / self.total if self.total else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNoise:
    """How far a layer's output is from the float model's."""

    layer: str
    sqnr_db: float
    """Signal to quantisation noise: 10 log10(sum x^2 / sum (x - q)^2); below about 10 a layer is badly damaged."""


class Workshop(Protocol):
    """One float model, and the ways to quantise it for one target."""

    def attempts(self) -> Sequence[Attempt]:
        """What is tried first, the most promising first; each leaves the same layers in float."""
        ...

    def sparing(self, attempt: Attempt) -> Sequence[str]:
        """Layers by the damage that they alone do under this attempt's recipe, the worst first."""
        ...

    def spare(self, attempt: Attempt, layers: Sequence[str]) -> Attempt:
        """The same recipe with these layers left in float."""
        ...

    def inspect(self, attempt: Attempt, content: bytes) -> tuple[IntegerShare | None, Sequence[LayerNoise]]:
        """What really runs as integers (None: cannot be told here), and each layer's noise, the worst first."""
        ...
