"""Small ONNX models made on the spot, and short ways to make backends."""

import numpy as np
import pytest

from edgevision import registry
from edgevision.inference.base import BackendContext, ModelFile


def load(plugin, content, name="m", *, threads=1, expected_fps=None, **options):
    """A backend of `content`."""
    module = registry.load("inference", plugin)
    model = ModelFile(name=name, content=content, sha256="")
    return module.create(module.Options(**options), model, BackendContext(threads=threads, expected_fps=expected_fps))


def load_shared(plugin, shared, file, **settings):
    """A backend of one of the shared models."""
    return load(plugin, (shared / "models" / file).read_bytes(), file, **settings)


def zeros_for(backend):
    """Tensors that fit."""
    return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in backend.inputs}


def add_model(shape=("N", 3, 4, 4), *, external=False, dtype=np.float32):
    """y = x + w, with w (3, 4, 4) counting up from 0; `external` puts w into a file w.bin."""
    onnx = pytest.importorskip("onnx", reason="needs onnx to make small models: pip install onnx")
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x, y = (onnx.helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    weights = onnx.numpy_helper.from_array(np.arange(48, dtype=dtype).reshape(3, 4, 4), "w")
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "add", [x], [y], [weights])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    if external:
        initializer = made.graph.initializer[0]
        onnx.external_data_helper.set_external_data(initializer, "w.bin")
        initializer.ClearField("raw_data")
    return made.SerializeToString()
