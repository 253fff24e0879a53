"""NNCF's post-training quantisation of an ONNX model: where its quantisers go is what OpenVINO's CPU plug-in fuses.

NNCF puts a quantiser before a convolution and leaves the activation after it (SiLU, for one) in float, which OpenVINO fuses
into the integer kernel and ONNX Runtime does not. So this is the recipe of the target `openvino`, and for ONNX Runtime only
where the activations are ReLU.

What NNCF does besides is taken away here: it prints progress bars and log lines to standard output, sends usage figures to
its makers, and changes the logger class of the whole process when it is imported.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgevision import registry
from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.harm import culprits, harm
from edgevision.inference._specs import first_sentence

log = logging.getLogger(__name__)

Calibration = Callable[[], Iterable[Mapping[str, NDArray[Any]]]]
"""A fresh pass over the calibration set: each item is the model's inputs by name, one picture, in the model's dtype."""

MIN_OPSET = 13
"""QuantizeLinear has its `axis` from here on; below, NNCF would quietly quantise weights per tensor."""

_BARRIERS = ("SpaceToDepth",)
"""NNCF moves a quantiser up through them, and OpenVINO does not move it down again: the convolution behind one would stay
in float. It is the first of all in networks that begin with a rearranged picture (YOLOX, YOLOv5), and the dearest."""
_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_TELEMETRY_SWITCH = "NNCF_CI"
"""The variable by which NNCF's own tests keep it from sending usage figures; it is looked at once, on import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """What seldom has to be changed; the defaults are NNCF's own.

    Its SmoothQuant of convolutions and its channel alignment are not here: they change nothing in ONNX models.
    """

    bias_correction_threshold: float | None = None
    """The largest change of a bias that the correction may make, as a share of the bias; None leaves it to NNCF."""
    activation_range: Literal["mean_min_max", "min_max", "percentile"] | None = None
    """How an activation's range is read off the calibration set; None leaves it to NNCF (the mean of each picture's ends)."""
    activation_percentile: float = 99.99
    """For `percentile`: of each picture's values, in percent; the range's ends are the means over all pictures."""


_NNCF_S_OWN = Advanced()
_LOOKED_AT = 4
"""Pictures that layers are compared on: with four others the same layers of YOLOX-nano are found."""


def quantize_nncf(
    model: onnx.ModelProto,
    calibration: Calibration,
    *,
    preset: Literal["mixed", "performance"] = "mixed",
    overflow_fix: Literal["disable", "enable", "first_layer_only"] = "disable",
    fast_bias_correction: bool = True,
    subset_size: int = 128,
    ignored_nodes: Sequence[str] = (),
    target_device: Literal["CPU", "GPU", "NPU", "ANY"] = "CPU",
    spare_culprits: float = 0.0,
    advanced: Advanced = _NNCF_S_OWN,
) -> onnx.ModelProto:
    """Quantise a float model to INT8 in QDQ form; the model that was given stays as it is.

    The same model and pictures give the same bytes. What is held of a picture is its tensors' ranges and channel means, so
    memory does not grow with the calibration set; without `fast_bias_correction` it does, by the activations of a fifth of it.

    Args:
        model: opset 13 or later, its nodes named.
        calibration: gives a fresh pass over the calibration set whenever it is called; it is called several times.
        preset: `mixed` quantises activations symmetrically or not as suits them, `performance` always symmetrically.
        overflow_fix: whether weights use half of the range, against the saturation of x86 without VNNI.
        fast_bias_correction: correct each layer's bias by what its inputs' means say, instead of running the model for each.
        subset_size: pictures to look at, at most.
        ignored_nodes: names of nodes that stay in float.
        target_device: whose rules decide which operators are quantised, and how.
        spare_culprits: the share of the error, 0-1, whose few makers are left in float (see `harm`); above 0 the model is
            quantised twice.
        advanced: what seldom has to be changed.

    Returns:
        The quantised model, with the nodes' names and the inputs and outputs of the float one.

    Raises:
        ModelError: NNCF cannot quantise this model, or the calibration set is empty or does not fit it.
        PluginError: NNCF is not installed.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < MIN_OPSET:
        raise ModelError(f"nncf: the model is of opset {opset}; per-channel weights need {MIN_OPSET}: convert it first")
    known = {node.name for node in model.graph.node}
    unknown = [name for name in ignored_nodes if name not in known]
    if unknown:
        raise ModelError(f"nncf: ignored_nodes: the model has no node {unknown[0]!r}")

    def quantized(ignored: Sequence[str]) -> onnx.ModelProto:
        given = onnx.ModelProto()
        given.CopyFrom(model)  # NNCF writes shapes and metadata into what it is given
        with _silence():
            nncf = _nncf()
            try:
                made: onnx.ModelProto = nncf.quantize(
                    given,
                    nncf.Dataset(_Passes(calibration)),
                    preset=nncf.QuantizationPreset(preset),
                    target_device=nncf.TargetDevice(target_device),
                    subset_size=subset_size,
                    fast_bias_correction=fast_bias_correction,
                    ignored_scope=nncf.IgnoredScope(names=list(ignored), types=list(_BARRIERS), validate=False),
                    advanced_parameters=_advanced(nncf, overflow_fix, advanced),
                )
            except _errors(nncf) as error:
                raise ModelError(f"nncf: {first_sentence(error)}") from error
        return _unsigned(made)

    first = quantized(ignored_nodes)
    if spare_culprits <= 0:
        return first
    found = culprits(harm(model, first, islice(_Passes(calibration), _LOOKED_AT)), spare_culprits)
    log.info("nncf: layers left in float, which made most of the error: %s", ", ".join(found) or "none")
    return quantized([*ignored_nodes, *found]) if found else first


def _unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same quantisers over 0 to 255 in place of -128 to 127: 128 is added to the zero point, and no real value changes.

    NNCF writes signed activations. OpenVINO (2026.4 on x86) computes a convolution behind a concatenation of these wrongly:
    YOLOX-nano's AP fell from 0.287 to 0.000, and is 0.282 with unsigned ones, as in ONNX Runtime.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made: set[str] = set()
    for node in model.graph.node:
        of_weights = node.op_type == "DequantizeLinear" and node.input[0] in constants
        if node.op_type not in _QUANTISERS or of_weights or len(node.input) < 3:
            continue
        signed = constants.get(node.input[2])
        if signed is None or signed.data_type != onnx.TensorProto.INT8:
            continue
        name = f"{signed.name}_unsigned"
        if name not in made:
            made.add(name)
            zero = numpy_helper.to_array(signed).astype(np.int16) + 128
            model.graph.initializer.append(numpy_helper.from_array(zero.astype(np.uint8), name))
        node.input[2] = name
    # The types of the tensors between, which nobody needs.
    stale = [value for value in model.graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.INT8]
    for value in stale:
        model.graph.value_info.remove(value)
    used = {name for node in model.graph.node for name in node.input}
    for name, tensor in constants.items():
        if name not in used:
            model.graph.initializer.remove(tensor)
    return model


class _Passes:
    """The calibration set as NNCF wants it: iterated again and again, and each item still there after the next came."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for tensors in self._calibration():
            # A preprocessor hands out one buffer again and again, and NNCF keeps some items.
            yield {name: np.array(tensor) for name, tensor in tensors.items()}


def _nncf() -> ModuleType:
    """NNCF, imported with its telemetry off and the process's logger class as it was."""
    logger_class, before = logging.getLoggerClass(), os.environ.get(_TELEMETRY_SWITCH)
    os.environ[_TELEMETRY_SWITCH] = "1"
    try:
        nncf = registry.require("nncf", package="edgevision[host]", purpose="quantisation with NNCF")
        registry.require("nncf.onnx.quantization.quantize_model", package="edgevision[host]", purpose="NNCF")
    finally:
        logging.setLoggerClass(logger_class)
        if before is None:
            del os.environ[_TELEMETRY_SWITCH]
        else:
            os.environ[_TELEMETRY_SWITCH] = before
    # Not nncf.set_log_level: that sets the level of the process's own handlers as well.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """NNCF draws its progress bars on standard output, and has no option against it."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _advanced(nncf: ModuleType, overflow_fix: str, chosen: Advanced) -> Any:
    made = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix(overflow_fix))
    made.bias_correction_params.threshold = chosen.bias_correction_threshold
    if chosen.activation_range is not None:
        made.activations_range_estimator_params = _range(chosen)
    return made


def _range(chosen: Advanced) -> Any:
    """What NNCF calls a range estimator."""
    estimators = registry.require("nncf.quantization.range_estimator", package="edgevision[host]", purpose="NNCF")
    parameters, known = estimators.StatisticsCollectorParameters, estimators.RangeEstimatorParametersSet
    if chosen.activation_range == "min_max":
        return known.MINMAX
    if chosen.activation_range == "mean_min_max":
        return known.MEAN_MINMAX
    outliers = 1 - chosen.activation_percentile / 100
    ends = {
        "statistics_type": estimators.StatisticsType.QUANTILE,
        "aggregator_type": estimators.AggregatorType.MEAN,
        "quantile_outlier_prob": outliers,
    }
    return estimators.RangeEstimatorParameters(min=parameters(**ends), max=parameters(**ends))


def _errors(nncf: ModuleType) -> tuple[type[Exception], ...]:
    """NNCF's exceptions have no common base but `Exception`; ONNX Runtime's, which runs the model here, likewise."""
    state = registry.require("onnxruntime", package="edgevision[host]", purpose="NNCF").capi.onnxruntime_pybind11_state
    own = [kind for module in (nncf, state) for kind in vars(module).values() if isinstance(kind, type)]
    return (*(kind for kind in own if issubclass(kind, Exception)), RuntimeError, ValueError, KeyError)
