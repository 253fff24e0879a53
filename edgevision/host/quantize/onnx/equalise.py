"""Cross-layer equalisation that also goes through SiLU: small channels come to use more of the 256 steps.

An integer convolution has one scale for all channels of its result. In networks with depthwise convolutions channels
differ a hundredfold, and the small ones are rounded to nothing: in YOLOX-nano's first layer they reach from 0.2 to 93.
So a channel's weights and bias are multiplied by a factor, and the weights that read the channel are divided by it (Nagel et
al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1). That is exact for ReLU
and leaky ReLU. It is made exact for x * g(x) (SiLU, hard swish) by undoing the factor in front of g alone:
k * x * g(x) = x' * g(x' / k) with x' = k * x. The price is one multiplication of integers; so it is paid only where it
saves much noise. How much is found by rounding a sample of every channel's values with each choice of factors.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgevision.host.quantize.onnx.ranges import LEVELS, CalibrationInputs, Range, Scalar, watch
from edgevision.host.quantize.onnx.seen import Readers
from edgevision.host.quantize.onnx.weights import TOP

PICTURES: Final = 32
SAMPLES: Final = 64
"""Values of each channel that are taken from each picture."""

_LIMITS: Final = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Greatest factors that are tried."""
_EXPONENTS: Final = (0.5, 1.0)
_LOWS: Final = (0.0, 0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
"""Where the range may end below zero, as shares of the least value."""
_FREE_GAIN: Final = 1e-4
_HOMOGENEOUS: Final = frozenset({"Relu", "LeakyRelu"})
"""f(k x) = k f(x) for k > 0."""

Samples = NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Equalised:
    """A model with scaled channels."""

    model: onnx.ModelProto
    ranges: Mapping[str, Range]
    """The ranges of scaled convolutions' results, that no histogram of a whole tensor can tell; for `quantize`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Place:
    """A convolution whose channels can be scaled."""

    conv: onnx.NodeProto
    result: str
    """After the activation: what the next convolutions read."""
    function: Scalar | None
    """The activation; None where there is none."""
    inner: tuple[onnx.NodeProto, ...]
    """The nodes of g in x * g(x) that read x: the factor is undone in front of them. None for ReLU."""
    readers: tuple[onnx.NodeProto, ...]
    """The convolutions that read the result."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seer:
    """What a convolution makes of the noise in what it reads."""

    squares: NDArray[np.float64]
    """(channels out, channels in) sum of squared weights."""
    peaks: NDArray[np.float64]
    """(channels out, channels in) greatest weight."""
    positions: int
    """Weights of one channel in."""
    signal: NDArray[np.float64]
    """(channels out,) variance of its float result."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Choice:
    noise: float
    """Power of the rounding noise behind the readers, as a share of the signal's, mean of their channels."""
    factor: NDArray[np.float64]
    """(channels,)"""
    range: Range
    """Of the scaled convolution's result."""


def equalise(
    model: onnx.ModelProto,
    calibration: CalibrationInputs,
    *,
    skip: Container[str] = (),
    least_gain: float = 0.004,
    threads: int = 0,
) -> Equalised:
    """Scale channels where one scale for all would round small ones away; the outputs stay the same.

    Args:
        model: prepared float model; not changed.
        calibration: pictures; the first `PICTURES` are used.
        skip: names of convolutions to leave as they are, such as those that stay in float.
        least_gain: noise that an extra multiplication must save, as a share of the signal behind the next convolution:
            0.004 is where noise falls from -24 dB to nothing, for a tensor of average size, and in proportion for others.
            Where no multiplication is needed (ReLU), any gain is taken.
        threads: of ONNX Runtime; 0 for its own choice.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    places = [place for place in _places(copy, constants) if place.conv.name not in skip]
    convs = [place.conv for place in places] + [reader for place in places for reader in place.readers]
    samples = _samples(copy, list(dict.fromkeys(conv.output[0] for conv in convs)), calibration, threads)
    elements = {name: _elements(copy, name) for name in samples}
    ranges: dict[str, Range] = {}
    for place in places:
        # Read only now: the place before may have changed them.
        seers = [_seer(reader, constants[reader.input[1]], samples[reader.output[0]]) for reader in place.readers]
        x = place.conv.output[0]
        plain, best = _choose(samples[x], place.function, seers)
        gain = plain.noise - best.noise
        price = least_gain * elements[x] / (sum(elements.values()) / len(elements))
        if gain > (price if place.inner else _FREE_GAIN) and best.factor.max() > 1:
            log.debug("%s: factors up to %.3g save %.3g of %.3g", place.conv.name, best.factor.max(), gain, plain.noise)
            _apply(copy, place, best.factor, constants)
            if place.inner:
                ranges[x] = best.range
    del copy.graph.value_info[:]
    return Equalised(model=shape_inference.infer_shapes(copy, data_prop=True), ranges=ranges)


def _places(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> list[_Place]:
    readers = Readers(model)
    uses: dict[str, int] = {}
    for name in (name for node in model.graph.node for name in node.input):
        uses[name] = uses.get(name, 0) + 1
    outputs = {value.name for value in model.graph.output}

    def own(node: onnx.NodeProto) -> bool:
        # Weights that two nodes share cannot be scaled for one of them.
        return node.op_type == "Conv" and all(name in constants and uses[name] == 1 for name in node.input[1:])

    places = []
    for conv in filter(own, model.graph.node):
        x = conv.output[0]
        activation = readers.activation(x)
        result = activation[-1].output[0] if activation else x
        after = readers.of(result)
        inner = _inner(x, activation)
        simple = all(node.op_type in _HOMOGENEOUS for node in activation)
        if (
            after
            and all(own(n) and n.input[0] == result for n in after)
            and result not in outputs
            and (inner or simple)
        ):
            places.append(
                _Place(conv=conv, result=result, function=readers.seen_through(x), inner=inner, readers=tuple(after))
            )
    return places


def _inner(x: str, activation: list[onnx.NodeProto]) -> tuple[onnx.NodeProto, ...]:
    """The nodes of g that read x where the activation is x * g(x); else none."""
    reading = [node for node in activation if x in node.input]
    gates = [node for node in reading if node.op_type == "Mul" and node is activation[-1]]
    if len(gates) != 1 or list(gates[0].input).count(x) != 1:
        return ()
    return tuple(node for node in reading if node is not gates[0])


def _samples(
    model: onnx.ModelProto, tensors: list[str], calibration: CalibrationInputs, threads: int
) -> dict[str, Samples]:
    """A sample of each channel's values, (channels, samples), evenly over the pictures' positions."""
    found: dict[str, list[Samples]] = {name: [] for name in tensors}
    for name, value in watch(model, tensors, lambda: islice(calibration(), PICTURES), threads=threads):
        rows = value.reshape(value.shape[1], -1)
        places = np.linspace(0, rows.shape[1] - 1, min(SAMPLES, rows.shape[1])).round().astype(int)
        # The greatest of each channel too: a sample misses what decides the range.
        found[name].append(np.concatenate([rows[:, places], rows.max(axis=1, keepdims=True)], axis=1))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def _choose(x: Samples, function: Scalar | None, seers: list[_Seer]) -> tuple[_Choice, _Choice]:
    """The noise without factors, and the factors with the least."""
    y = x if function is None else function(x.astype(np.float64)).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(np.abs(x) > 1e-6, y / x, 0.5).astype(np.float32)
    reach = np.maximum(np.abs(y).max(axis=1).astype(np.float64), 1e-9)
    power = np.square(y, dtype=np.float64).mean(axis=1)

    def least(factor: NDArray[np.float64]) -> _Choice:
        tried = []
        for low in _LOWS:
            noise, covered = _simulate(x, y, gain, factor, low)
            tried.append(_Choice(noise=_behind(noise, power, factor, seers), factor=factor, range=covered))
        return min(tried, key=lambda choice: choice.noise)

    ratio = reach.max() / reach
    plain = least(np.ones_like(ratio))
    others = [least(np.minimum(ratio**exponent, limit)) for limit in _LIMITS for exponent in _EXPONENTS]
    return plain, min([plain, *others], key=lambda choice: choice.noise)


def _simulate(
    x: Samples, y: Samples, gain: Samples, factor: NDArray[np.float64], low: float
) -> tuple[NDArray[np.float64], Range]:
    """Each channel's mean squared error of y, (channels,), when x and y are rounded with these factors."""
    k = factor[:, None].astype(np.float32)
    scaled = x * k
    bottom, top = min(0.0, float(scaled.min()) * low), max(float(scaled.max()), 1e-9)
    step = (top - bottom) / LEVELS
    through = np.clip(np.rint(scaled / step) * step, bottom, top) * gain
    wanted = y * k
    floor, ceiling = min(0.0, float(wanted.min())), max(float(wanted.max()), 1e-9)
    step = (ceiling - floor) / LEVELS
    got = np.clip(np.rint(through / step) * step, floor, ceiling)
    error = np.square((got - wanted) / k, dtype=np.float64).mean(axis=1)
    return error, Range(low=bottom, high=top)


def _behind(
    noise: NDArray[np.float64],
    power: NDArray[np.float64],
    factor: NDArray[np.float64],
    seers: list[_Seer],
) -> float:
    """Noise by signal behind the readers, with the noise of their own rounded weights; mean of their channels."""
    shares = []
    for seer in seers:
        step = (seer.peaks / factor).max(axis=1) / TOP
        rounding = step**2 / 12 * ((seer.peaks > 0) @ (power * factor**2)) * seer.positions
        shares.append((seer.squares @ noise + rounding) / np.maximum(seer.signal, 1e-30))
    # A dead channel's share means nothing: none counts for more than all of its signal.
    return float(np.minimum(np.concatenate(shares), 1.0).mean())


def _seer(conv: onnx.NodeProto, weight: onnx.TensorProto, made: Samples) -> _Seer:
    held = np.asarray(numpy_helper.to_array(weight), np.float64).reshape(*weight.dims[:2], -1)
    groups, outs, ins = _groups(conv), held.shape[0], held.shape[1]
    squares, peaks = np.zeros((2, outs, ins * groups))
    for out in range(outs):
        first = out // (outs // groups) * ins
        squares[out, first : first + ins] = np.square(held[out]).sum(axis=1)
        peaks[out, first : first + ins] = np.abs(held[out]).max(axis=1)
    # Without the mean: the bias sets that, and bias correction sets it right.
    signal = made.var(axis=1, dtype=np.float64)
    return _Seer(squares=squares, peaks=peaks, positions=held.shape[2], signal=signal)


def _elements(model: onnx.ModelProto, name: str) -> int:
    shapes = (v.type.tensor_type.shape for v in [*model.graph.value_info, *model.graph.output] if v.name == name)
    return next((int(np.prod([max(dim.dim_value, 1) for dim in shape.dim])) for shape in shapes), 1)


def _groups(conv: onnx.NodeProto) -> int:
    return next((int(a.i) for a in conv.attribute if a.name == "group"), 1)


def _apply(
    model: onnx.ModelProto, place: _Place, factor: NDArray[np.float64], constants: Mapping[str, onnx.TensorProto]
) -> None:
    for name in place.conv.input[1:]:
        held = numpy_helper.to_array(constants[name])
        _replace(constants[name], held * _along(factor, held.ndim, axis=0))
    for reader in place.readers:
        tensor = constants[reader.input[1]]
        held, groups = numpy_helper.to_array(tensor), _groups(reader)
        # (out, in / groups, ...): a group's outputs read its own inputs only.
        by_group = held.reshape(groups, held.shape[0] // groups, *held.shape[1:])
        per_group = factor.reshape(groups, 1, held.shape[1], *[1] * (held.ndim - 2))
        _replace(tensor, (by_group / per_group).reshape(held.shape))
    if not place.inner:
        return
    x = place.conv.output[0]
    undo, undone = f"{x}_undo", f"{x}_undone"
    dimensions = len(constants[place.conv.input[1]].dims)
    value = _along(1 / factor, dimensions, axis=1).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(value, undo))
    node = helper.make_node("Mul", [x, undo], [undone], name=f"{place.conv.name}_undo")
    model.graph.node.insert(list(model.graph.node).index(place.conv) + 1, node)
    for inner in place.inner:
        inner.input[:] = [undone if name == x else name for name in inner.input]


def _along(values: NDArray[Any], dimensions: int, *, axis: int) -> NDArray[Any]:
    return values.reshape([-1 if index == axis else 1 for index in range(dimensions)])


def _replace(tensor: TensorProto, value: NDArray[Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value.astype(numpy_helper.to_array(tensor).dtype), tensor.name))
