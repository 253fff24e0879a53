"""ONNX to float .tflite: onnx2tf and TensorFlow do it, in a process of their own, and the result is proved here.

Both are heavy and belong to the extra `convert`. What comes back is run beside the ONNX model on random inputs, because a
converter that turns NCHW into NHWC can be wrong without an error; inputs and outputs get the ONNX model's names back.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgevision
from edgevision.errors import ModelError, PluginError
from edgevision.host.quantize.tflite.graph import Graph
from edgevision.inference import litert, onnxrt
from edgevision.inference.base import Backend, BackendContext, ModelFile
from edgevision.types import Tensors, TensorSpec

TIMEOUT_S = 900.0
TOLERANCE = 1e-3
"""Largest difference of an output, as a share of its largest value: float32 sums in another order stay far below."""
_EXTRA = "edgevision[convert]"
_MODULES = ("onnx2tf", "tensorflow", "tf_keras")
_INPUT_RANGES = ((-1.0, 1.0), (0.0, 255.0))
"""Random inputs as models want them: normalised, and raw pixels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Converted:
    """A converted model and its proof."""

    content: bytes
    """The float32 .tflite file; inputs and outputs have the ONNX model's names."""
    difference: float
    """Largest difference of any output on random inputs, as a share of the output's largest value."""
    moved: tuple[str, ...]
    """Inputs and outputs whose axes stand in another order than in the ONNX model (NCHW became NHWC)."""


def convert_onnx(
    content: bytes, *, name: str, timeout_s: float = TIMEOUT_S, tolerance: float = TOLERANCE, threads: int = 1
) -> Converted:
    """Turn an ONNX model into a float .tflite and prove that it computes the same.

    Args:
        content: the .onnx file, weights inside.
        name: the model's name, for messages.
        timeout_s: the conversion is ended after so many seconds.
        tolerance: largest difference of an output, as a share of its largest value.
        threads: of the proof.

    Raises:
        PluginError: the extra `convert` is not installed.
        ModelError: the model cannot be loaded or converted, its size is open, or the result computes something else.
    """
    for module in _MODULES:
        if importlib.util.find_spec(module) is None:
            raise PluginError(f"converting ONNX to .tflite needs {module}: pip install '{_EXTRA}'")
    context = BackendContext(threads=threads)
    original = onnxrt.create(onnxrt.Options(), _file(content, name), context)
    try:
        _check_inputs(original.inputs, name)
        made = _convert(content, original.inputs, name, timeout_s)
        converted = litert.create(litert.Options(), _file(made, name), context)
        try:
            proof = _prove(original, converted, name, tolerance)
        finally:
            converted.close()
    finally:
        original.close()
    graph = Graph(made, name)
    for index in (*graph.inputs, *graph.outputs):
        graph.rename(index, proof.names[graph.tensor_name(index)])
    return Converted(content=graph.to_bytes(), difference=proof.difference, moved=proof.moved)


def _file(content: bytes, name: str) -> ModelFile:
    return ModelFile(name=name, content=content, sha256=hashlib.sha256(content).hexdigest())


def _check_inputs(specs: Sequence[TensorSpec], name: str) -> None:
    for spec in specs:
        if -1 in spec.shape:
            raise ModelError(
                f"model {name!r}: input {spec.name!r} is {list(spec.shape)}; export it with a fixed size, as .tflite "
                "kernels are prepared for one"
            )
        if spec.dtype != np.float32:
            raise ModelError(f"model {name!r}: input {spec.name!r} is {spec.dtype}; only float32 models are converted")


def _convert(content: bytes, inputs: Sequence[TensorSpec], name: str, timeout_s: float) -> bytes:
    shapes = [f"{spec.name}:{','.join(map(str, spec.shape))}" for spec in inputs]
    with tempfile.TemporaryDirectory(prefix="edgevision-convert-") as folder:
        source, result = Path(folder, "model.onnx"), Path(folder, "result")
        source.write_bytes(content)
        with Path(folder, "said").open("w+b") as said:
            try:
                done = subprocess.run(  # noqa: S603  our own interpreter and module
                    (sys.executable, "-m", "edgevision.host.quantize.tflite._onnx2tf_child", str(source), str(result),
                     json.dumps(shapes)),
                    cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                    timeout=timeout_s, check=False, start_new_session=True,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise ModelError(
                    f"model {name!r}: the conversion took more than {timeout_s:g} s and was ended; convert it by hand"
                ) from None
            said.seek(0)
            words = _last_words(said.read().decode("utf-8", "replace"))
        files = sorted(result.glob("*_float32.tflite"))
        if done.returncode != 0 or not files:
            raise ModelError(
                f"model {name!r}: onnx2tf cannot convert it (status {done.returncode}): {words}; "
                "simplify the model with onnxslim first, or start from a .tflite of another exporter"
            )
        return files[0].read_bytes()


def _environment() -> dict[str, str]:
    """The child finds this package where we found it, keeps TensorFlow quiet, and sees no GPU."""
    package = str(Path(edgevision.__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1",
            "TF_USE_LEGACY_KERAS": "1"}  # fmt: skip


def _last_words(text: str) -> str:
    """The line that names the error: onnx2tf prints advice below it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "ERROR" in line]
    return (named or lines or ["it said nothing"])[-1][:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    names: dict[str, str]
    """ONNX name by .tflite name, inputs and outputs."""
    difference: float
    moved: tuple[str, ...]


def _prove(original: Backend, converted: Backend, name: str, tolerance: float) -> _Proof:
    inputs = _pair_inputs(original.inputs, converted.inputs, name)
    random = np.random.default_rng(0)
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    worst = 0.0
    for low, high in _INPUT_RANGES:
        fed = {spec.name: random.uniform(low, high, spec.shape).astype(np.float32) for spec in original.inputs}
        wanted = original.run(fed)
        moved = {theirs: np.ascontiguousarray(fed[ours].transpose(order)) for theirs, (ours, order) in inputs.items()}
        got = {key: np.array(value) for key, value in converted.run(moved).items()}
        for key, value in wanted.items():
            difference, theirs, order = _closest(value, got, name, key)
            if not difference <= tolerance:
                raise ModelError(
                    f"model {name!r}: the converted model computes something else: output {key!r} differs by "
                    f"{difference:.3g} of its largest value, {tolerance:g} is allowed; start from a .tflite of another "
                    "exporter"
                )
            worst = max(worst, difference)
            found[key] = (theirs, order)
    if len({theirs for theirs, _ in found.values()}) != len(found):
        raise ModelError(f"model {name!r}: two outputs always have the same values; they cannot be told apart")
    names = {theirs: ours for theirs, (ours, _) in inputs.items()} | {theirs: key for key, (theirs, _) in found.items()}
    orders = dict(inputs.values()) | {key: order for key, (_, order) in found.items()}
    changed = tuple(key for key, order in orders.items() if order != tuple(range(len(order))))
    return _Proof(names=names, difference=worst, moved=changed)


def _pair_inputs(
    wanted: Sequence[TensorSpec], got: Sequence[TensorSpec], name: str
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The ONNX input and the order of its axes, by .tflite input; paired by name, or in order where names were changed."""
    by_name = {_plain(spec.name): spec for spec in got}
    pairs = [(spec, by_name.get(_plain(spec.name))) for spec in wanted]
    if any(spec is None for _, spec in pairs) and len(wanted) == len(got):
        pairs = list(zip(wanted, got, strict=True))
    result: dict[str, tuple[str, tuple[int, ...]]] = {}
    for ours, theirs in pairs:
        order = None if theirs is None else _order(ours.shape, theirs.shape)
        if theirs is None or order is None:
            raise ModelError(f"model {name!r}: the converted model has no input for {ours.name!r} {list(ours.shape)}")
        result[theirs.name] = (ours.name, order)
    return result


def _plain(name: str) -> str:
    """An input's name as TensorFlow keeps it."""
    return name.removeprefix("serving_default_").partition(":")[0]


def _order(ours: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...] | None:
    """Axes that turn a shape into the other: none moved, else channels last, as onnx2tf does it."""
    if len(ours) != len(theirs):
        return None
    same = tuple(range(len(ours)))
    last = (0, *range(2, len(ours)), 1) if len(ours) > 2 else same
    return next((order for order in (last, same) if tuple(ours[i] for i in order) == theirs), None)


def _closest(wanted: NDArray[Any], got: Tensors, name: str, key: str) -> tuple[float, str, tuple[int, ...]]:
    """The .tflite output that is nearest to an ONNX output, and the order of axes in which it is."""
    size = max(float(np.abs(wanted).max(initial=0)), 1e-6)
    best: tuple[float, str, tuple[int, ...]] | None = None
    for theirs, value in got.items():
        for order in permutations(range(wanted.ndim)) if wanted.ndim <= 4 else (tuple(range(wanted.ndim)),):
            if tuple(wanted.shape[i] for i in order) != value.shape:
                continue
            difference = float(np.abs(wanted.transpose(order) - value).max(initial=0)) / size
            if best is None or difference < best[0]:
                best = (difference, theirs, order)
    if best is None:
        raise ModelError(f"model {name!r}: the converted model has no output of the shape of {key!r}")
    return best
