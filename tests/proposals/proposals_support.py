"""Small ONNX files with the outputs of real exporters, and short ways to propose."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision import assembly
from edgevision.proposals import Sureness, Told

KINDS = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}


def make(path, outputs, *, picture=(1, 3, 64, 64), last=None, extra=(), first=(), metadata=None, producer=""):
    """A file with one picture and constant outputs that hang on it.

    Args:
        path: where.
        outputs: (name, kind, shape) each; a side that is a name is left open.
        picture: the input's shape.
        last: an operator that each float output ends in.
        extra: further inputs, (name, kind, shape) each.
        first: operators that the picture goes through first, (name, its constant) each; a TensorProto
            comes from a node `Constant`.
        metadata: metadata_props.
        producer: its name.
    """
    nodes, constants = [], []
    source = "images"
    for number, (op, constant) in enumerate(first):
        if isinstance(constant, TensorProto):
            nodes.append(helper.make_node("Constant", [], [f"first {number}"], value=constant))
        else:
            array = np.array(constant, np.float32).reshape(-1, 1, 1)
            constants.append(numpy_helper.from_array(array, f"first {number}"))
        nodes.append(helper.make_node(op, [source, f"first {number}"], [f"scaled {number}"]))
        source = f"scaled {number}"
    nodes.append(helper.make_node("ReduceMax", [source], ["most"], keepdims=0))
    for name, kind, shape in outputs:
        sides = [side if isinstance(side, int) else 1 for side in shape]
        constants.append(numpy_helper.from_array(np.zeros(sides, np.float32), f"{name} value"))
        nodes.append(helper.make_node("Add", [f"{name} value", "most"], [f"{name} real"]))
        if list(shape) != sides:
            axis = next(number for number, side in enumerate(shape) if not isinstance(side, int))
            constants.append(numpy_helper.from_array(np.array([True]), f"{name} kept"))
            nodes[-1].output[0] = f"{name} all"
            nodes.append(helper.make_node("Compress", [f"{name} all", f"{name} kept"], [f"{name} real"], axis=axis))
        if kind == "i" and last == "ArgMax":
            nodes.append(helper.make_node("ArgMax", [f"{name} wide"], [name], axis=1, keepdims=0))
            constants.append(numpy_helper.from_array(np.zeros((shape[0], 5, *shape[1:]), np.float32), f"{name} wide"))
        elif kind == "i":
            nodes.append(helper.make_node("Cast", [f"{name} real"], [name], to=TensorProto.INT64))
        else:
            nodes.append(helper.make_node(last or "Neg", [f"{name} real"], [name]))
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, picture)]
    inputs += [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, kind, shape in extra]
    for name, _, _ in extra:
        nodes.append(helper.make_node("Identity", [name], [f"{name} unused"]))
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, kind, shape in outputs],
        constants,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=producer)
    for key, value in (metadata or {}).items():
        made.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    return path


def make_grids(path, *, decoded):
    """A file of three grids with one row for each cell: box, objectness, 2 classes; boxes are a convolution's, or decoded."""
    nodes, constants, rows = [], [], []

    def node(op, inputs, name, **attributes):
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(name, array):
        constants.append(numpy_helper.from_array(array, name))
        return name

    for stride in (8, 16, 32):
        cells = (64 // stride) ** 2
        parts = []
        for part, channels in (("box", 4), ("object", 1), ("class", 2)):
            weights = constant(f"{part} weights {stride}", np.zeros((channels, 3, stride, stride), np.float32))
            bias = constant(f"{part} bias {stride}", np.ones(channels, np.float32))
            out = node("Conv", ["images", weights, bias], f"{part} map {stride}", strides=[stride, stride])
            parts.append(out if part == "box" else node("Sigmoid", [out], f"{part} ready {stride}"))
        if decoded:  # distances to the sides of a cell: where the box lies, and how wide it is
            halves = [f"left {stride}", f"right {stride}"]
            nodes.append(helper.make_node("Split", [parts[0]], halves, axis=1))
            centre = node("Sub", [halves[1], halves[0]], f"centre {stride}")
            wide = node("Add", [halves[1], halves[0]], f"wide {stride}")
            both = node("Concat", [centre, wide], f"both {stride}", axis=1)
            parts[0] = node(
                "Mul", [both, constant(f"stride {stride}", np.array([stride], np.float32))], f"boxes {stride}"
            )
        together = node("Concat", parts, f"together {stride}", axis=1)
        shape = constant(f"shape {stride}", np.array([1, 7, cells], np.int64))
        rows.append(node("Reshape", [together, shape], f"rows {stride}"))
    node("Transpose", [node("Concat", rows, "all", axis=2)], "output", perm=[0, 2, 1])
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 64, 64))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 84, 7))], constants,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    return path


def proposed(file, **told):
    """The proposal, and its lines by key: (value, how sure)."""
    suggested = assembly.suggest(file, told=Told(**told))
    suggested.close()
    return suggested.proposal, {line.key: (line.value, line.sureness) for line in suggested.proposal.lines}


CERTAIN, LIKELY, GUESS, MISSING, SAID = (
    Sureness.CERTAIN, Sureness.LIKELY, Sureness.GUESS, Sureness.MISSING, Sureness.SAID,
)  # fmt: skip
