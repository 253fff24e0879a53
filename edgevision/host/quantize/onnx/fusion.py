"""How much of a quantised model ONNX Runtime really runs as integers: the file's nodes say nothing about that.

ONNX Runtime makes an integer kernel only where quantise and dequantise nodes stand exactly as it expects them; everything
else it computes in float between two conversions, slower than the float model. So its own optimised graph is counted.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import onnx
import onnxruntime

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.prepare import first_line, runtime_errors

SIGNED_KEY: Final = "session.qdqisint8allowed"
"""On x86 ONNX Runtime leaves int8 activations in float unless this is "1" (onnxruntime_session_options_config_keys.h)."""

_INTEGER_CONVS: Final = frozenset({"QLinearConv", "ConvInteger"})
_FLOAT_CONVS: Final = frozenset({"Conv", "FusedConv", "NhwcFusedConv"})


def integer_share(content: bytes, *, signed_allowed: bool) -> tuple[int, int, dict[str, int]]:
    """Count the integer convolutions in ONNX Runtime's optimised graph on this CPU.

    Args:
        content: the ONNX file.
        signed_allowed: count as on ARM, where int8 activations become integer kernels, whatever this CPU is.

    Returns:
        How many convolutions became integer kernels, how many there are, and how often each operator stands in the graph.

    Raises:
        ModelError: ONNX Runtime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    # Errors only: it warns that an optimised file belongs to this CPU, and ours is only counted.
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if signed_allowed:
        options.add_session_config_entry(SIGNED_KEY, "1")
    with tempfile.TemporaryDirectory(prefix="edgevision-") as scratch:
        path = Path(scratch, "optimised.onnx")
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except runtime_errors() as failure:
            raise ModelError(f"ONNX Runtime refuses the quantised model: {first_line(failure)}") from failure
        operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    integer = sum(operators[kind] for kind in _INTEGER_CONVS)
    convolutions = integer + sum(operators[kind] for kind in _FLOAT_CONVS)
    return integer, convolutions, dict(operators.most_common())
