"""The smaller files that are no integers compute what the float model computes."""

import numpy as np
import onnxruntime
import pytest
from quantize_support import classifier, pictures, tensor_of

from edgevision.host.quantize.onnx.halves import to_float16, to_int8_weights


def outputs(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": tensor_of(one)})[0] for one in pictures(12, seed=9)])


@pytest.mark.parametrize(("make", "tolerance"), [(to_float16, 0.005), (to_int8_weights, 0.05)])
def test_the_outputs_stay_near(make, tolerance):
    model = classifier()
    wanted, got = outputs(model), outputs(make(model))
    assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max()
    assert np.abs(got - wanted).max() > 0


def test_the_weights_are_bytes_and_inputs_and_outputs_stay_float32():
    made = to_int8_weights(classifier())
    stored = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert stored["stem_w_int8"] == 3  # TensorProto.INT8
    assert "stem_w" not in stored
    half = to_float16(classifier())
    assert {value.type.tensor_type.elem_type for value in [*half.graph.input, *half.graph.output]} == {1}
    assert half.ByteSize() < classifier().ByteSize()


def test_a_weight_that_two_nodes_share_is_written_once():
    model = classifier()
    point = next(node for node in model.graph.node if node.name == "point")
    twin = type(point)()
    twin.CopyFrom(point)
    twin.name, twin.output[0] = "twin", "twin"
    model.graph.node.append(twin)
    made = to_int8_weights(model)
    assert [tensor.name for tensor in made.graph.initializer].count("point_w_int8") == 1
    outputs(made)


def test_the_model_that_was_given_stays_as_it_is():
    model = classifier()
    before = model.SerializeToString()
    to_int8_weights(model)
    to_float16(model)
    assert model.SerializeToString() == before
