"""What a backend is: tensors in, tensors out, by name, in the model's own dtypes. It never sees a picture or a box.

One file a runtime. A backend is handed the model as bytes that have been checked already (`ModelFile`), so that no runtime
ever reads a byte that is not the one that was proved.

A module's `READS`, `(".onnx",)`, names the suffixes of the model files it understands, so that a file that two runtimes read
needs one entry in a model.yaml; a backend without it runs only models that name a file for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from edgevision.types import Tensors, TensorSpec

Engines: TypeAlias = Literal["background", "wait", "skip"]
"""Where a backend builds an engine for minutes: serve otherwise meanwhile, wait for it, or do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model's bytes, checked for size and sha256 against its manifest."""

    name: str
    """For messages: the file's path or the model's name."""
    content: bytes
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendContext:
    """What every backend is told beside its own options."""

    threads: int = 1
    """Threads of one inference."""
    expected_fps: float | None = None
    """Frames per second that all cameras of this model ask for together; None is as many as can be had. Backends whose
    threads can spin choose by it (a paced daemon must not burn a core waiting)."""
    engines: Engines = "wait"
    """The daemon serves otherwise meanwhile; whoever measures a model waits for what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Where the operators of a loaded model really run. A backend that knows holds one as its attribute `execution`."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    """How many nodes of the graph each provider, delegate or device took; empty where the runtime does not tell."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """What was asked for if it is there, and is not used; with the reason."""
    notes: tuple[str, ...] = ()
    """What a person should know: a provider that took nothing, INT8 that is computed in float."""
    building: str = ""
    """What is being made ready meanwhile; empty where nothing is."""

    @property
    def shares(self) -> dict[str, float]:
        """The nodes as shares of 1, largest first."""
        total = sum(self.nodes.values())
        return {name: count / total for name, count in sorted(self.nodes.items(), key=lambda item: -item[1]) if count}


class Backend(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs, in its own order; `open_batch` where `run` takes several pictures at once."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs, in its own order."""
        ...

    def run(self, tensors: Tensors) -> Tensors:
        """One inference. The result is valid until the next `run`.

        Raises:
            InferenceError: the runtime failed, or the tensors do not fit the model.
        """
        ...

    def close(self) -> None:
        """Let go of the runtime's memory and threads; may be called twice."""
        ...
