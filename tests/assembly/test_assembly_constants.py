"""Models whose inputs are not one batch of one picture: RT-DETR's picture size, and torchvision's pictures without a batch."""

from typing import Any

import numpy as np
import pytest

from edgevision import assembly, model_store
from edgevision.errors import ModelError

onnx = pytest.importorskip("onnx")
helper = onnx.helper

SIZES = {"orig_target_sizes": [[64, 32]]}


def write(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    return path


def folder(tmp_path, file, roles, **given):
    """A model folder that describes the file, and what the picture's size must be."""
    content = file.read_bytes()
    manifest: dict[str, Any] = {
        "name": "m",
        "version": "1",
        "task": "detection",
        "family": "detr",
        "files": {"onnxrt": {"path": file.name, "sha256": model_store.digest_of(content), "size": len(content)}},
        "input": {"size": [64, 32], "resize": "stretch", **given},
        "outputs": roles,
        "thresholds": {"confidence": 0.5},
        "licence": "Apache-2.0",
        "source": "a test",
    }
    import yaml

    (tmp_path / "model.yaml").write_text(yaml.safe_dump(manifest))
    return tmp_path


@pytest.fixture
def with_sizes(tmp_path):
    """Like an export of RT-DETR: one box over the right half of a picture of the size that it is told."""
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sides"], axis=1),
        helper.make_node("Mul", ["sides", "box"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["boxes"]),
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "none"], ["zero"]),
        helper.make_node("Add", ["one", "zero"], ["scores"]),
        helper.make_node("Identity", ["class"], ["labels"]),
    ]
    constants = [
        ("box", np.array([[0.5, 0, 1, 1]], np.float32)),
        ("shape", np.array([1, 1, 4], np.int64)),
        ("none", np.zeros((), np.float32)),
        ("one", np.ones((1, 1), np.float32)),
        ("class", np.array([[3]], np.int64)),
    ]
    kinds = onnx.TensorProto
    return write(
        tmp_path / "m.onnx",
        nodes,
        [("images", kinds.FLOAT, [1, 3, 32, 64]), ("orig_target_sizes", kinds.INT64, [1, 2])],
        [("labels", kinds.INT64, [1, 1]), ("boxes", kinds.FLOAT, [1, 1, 4]), ("scores", kinds.FLOAT, [1, 1])],
        constants,
    )


ROLES = {"classes": "labels", "boxes": "boxes", "scores": "scores"}


def test_a_constant_goes_along_with_every_picture(tmp_path, with_sizes):
    model = assembly.load_model(f"{folder(tmp_path, with_sizes, ROLES, constants=SIZES)}/")
    for size in ((100, 300), (100, 300), (32, 64)):
        found: Any = model.predict(np.zeros((*size, 3), np.uint8))
        assert found.class_id.tolist() == [3]
        assert found.xyxy.tolist() == [[size[1] / 2, 0, size[1], size[0]]]
    model.close()


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        ({}, r"needs one picture input; the model has images float32.*orig_target_sizes int64 \[1, 2\].*constants"),
        ({"orig_size": [[64, 32]]}, "has no input 'orig_size'; it has images, orig_target_sizes"),
        ({"orig_target_sizes": [64, 32]}, r"found \[64.0, 32.0\]; the model wants int64 \[1, 2\]"),
        ({"orig_target_sizes": [[64, 32, 1]]}, r"the model wants int64 \[1, 2\]"),
        ({"orig_target_sizes": [[64.5, 32]]}, "the model wants int64"),
        ({"orig_target_sizes": [[64], [32, 1]]}, "the model wants int64"),
    ],
)
def test_constants_that_do_not_fit_are_refused(tmp_path, with_sizes, constants, words):
    with pytest.raises(ModelError, match=words):
        assembly.load_model(f"{folder(tmp_path, with_sizes, ROLES, constants=constants)}/")


def test_a_picture_without_a_batch(tmp_path):
    """Like torchvision's Faster R-CNN: [3, height, width] in, as many rows out as there are."""
    kinds = onnx.TensorProto
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Mul", ["ones", "most"], ["scores"]),
        helper.make_node("Identity", ["fixed"], ["boxes"]),
        helper.make_node("Identity", ["classes"], ["labels"]),
    ]
    file = write(
        tmp_path / "m.onnx",
        nodes,
        [("images", kinds.FLOAT, [3, 32, 64])],
        [("boxes", kinds.FLOAT, ["n", 4]), ("labels", kinds.INT64, ["n"]), ("scores", kinds.FLOAT, ["n"])],
        [
            ("ones", np.array([1, 0.4], np.float32)),
            ("fixed", np.array([[0, 0, 32, 32], [1, 1, 2, 2]], np.float32)),
            ("classes", np.array([1, 2], np.int64)),
        ],
    )
    manifest = folder(tmp_path, file, ROLES, mean=[0, 0, 0], std=[255, 255, 255])
    text = (manifest / "model.yaml").read_text().replace("family: detr", "family: faster_rcnn")
    (manifest / "model.yaml").write_text(text)
    model = assembly.load_model(f"{manifest}/")
    found: Any = model.predict(np.full((64, 64, 3), 255, np.uint8))
    assert found.xyxy.tolist() == [[0, 0, 32, 64]]
    assert len(model.predict(np.zeros((64, 64, 3), np.uint8))) == 0
    model.close()
