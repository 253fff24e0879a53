"""What stands in a model file, read without its runtime and without its library: operators, tensors, shapes, metadata.

For whoever wants to know what a file is before a runtime is trusted with it. Nothing here is heavy, so the daemon's own
machine can look too. Files are hostile until read: every offset is checked, every count is bounded, nothing recurses deeply.

graph    what a file is read into
wire     the Protocol Buffers wire format
onnx     .onnx
tflite   .tflite
ir       OpenVINO's .xml with its .bin
"""

from edgevision.graphs.graph import Graph, Node, Tensor
from edgevision.graphs.reading import read

__all__ = ["Graph", "Node", "Tensor", "read"]
