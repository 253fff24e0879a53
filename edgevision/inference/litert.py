"""LiteRT (TensorFlow Lite): .tflite models on the CPU, INT8 before all.

The runtime is `ai_edge_litert`, or `tflite_runtime` on machines that have no other (its last release is of 2023, and
32-bit ARM has nothing newer). It checks the file's structure itself: every truncation that was tried is refused, none
crashes.
"""

from __future__ import annotations

import importlib.util
import logging
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import field_validator

from edgevision import registry
from edgevision.errors import InferenceError, ModelError
from edgevision.graphs import read
from edgevision.inference import _delegates as delegates
from edgevision.inference._specs import check_tensors, first_sentence, layout_of
from edgevision.inference.base import Backend, BackendContext, Execution, ModelFile
from edgevision.types import Quantization, Tensors, TensorSpec

log = logging.getLogger(__name__)

READS = (".tflite",)

_IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of every .tflite file (FlatBuffers file identifier of the TensorFlow Lite schema, version 3)."""


class Options(registry.Options):
    """How the graph runs."""

    xnnpack: bool = True
    """Use the fast kernels; without them the results are those of the plain kernels, for looking into differences."""
    delegates: tuple[Any, ...] = ()
    """Delegate libraries for other chips, in order: `edgetpu`, or with options `{vx: {optional: true, library: PATH}}`. All but
    optional ones must be there. What they leave runs on the CPU."""

    @field_validator("delegates")
    @classmethod
    def _known(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        for entry in entries:
            delegates.parse(entry)
        return entries


def create(options: Options, model: ModelFile, context: BackendContext) -> Backend:
    """Load a model and warm it up.

    Raises:
        PluginError: no runtime is installed, or a delegate's library is missing or does not start.
        ModelError: the runtime refuses the model.
    """
    if model.content[4:8] != _IDENTIFIER:
        raise ModelError(
            f"model {model.name!r}: no .tflite file: bytes 4 to 8 are {model.content[4:8]!r} and should be "
            f"{_IDENTIFIER!r}"
        )
    runtime = _runtime()
    loaded, left_out = delegates.load(runtime, (delegates.parse(entry) for entry in options.delegates))
    kind = runtime.OpResolverType.AUTO if options.xnnpack else runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = runtime.Interpreter(
            model_content=model.content,
            num_threads=context.threads,
            experimental_op_resolver_type=kind,
            experimental_delegates=loaded or None,
        )
        # XNNPACK comes with the tensors.
        before = _operators(interpreter) if loaded else []
        interpreter.allocate_tensors()
        backend = _Interpreter(interpreter, model)
        names = [name for name in map(_name, options.delegates) if name not in left_out]
        backend.execution = _execution(model, before, _operators(interpreter), names, left_out)
    except UnicodeDecodeError as error:
        raise ModelError(f"model {model.name!r}: a name in it is no text: the file is damaged") from error
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"model {model.name!r}: LiteRT refuses it: {_refusal(error)}") from error
    backend.warm_up()
    return backend


def _runtime() -> ModuleType:
    """The module that holds `Interpreter`."""
    if importlib.util.find_spec("ai_edge_litert") is None and importlib.util.find_spec("tflite_runtime") is not None:
        log.info("backend litert uses tflite_runtime, which ended in 2023; ai-edge-litert is its successor")
        return registry.require("tflite_runtime.interpreter", package="edgevision[litert]", purpose="backend litert")
    return registry.require("ai_edge_litert.interpreter", package="edgevision[litert]", purpose="backend litert")


def _name(entry: Any) -> str:
    return delegates.parse(entry).name


def _refusal(error: BaseException) -> str:
    if "edgetpu-custom-op" in str(error):
        return "it is compiled for the Edge TPU; add its delegate to the backend's options: `delegates: [edgetpu]`"
    return first_sentence(error)


def _operators(interpreter: Any) -> list[dict[str, Any]]:
    """The nodes now, those that delegates stand for behind the graph's own; empty where this runtime does not tell."""
    told = getattr(interpreter, "_get_ops_details", None)  # the only way there is
    return list(told()) if told is not None else []


def _execution(
    model: ModelFile,
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    names: list[str],
    left_out: dict[str, str],
) -> Execution:
    """Which delegate took how many nodes; several libraries are told together, because LiteRT does not part them."""
    if not after:
        return Execution(left_out=left_out)
    # Without a library nothing but XNNPACK's own nodes are behind the graph's.
    own = len(read(model.content, model.name).nodes) if names else next(
        (place for place, one in enumerate(after) if one["op_name"] == "DELEGATE"), len(after)
    )  # fmt: skip
    graph = after[:own]
    outside, inside = delegates.taken(graph, before[own:]), delegates.taken(graph, after[max(own, len(before)) :])
    nodes = {"+".join(names): outside} if outside else {}
    nodes |= {delegates.XNNPACK: inside, "cpu": own - outside - inside}
    notes: tuple[str, ...] = ()
    if names and not outside:
        who = "+".join(names)
        notes = (
            f"{who} took none of the {own} nodes: it can run nothing of this model, which may have to be made for it",
        )
    return Execution(nodes=nodes, left_out=left_out, notes=notes)


class _Interpreter:
    """One interpreter; a `Backend`.

    Tensors are copied in and out: a view into the interpreter's memory costs the same (52 and 27 us for a 416x416 float
    input and a YOLOX output), and the interpreter refuses to run while anybody holds one.
    """

    def __init__(self, interpreter: Any, model: ModelFile) -> None:
        self._interpreter = interpreter
        self.execution = Execution()
        self._model = model  # the interpreter reads the weights out of these bytes
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = tuple(_spec(detail, model.name, is_input=True) for detail in inputs)
        self.outputs = tuple(_spec(detail, model.name) for detail in outputs)
        self._input_index = {detail["name"]: int(detail["index"]) for detail in inputs}
        self._output_index = {detail["name"]: int(detail["index"]) for detail in outputs}
        if len(self._output_index) != len(self.outputs) or len(self._input_index) != len(self.inputs):
            raise ModelError(f"model {model.name!r}: two of its inputs or outputs have one name")
        self._open = {spec.name for spec in self.inputs if -1 in spec.shape}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def warm_up(self) -> None:
        """Run on zeros, unless the model leaves its input size open: the first run prepares the kernels."""
        if not self._open:
            self.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs})

    def run(self, tensors: Tensors) -> Tensors:
        """One inference."""
        check_tensors(self._model.name, self.inputs, tensors)
        if self._interpreter is None:
            raise InferenceError(f"model {self._model.name!r} is closed")
        try:
            if self._open:
                self._resize(tensors)
            for name, index in self._input_index.items():
                self._interpreter.set_tensor(index, tensors[name])
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._output_index.items()}
        except (ValueError, RuntimeError) as error:
            raise InferenceError(f"model {self._model.name!r}: LiteRT says: {first_sentence(error)}") from error

    def _resize(self, tensors: Tensors) -> None:
        """Give inputs of open size the size of their tensors."""
        shapes = {name: tensors[name].shape for name in self._open}
        if shapes != self._shapes:
            for name, shape in shapes.items():
                self._interpreter.resize_tensor_input(self._input_index[name], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes

    def close(self) -> None:
        """Let go of the interpreter."""
        self._interpreter = None


def _spec(detail: dict[str, Any], model: str, *, is_input: bool = False) -> TensorSpec:
    dtype = np.dtype(detail["dtype"])
    if dtype.kind not in "iufb":
        raise ModelError(f"model {model!r}: {detail['name']!r} is {dtype}; only tensors of numbers can be used")
    shape = tuple(int(size) for size in detail["shape_signature"])
    if shape and shape[0] == -1:
        shape = (1, *shape[1:])  # one frame at a time
    return TensorSpec(
        name=detail["name"],
        shape=shape,
        dtype=dtype,
        layout=layout_of(shape) if is_input else None,
        quantization=_quantization(detail["quantization_parameters"]),
    )


def _quantization(parameters: dict[str, Any]) -> Quantization | None:
    scale = np.asarray(parameters["scales"], np.float32)
    if not scale.size:
        return None
    return Quantization(
        scale=scale,
        zero_point=np.asarray(parameters["zero_points"], np.int32),
        axis=int(parameters["quantized_dimension"]) if scale.size > 1 else None,
    )
