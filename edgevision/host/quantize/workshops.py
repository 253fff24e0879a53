"""The workshop for a model's format and target, and what may not enter one: a model that is 8-bit already."""

from __future__ import annotations

from pathlib import Path

import onnx

from edgevision import registry
from edgevision.errors import ModelError, UsageError
from edgevision.host.quantize.onnx.ranges import CalibrationInputs
from edgevision.host.quantize.onnx.workshop import OnnxWorkshop
from edgevision.host.quantize.source import SUFFIXES, Source
from edgevision.host.quantize.targets import Target
from edgevision.host.quantize.tflite.graph import is_quantized
from edgevision.host.quantize.tflite.workshop import TfliteWorkshop
from edgevision.host.quantize.workshop import GIVEN, Attempt, Workshop
from edgevision.model_store import digest

_INTEGER_OPERATORS = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)


def open_workshop(source: Source, target: Target, inputs: CalibrationInputs, *, pictures: int) -> Workshop:
    """The ways to quantise a float model for a target.

    Args:
        source: in the target's format.
        target: the device.
        inputs: calibration tensors, a fresh pass each time.
        pictures: how many a pass gives.
    """
    if target.format == "onnx":
        return OnnxWorkshop(source, target, inputs, pictures=pictures)
    return TfliteWorkshop(source, target, inputs)


def refuse_quantized(source: Source) -> None:
    """A model that is 8-bit already has nothing to be compared with.

    Raises:
        ModelError: it is, or it is no model.
    """
    if source.format == "tflite":
        quantized = is_quantized(source.content, source.given)
    else:
        registry.require("onnx", package="edgevision[host]", purpose="quantising an .onnx model")
        quantized = any(node.op_type in _INTEGER_OPERATORS for node in onnx.load_from_string(source.content).graph.node)
    if quantized:
        raise ModelError(
            f"{source.given}: is 8-bit already: start from the float model that it was made of; to prove this file, give the "
            f"float model and --prove {source.file_name}"
        )


def given_attempt(file: Path, target: Target) -> Attempt:
    """A finished candidate, made elsewhere.

    Raises:
        UsageError: it is not there, or no file of the target's format.
    """
    if not file.is_file():
        raise UsageError(f"--prove {file}: no such file")
    if file.suffix.lower() != SUFFIXES[target.format]:
        raise UsageError(f"--prove {file}: target {target.name} takes a {SUFFIXES[target.format]} file")
    return Attempt(
        name=file.name, kind="int8", parameters={GIVEN: file.name, "sha256": digest(file)}, make=file.read_bytes
    )
