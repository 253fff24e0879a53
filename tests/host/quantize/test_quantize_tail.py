"""Where a network's end begins."""

import numpy as np
import pytest
from qdq_support import Nodes, network, silu_network

from edgevision.errors import ModelError
from edgevision.host.quantize.onnx.prepare import prepare
from edgevision.host.quantize.onnx.tail import find_tail


def test_after_the_last_convolution():
    end = find_tail(silu_network())
    assert end.last == {"Conv_6"}
    assert end.after == {"Reshape_7"}


def test_a_path_that_leaves_early_does_not_put_the_middle_into_the_tail():
    weight = np.ones((3, 3, 1, 1), np.float32)
    nodes: Nodes = [
        ("Conv", ["x", "w0"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Conv", ["b", "w1"], ["c"], {}),
        ("Sigmoid", ["b"], ["early"], {}),
        ("Sigmoid", ["c"], ["late"], {}),
    ]
    shape = [1, 3, 4, 4]
    model = network(nodes, {"x": shape}, {"early": shape, "late": shape}, {"w0": weight, "w1": weight})
    end = find_tail(model)
    assert end.last == {"Conv_0", "Conv_2"}
    assert end.after == {"Sigmoid_3", "Sigmoid_4"}  # not Relu_1: Conv_2 reads it


def test_a_product_of_two_tensors_is_no_layer():
    nodes: Nodes = [("Gemm", ["x", "w"], ["a"], {}), ("MatMul", ["a", "a"], ["y"], {})]
    model = network(nodes, {"x": [4, 4]}, {"y": [4, 4]}, {"w": np.eye(4, dtype=np.float32)})
    assert find_tail(model).last == {"Gemm_0"}
    assert find_tail(model).after == {"MatMul_1"}


def test_nothing_to_quantise_is_told():
    with pytest.raises(ModelError, match="nothing to quantise"):
        find_tail(network([("Relu", ["x"], ["y"], {})], {"x": [1, 2]}, {"y": [1, 2]}))


def test_the_nine_heads_of_a_real_detector(shared):
    model = prepare((shared / "models" / "yolox_nano.onnx").read_bytes(), "yolox_nano")
    end = find_tail(model)
    assert len(end.last) == 9
    kinds = {node.op_type for node in model.graph.node if node.name in end.after}
    assert kinds == {"Sigmoid", "Concat", "Reshape", "Transpose"}
