"""How much of a quantised model OpenVINO really runs as integers: the file's nodes say nothing about that.

OpenVINO makes an integer kernel where it can move the quantisers to a convolution's both sides, and computes everything else
in float. So the graph that it executes is counted, layer by layer, with the precision that each was compiled for.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from edgevision import registry
from edgevision.errors import ModelError
from edgevision.graphs import ir
from edgevision.inference.openvino import own_words

_CONVOLUTIONS: Final = frozenset({"Convolution", "GroupConvolution", "Deconvolution", "FullyConnected"})
"""What OpenVINO's CPU plug-in calls layers with weights; a matrix product with weights is FullyConnected."""
_INTEGERS: Final = frozenset({"i8", "u8"})
_UNCOUNTED: Final = frozenset({"Const", "Input", "Output", "Reshape"})
"""Nothing is computed there."""


def integer_share(content: bytes) -> tuple[int, int, dict[str, int]]:
    """Count the integer layers in the graph that OpenVINO executes on this CPU.

    Args:
        content: the ONNX file, or OpenVINO's as one.

    Returns:
        How many convolutions and fully connected layers run as integers, how many there are, and how often each kind of
        layer stands in the graph in which precision, `Convolution u8`, the most frequent first.

    Raises:
        ModelError: OpenVINO refuses the file.
        PluginError: OpenVINO is not installed.
    """
    openvino = registry.require("openvino", package="edgevision[openvino]", purpose="counting integer layers")
    core = openvino.Core()
    try:
        # As backend `openvino` compiles it.
        xml, weights = ir.split(content) if ir.is_ir(content) else (content, None)
        network = core.read_model(xml) if weights is None else core.read_model(xml, weights)
        compiled = core.compile_model(network, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
        layers = [_layer(node) for node in compiled.get_runtime_model().get_ordered_ops()]
    except RuntimeError as failure:
        raise ModelError(f"the quantised model cannot be used: {own_words(failure)}") from failure
    weighted = [precision for kind, precision in layers if kind in _CONVOLUTIONS]
    integer = sum(precision in _INTEGERS for precision in weighted)
    counts = Counter(f"{kind} {precision}" for kind, precision in layers if kind not in _UNCOUNTED)
    return integer, len(weighted), dict(counts.most_common())


def _layer(node: Any) -> tuple[str, str]:
    """A layer's kind and precision, as the runtime model's nodes tell them."""
    told = node.get_rt_info()
    kind, precision = (str(told[key].astype(str)) if key in told else "" for key in ("layerType", "runtimePrecision"))
    return kind, precision
