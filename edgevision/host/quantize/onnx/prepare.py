"""Bringing a float ONNX file into the one form that quantising reads, and proving that nothing changed.

Published files differ: old opsets that cannot say "per channel", weights listed as inputs, batch normalisation of its
own, shapes computed at run time, nodes without names. Every later step would have to know each of these. ONNX Runtime's
basic optimisations fold and fuse (they use no operators of its own), and the result must give the outputs of the
original on random input, or it is refused.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference, version_converter

from edgevision.errors import ModelError

OPSET: Final = 17
"""Older models are brought to it: scales per channel need 13, ONNX Runtime 1.18 (and later) knows 17."""
MAX_BYTES: Final = 2**31 - 1
"""Of one protobuf message."""
TOLERANCE: Final = 1e-3
"""How far an output may be off, as a share of its largest value: float sums in another order, and no more."""

_SEEDS: Final = (0, 1)
_QUIET: Final = 3
"""ONNX Runtime's log level for errors only: it warns that an optimised file belongs to this CPU."""

log = logging.getLogger(__name__)


def prepare(content: bytes, name: str) -> onnx.ModelProto:
    """Check, upgrade, fold and simplify a float model.

    Batch normalisation is folded into the convolution before it, constants are folded, opset is at least `OPSET`,
    every input has a fixed shape, every node a name of its own, every tensor a known type.

    Args:
        content: the ONNX file.
        name: what messages call it.

    Raises:
        ModelError: it is not a float ONNX model of fixed input shape in one file, is already quantised, uses what ONNX
            Runtime does not run, or gave other outputs after the change.
    """
    original = _named(_parsed(content, name))
    _fix_inputs(original, name)
    model = _upgraded(original, name)
    try:
        model = shape_inference.infer_shapes(_folded(model), data_prop=True)
        onnx.checker.check_model(model)
        _prove(original, model, name)
    except runtime_errors() as failure:
        raise ModelError(f"{name}: ONNX Runtime cannot run it: {first_line(failure)}; export it again") from failure
    return model


def open_session(
    model: onnx.ModelProto | bytes, *, threads: int = 0, optimise: bool = True, save_to: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open a model on the CPU, quietly.

    Args:
        model: of less than 2 GB.
        threads: of one inference; 0 for ONNX Runtime's choice.
        optimise: False keeps the graph node by node as it is written.
        save_to: where the basic-optimised graph is written.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    # Threads that spin after each of hundreds of small runs would take the core from the work between them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if save_to is not None:
        options.graph_optimization_level = level.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(save_to)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime and ONNX raise about a model; their exceptions share no base of their own."""
    state: Any = onnxruntime.capi.onnxruntime_pybind11_state
    own = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
    return (*own, state.InvalidProtobuf, RuntimeError, onnx.checker.ValidationError, shape_inference.InferenceError)


def first_line(failure: Exception) -> str:
    """The part of an exception's text that a user can read."""
    return str(failure).strip().split("\n", 1)[0][:300]


def random_inputs(model: onnx.ModelProto, *, seed: int) -> dict[str, NDArray[Any]]:
    """One random input of each tensor that a prepared model reads: float 0-255, integers 0-1, of its own shape."""
    generator = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for value in model.graph.input:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        top = 255 if np.issubdtype(kind, np.floating) else 1
        made[value.name] = (generator.random(shape) * top).astype(kind)
    return made


def _parsed(content: bytes, name: str) -> onnx.ModelProto:
    if not content:
        raise ModelError(f"{name}: is empty; copy it again")
    if len(content) > MAX_BYTES:
        raise ModelError(f"{name}: {len(content)} bytes; an ONNX file has at most {MAX_BYTES}; use a smaller model")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as failure:
        raise ModelError(
            f"{name}: is not an ONNX file or is cut short ({failure}); copy or export it again"
        ) from failure
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{name}: holds no network (no nodes or no outputs); copy or export it again")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ModelError(
            f"{name}: its weights lie in a second file; make it one: "
            "onnx.save_model(onnx.load(path), new_path, save_as_external_data=False)"
        )
    quantised = sorted(
        {n.op_type for n in model.graph.node if n.op_type in _QUANTISED or n.op_type.startswith("QLinear")}
    )
    if quantised:
        raise ModelError(f"{name}: is quantised already (it has {', '.join(quantised)}); give the float model")
    return model


_QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger"})


def _fix_inputs(model: onnx.ModelProto, name: str) -> None:
    """Leave only real inputs, with a batch of one and no open dimension."""
    weights = {tensor.name for tensor in model.graph.initializer}
    real = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(real)
    if not real:
        raise ModelError(f"{name}: has no input; export it with its input")
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value > 0:
                continue
            if axis != 0:
                raise ModelError(
                    f"{name}: input {value.name!r}: dimension {axis} is open ({dim.dim_param or '?'}); "
                    "export the model with a fixed input size"
                )
            dim.dim_value = 1


def _upgraded(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset >= OPSET:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        return version_converter.convert_version(model, OPSET)
    # The converter is C++ behind pybind11 and gives no better type.
    except (RuntimeError, version_converter.ConvertError) as failure:
        raise ModelError(
            f"{name}: opset {opset} cannot be brought to {OPSET} ({first_line(failure)}); export it with opset {OPSET}"
        ) from failure


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """What ONNX Runtime's basic optimisations make of it, as a plain ONNX model."""
    with tempfile.TemporaryDirectory(prefix="edgevision-") as scratch:
        path = Path(scratch, "folded.onnx")
        open_session(model, save_to=path)
        folded = onnx.load(path)
    used = {node.domain for node in folded.graph.node}
    imports = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(imports)
    return _named(_constants_as_initialisers(folded))


def _constants_as_initialisers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Later steps look for constants in one place."""
    kept = []
    for node in model.graph.node:
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and values:
            model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(values[0]), node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}_{node.output[0]}"
        taken.add(node.name)
    return model


def _prove(original: onnx.ModelProto, model: onnx.ModelProto, name: str) -> None:
    before, after = open_session(original), open_session(model)
    for seed in _SEEDS:
        tensors = random_inputs(original, seed=seed)
        wanted, got = _outputs(before, tensors), _outputs(after, tensors)
        if wanted.keys() != got.keys():
            raise ModelError(f"{name}: outputs {sorted(wanted)} became {sorted(got)} when simplified; export it again")
        for key, value in wanted.items():
            error, top = float(np.abs(got[key] - value).max(initial=0)), float(np.abs(value).max(initial=0))
            log.debug("%s: output %s: %.3g off of %.3g after simplifying", name, key, error, top)
            if not error <= TOLERANCE * max(top, 1e-6):
                raise ModelError(
                    f"{name}: output {key!r} is {error:.3g} off (of {top:.3g}) when simplified; export it with opset {OPSET}"
                )


def _outputs(session: onnxruntime.InferenceSession, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    names = [value.name for value in session.get_outputs()]
    return {n: np.asarray(v, np.float64) for n, v in zip(names, session.run(names, dict(tensors)), strict=True)}
