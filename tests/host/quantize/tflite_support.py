"""Small .tflite models, made with the schema's own classes: SiLU layers whose channels differ a hundredfold in range."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

SIDE_PX = 12
CODES = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "LOGISTIC": 14, "MUL": 18, "DEQUANTIZE": 6, "CONCATENATION": 2, "ADD": 0}
FLOAT32, FLOAT16 = 0, 1


class Builder:
    def __init__(self):
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.buffers = 3, [schema.BufferT()]
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name, shape, value=None):
        made = schema.TensorT()
        made.name, made.shape, made.hasRank = name.encode(), list(shape), True
        made.type = FLOAT16 if value is not None and value.dtype == np.float16 else FLOAT32
        made.buffer = 0
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name, value, *, half):
        if not half:
            return self.tensor(name, value.shape, value.astype(np.float32))
        folded = self.tensor(f"{name}_half", value.shape, value.astype(np.float16))
        return self.step("DEQUANTIZE", [folded], name, value.shape)

    def step(self, kind, inputs, name, shape, options=None, options_type=0):
        output = self.tensor(name, shape)
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = CODES[kind]
        code.version = 1
        made = schema.OperatorT()
        made.inputs, made.outputs, made.opcodeIndex = inputs, [output], len(self.model.operatorCodes)
        made.builtinOptions, made.builtinOptionsType = options, options_type
        self.model.operatorCodes.append(code)
        self.graph.operators.append(made)
        return output

    def convolution(self, source, weight, bias, name, *, depthwise=False, half=False):
        kind = schema.DepthwiseConv2DOptionsT if depthwise else schema.Conv2DOptionsT
        options = kind()
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        options.padding = 0
        if depthwise:
            options.depthMultiplier = 1
        channels = weight.shape[3] if depthwise else weight.shape[0]
        parts = [self.constant(f"{name}_weight", weight, half=half), self.constant(f"{name}_bias", bias, half=half)]
        return self.step("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [source, *parts], name,
                         (1, SIDE_PX, SIDE_PX, channels), options, 2 if depthwise else 1)  # fmt: skip

    def silu(self, source, name):
        shape = self.graph.tensors[source].shape
        gate = self.step("LOGISTIC", [source], f"{name}_gate", shape)
        return self.step("MUL", [source, gate], name, shape, schema.MulOptionsT(), 21)

    def finish(self, inputs, outputs):
        self.graph.inputs, self.graph.outputs = inputs, outputs
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))


def silu_network(*, half=False, residual=False, channels=16):
    """picture (1, 12, 12, 3) -> scores (1, 12, 12, 5): conv, depthwise, conv with SiLU between, then a sigmoid."""
    random = np.random.default_rng(3)
    builder = Builder()
    # The next layer makes small channels large again: that is what one scale for all of them spoils.
    reach = np.geomspace(0.02, 1.0, channels)
    picture = builder.tensor("picture", (1, SIDE_PX, SIDE_PX, 3))
    stem = random.normal(0, 8, (channels, 3, 3, 3)) * reach[:, None, None, None]
    first = builder.silu(
        builder.convolution(picture, stem, random.normal(0, 1, channels) * reach, "stem", half=half), "a"
    )
    kernel = random.normal(0, 0.5, (1, 3, 3, channels))
    second = builder.silu(
        builder.convolution(
            first, kernel, random.normal(0, 0.2, channels) * reach, "depthwise", depthwise=True, half=half
        ),
        "b",
    )
    if residual:
        second = builder.step("ADD", [first, second], "sum", (1, SIDE_PX, SIDE_PX, channels), schema.AddOptionsT(), 11)
    head = random.normal(0, 0.3, (5, 1, 1, channels)) / reach
    scores = builder.convolution(second, head, random.normal(0, 0.1, 5), "head", half=half)
    return builder.finish([picture], [builder.step("LOGISTIC", [scores], "scores", (1, SIDE_PX, SIDE_PX, 5))])


def pictures(count=24, seed=0):
    def again():
        random = np.random.default_rng(seed)
        for _ in range(count):
            yield {"picture": random.uniform(0, 1, (1, SIDE_PX, SIDE_PX, 3)).astype(np.float32)}

    return again
