"""What is proposed for the files of real exporters, by their names and shapes; and that nothing is proposed without a sign."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper
from proposals_support import CERTAIN, GUESS, LIKELY, MISSING, SAID, make, make_grids, proposed

from edgevision import registry

CELLS = 64 + 16 + 4


@pytest.mark.parametrize(
    ("outputs", "extra", "family", "roles"),
    [
        ([("logits", "f", (1, 9, 7)), ("pred_boxes", "f", (1, 9, 4))], (), ("detr", CERTAIN),
         {"boxes": "pred_boxes", "scores": "logits"}),
        ([("dets", "f", (1, 9, 4)), ("labels", "f", (1, 9, 91))], (), ("detr", CERTAIN), {"boxes": "dets", "scores": "labels"}),
        ([("labels", "i", (1, 9)), ("boxes", "f", (1, 9, 4)), ("scores", "f", (1, 9))],
         [("orig_target_sizes", "i", (1, 2))], ("detr", CERTAIN), {"boxes": "boxes", "classes": "labels", "scores": "scores"}),
        ([("6570", "f", (8, 4)), ("6571", "i", (8,)), ("6572", "f", (8,))], (), ("faster_rcnn", LIKELY),
         {"boxes": "6570", "classes": "6571", "scores": "6572"}),
        ([("output", "f", (1, CELLS, 12))], (), ("yolov5", LIKELY), {"predictions": "output"}),
        ([("out", "f", (1, 21, 64, 64)), ("aux", "f", (1, 21, 64, 64))], (), ("semantic", LIKELY), {"scores": "out"}),
        ([("map", "f", (1, 16, 16, 5))], (), ("semantic", LIKELY), {"scores": "map"}),
        ([("logits", "f", (1, 1000))], (), ("classifier", LIKELY), {"scores": "logits"}),
        ([("logits", "f", (1, 17))], (), ("classifier", GUESS), {"scores": "logits"}),
        ([("embedding", "f", (1, 128))], (), ("embedding", LIKELY), {"embedding": "embedding"}),
        ([(f"c{i}", "f", (1, 27, 8 >> i or 1, 8 >> i or 1)) for i in range(5)]
         + [(f"b{i}", "f", (1, 36, 8 >> i or 1, 8 >> i or 1)) for i in range(5)], (), ("efficientdet", LIKELY),
         {"boxes_3": "b0", "scores_3": "c0", "boxes_5": "b2", "scores_5": "c2"}),
        ([("regression", "f", (1, 774, 4)), ("classification", "f", (1, 774, 3))], (), ("efficientdet", LIKELY),
         {"boxes": "regression", "scores": "classification"}),
    ],
)  # fmt: skip
def test_outputs_tell_the_family(tmp_path, outputs, extra, family, roles):
    proposal, lines = proposed(make(tmp_path / "m.onnx", outputs, extra=extra))
    assert lines["family"] == family
    for role, tensor in roles.items():
        assert lines[f"outputs.{role}"] == (tensor, CERTAIN)
    assert lines["input.size"] == ([64, 64], CERTAIN)
    if extra:
        assert lines["input.constants"] == ({"orig_target_sizes": [[64, 64]]}, LIKELY)
    assert proposal.unsure  # nothing in the file tells its colours


@pytest.mark.parametrize(
    ("shape", "family"),
    [((1, 12, CELLS), "yolov8"), ((1, CELLS * 3, 12), "yolov5"), ((1, 300, 6), "yolov10")],
)
def test_a_family_whose_decoder_is_not_installed_is_named_and_missing(tmp_path, shape, family, monkeypatch):
    known = tuple(name for name in registry.available("decode") if name != family)
    monkeypatch.setattr("edgevision.registry.available", lambda stage: known)
    proposal, lines = proposed(make(tmp_path / "m.onnx", [("output0", "f", shape)]))
    assert lines["family"] == (family, MISSING)
    assert f"no decoder {family}" in proposal.text()


@pytest.mark.parametrize(
    ("last", "activation", "multi_label"),
    [
        ("Softmax", ("none", CERTAIN), None),
        ("Sigmoid", ("none", CERTAIN), (True, LIKELY)),
        (None, ("softmax", LIKELY), None),
    ],
)
def test_the_last_operator_tells_what_the_scores_need(tmp_path, last, activation, multi_label):
    _, lines = proposed(make(tmp_path / "m.onnx", [("scores", "f", (1, 17))], last=last))
    assert lines["activation"] == activation
    assert lines.get("decoder.multi_label") == multi_label
    assert lines["family"] == ("classifier", CERTAIN if last else GUESS)


def test_an_argmax_over_a_map_is_certain(tmp_path):
    _, lines = proposed(make(tmp_path / "m.onnx", [("map", "i", (1, 32, 32))], last="ArgMax"))
    assert lines["family"] == ("semantic", CERTAIN)
    assert lines["outputs.class_map"] == ("map", CERTAIN)
    assert lines["activation"] == ("none", CERTAIN)


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
UNREAD = helper.make_tensor("", TensorProto.FLOAT, [1], [255.0])  # a number in a field of its own


@pytest.mark.parametrize(
    ("first", "mean", "words"),
    [
        ([("Div", 255)], (None, LIKELY), "begins with Div by constants"),
        ([("Div", 255), ("Sub", MEAN), ("Div", STD)], (None, LIKELY), "begins with Div and Sub and Div by constants"),
        ([("Sub", 127.5), ("Mul", 1 / 127.5)], (None, LIKELY), "raw pixels"),
        ([("Div", numpy_helper.from_array(np.array([127.5], np.float32))), ("Sub", 1)], (None, LIKELY), "raw pixels"),
        ([("Sub", [104, 117, 123])], (None, LIKELY), "raw pixels"),
        # torchvision's Normalize in front of the network; and pixels from 0 to 1 made larger first.
        ([("Sub", MEAN), ("Div", STD)], ([0.0] * 3, LIKELY), "begins with Sub and Div by constants that are for pixels from 0"),
        ([("Mul", 2), ("Sub", 1)], ([0.0] * 3, LIKELY), "for pixels from 0 to 1"),
        ([("Mul", 255), ("Sub", 127.5), ("Div", 127.5)], ([0.0] * 3, LIKELY), "for pixels from 0 to 1"),
        # torchvision's `transform_input` of pixels that were normalised before.
        ([("Mul", 0.458), ("Add", -0.03)], (None, GUESS), "neither for 0 to 255 nor for 0 to 1"),
        ([("Div", 0)], (None, GUESS), "cannot be read"),
        ([("Div", UNREAD)], (None, GUESS), "cannot be read"),
        ([("Add", 0), ("Mul", 1)], ([123.675, 116.28, 103.53], GUESS), "by the convention of most classifiers"),
    ],
)  # fmt: skip
def test_a_graph_that_scales_by_itself_takes_the_pixels_that_its_constants_are_for(tmp_path, first, mean, words):
    proposal, lines = proposed(make(tmp_path / "m.onnx", [("scores", "f", (1, 1000))], first=first))
    assert lines["input.mean"] == mean
    assert lines.get("input.std", (None, mean[1]))[1] == mean[1]
    if mean[1] == LIKELY and mean[0]:
        assert lines["input.std"] == ([255.0] * 3, LIKELY)
    assert words in proposal.text()


@pytest.mark.parametrize(
    "outputs",
    [
        [("a", "f", (1, 5, 6, 7, 8))],
        [("a", "f", (1, 50, 9)), ("b", "f", (1, 50, 3))],
        [("output", "f", (1, CELLS + 1, 12))],
    ],
)
def test_outputs_that_nobody_knows_are_not_guessed_at(tmp_path, outputs):
    proposal, lines = proposed(make(tmp_path / "m.onnx", outputs))
    assert lines["family"] == (None, MISSING)
    assert lines["activation"] == (None, MISSING)
    assert lines["input.color"] == (None, MISSING)
    assert "no rule knows outputs like a" in proposal.text() or "no rule knows outputs like output" in proposal.text()


def test_names_that_would_write_on_the_terminal(tmp_path):
    outputs = [("a\x1b[2Jb", "f", (1, 50, 9)), ("c\n- x: y", "f", (1, 50, 3))]
    proposal, _ = proposed(make(tmp_path / "m.onnx", outputs))
    assert "\x1b" not in proposal.text() + proposal.advice()
    assert "a?[2Jb" in proposal.text()
    assert "\n- x" not in proposal.text()


def test_what_the_user_says_outweighs_everything(tmp_path):
    file = make(tmp_path / "m.onnx", [("a", "f", (1, 50, 9)), ("b", "f", (1, 50, 4))])
    proposal, lines = proposed(
        file, family="detr", outputs={"scores": "a", "boxes": "b"}, activation="sigmoid", color="BGR", resize="letterbox",
        raw=True, labels=tuple("abcdefghi"), decoder={"nms": True},
    )  # fmt: skip
    assert proposal.unsure == ()
    assert lines["family"] == ("detr", SAID)
    assert lines["task"] == ("detection", CERTAIN)
    assert lines["outputs.scores"] == ("a", SAID)
    assert lines["decoder.nms"] == (True, SAID)
    assert lines["input.mean"] == (None, SAID)
    assert "activation: sigmoid" in proposal.text()


def test_an_open_size_has_to_be_said(tmp_path):
    file = make(tmp_path / "m.onnx", [("scores", "f", (1, 1000))], picture=(1, 3, "h", "w"))
    _, lines = proposed(file)
    assert lines["input.size"] == (None, MISSING)
    _, lines = proposed(file, size=(96, 64))
    assert lines["input.size"] == ([96, 64], SAID)


def test_no_picture(tmp_path):
    proposal, lines = proposed(make(tmp_path / "m.onnx", [("scores", "f", (1, 10))], picture=(1, 4, 64, 64)))
    assert lines["input.size"] == (None, MISSING)
    assert "no input is a picture of three channels: images [1, 4, 64, 64]" in proposal.text()


ULTRALYTICS = {
    "author": "Ultralytics", "task": "detect", "imgsz": "[64, 96]", "stride": "32", "license": "AGPL-3.0",
    "description": "Ultralytics YOLO11n", "kpt_shape": "[17, 3]", "names": "{0: 'bolt', 1: \"nut's\", 2: 'washer'}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "outputs", "family", "roles"),
    [
        ("detect", [("output0", "f", (1, 7, 126))], "yolov8", {"predictions": "output0"}),
        ("detect", [("output0", "f", (1, 300, 6))], "yolov10", {"predictions": "output0"}),
        ("detect", [("output0", "f", (1, 378, 8))], "yolov5", {"predictions": "output0"}),
        ("segment", [("output0", "f", (1, 39, 126)), ("output1", "f", (1, 32, 16, 24))], "yolov8_seg",
         {"predictions": "output0", "prototypes": "output1"}),
        ("pose", [("output0", "f", (1, 58, 126))], "yolov8_pose", {"predictions": "output0"}),
        ("classify", [("output0", "f", (1, 3))], "classifier", {"scores": "output0"}),
    ],
)  # fmt: skip
def test_ultralytics_metadata_makes_all_certain(tmp_path, task, outputs, family, roles):
    file = make(tmp_path / "m.onnx", outputs, picture=(1, 3, 64, 96), metadata={**ULTRALYTICS, "task": task})
    proposal, lines = proposed(file)
    assert lines["family"][0] == family
    assert lines["family"][1] == (CERTAIN if family in registry.available("decode") else MISSING)
    for role, tensor in roles.items():
        assert lines[f"outputs.{role}"] == (tensor, CERTAIN)
    assert proposal.labels == ("bolt", "nut's", "washer")
    assert lines["input.size"] == ([96, 64], CERTAIN)
    assert lines["input.color"] == ("RGB", CERTAIN)
    assert lines["input.std"] == ([255.0] * 3, CERTAIN)
    assert lines["licence"] == ("AGPL-3.0", CERTAIN)
    assert [line.key for line in proposal.unsure] == ([] if family in registry.available("decode") else ["family"])


YOLOV5 = {"stride": "32", "names": "{0: 'scratch'}"}
"""All that its export writes."""


@pytest.mark.parametrize(
    ("metadata", "picture", "shape", "family"),
    [
        (YOLOV5, (1, 3, 64, 96), (1, 378, 6), ("yolov5", CERTAIN)),
        (YOLOV5, (1, 3, 64, 64), (1, 255, 6), ("yolov5", CERTAIN)),  # of four grids
        (YOLOV5, (1, 3, "h", "w"), (1, "rows", 6), ("yolov5", LIKELY)),
        (YOLOV5, (1, 3, 64, 96), (1, 300, 6), ("yolov10", LIKELY)),
        ({**ULTRALYTICS, **YOLOV5}, (1, 3, 64, 96), (1, 300, 6), ("yolov10", CERTAIN)),
        # As wide as YOLOv5's rows, but one for each cell.
        ({"names": "{0: 'a', 1: 'b', 2: 'c'}"}, (1, 3, 64, 96), (1, 126, 8), ("yolov5", LIKELY)),
        ({"names": "{0: 'a', 1: 'b', 2: 'c'}"}, (1, 3, 64, 96), (1, 300, 6), ("yolov10", LIKELY)),  # whoever's names
        # Two classes: RT-DETR's [1, 300, 4 + classes], or finished objects.
        ({**ULTRALYTICS, "names": "{0: 'good', 1: 'bad'}"}, (1, 3, 64, 96), (1, 300, 6), (None, MISSING)),
        # Oriented boxes have an angle more.
        ({**ULTRALYTICS, "task": "obb"}, (1, 3, 64, 96), (1, 8, 126), (None, MISSING)),
    ],
)  # fmt: skip
def test_rows_of_six_are_finished_objects_only_where_the_file_tells(tmp_path, metadata, picture, shape, family):
    _, lines = proposed(make(tmp_path / "m.onnx", [("output0", "f", shape)], picture=picture, metadata=metadata))
    assert lines["family"] == family


@pytest.mark.parametrize(
    ("metadata", "outputs", "std"),
    [
        # Whoever writes the names beside his classifier says nothing of its pixels, nor does YOLOv5 of a plain one.
        ({"names": "{0: 'good', 1: 'bad'}"}, [("scores", "f", (1, 2))], ([58.395, 57.12, 57.375], GUESS)),
        (YOLOV5, [("scores", "f", (1, 2))], ([58.395, 57.12, 57.375], GUESS)),
        ({"names": "{0: 'good', 1: 'bad'}"}, [("output0", "f", (1, 6, 84))], ([255.0] * 3, LIKELY)),
        (YOLOV5, [("output0", "f", (1, 252, 6))], ([255.0] * 3, CERTAIN)),
    ],
)
def test_pixels_are_certain_only_where_their_own_exporter_wrote_the_file(tmp_path, metadata, outputs, std):
    _, lines = proposed(make(tmp_path / "m.onnx", outputs, last="Softmax", metadata=metadata))
    assert lines["input.std"] == std
    for key in ("input.mean", "input.color", "input.resize", "input.options"):
        assert lines[key][1] == std[1]


@pytest.mark.parametrize(
    ("decoded", "family", "color"), [(False, "yolox", "BGR"), (True, "yolov5", "RGB")], ids=["yolox", "yolov6"]
)
def test_rows_are_yolox_s_only_where_boxes_are_seen_to_be_bare(tmp_path, decoded, family, color):
    _, lines = proposed(make_grids(tmp_path / "m.onnx", decoded=decoded))
    assert lines["family"] == (family, LIKELY)
    assert lines["input.color"] == (color, LIKELY)


def test_bare_boxes_are_seen_in_openvino_s_format_too(tmp_path):
    """Its converter takes a convolution's bias out, and makes constants smaller."""
    openvino = pytest.importorskip("openvino")
    file = make_grids(tmp_path / "m.onnx", decoded=False)
    openvino.save_model(openvino.convert_model(file), tmp_path / "m.xml")
    _, lines = proposed(tmp_path / "m.xml")
    assert lines["family"] == ("yolox", LIKELY)


POSE = {**ULTRALYTICS, "task": "pose", "names": "{0: 'person'}"}
SEGMENT = {**ULTRALYTICS, "task": "segment"}
MAPS = ("output1", "f", (1, 32, 16, 24))


@pytest.mark.parametrize(
    ("metadata", "outputs", "options"),
    [
        ({**POSE, "kpt_shape": "[5, 3]"}, [("output0", "f", (1, 20, 126))], {"keypoints": 5, "keypoint_values": 3}),
        ({**POSE, "kpt_shape": "[4, 2]"}, [("output0", "f", (1, 13, 126))], {"keypoints": 4, "keypoint_values": 2}),
        ({**POSE, "end2end": "True"}, [("output0", "f", (1, 300, 57))],
         {"keypoints": 17, "keypoint_values": 3, "end_to_end": True}),
        # Of an exporter that does not say it: the rows are too wide for anything else.
        ({**POSE, "kpt_shape": "(5, 3)"}, [("output0", "f", (1, 300, 21))],
         {"keypoints": 5, "keypoint_values": 3, "end_to_end": True}),
        ({**SEGMENT, "end2end": "True"}, [("output0", "f", (1, 300, 38)), MAPS], {"end_to_end": True}),
        (SEGMENT, [("output0", "f", (1, 300, 38)), MAPS], {"end_to_end": True}),
        (SEGMENT, [("output0", "f", (1, 39, 126)), MAPS], {}),
    ],
)  # fmt: skip
def test_what_is_proposed_of_masks_and_keypoints_works(tmp_path, command_line, shared, metadata, outputs, options):
    file = make(tmp_path / "m.onnx", outputs, picture=(1, 3, 64, 96), metadata=metadata)
    proposal, lines = proposed(file)
    assert proposal.unsure == ()
    found = {key.partition(".")[2]: line for key, line in lines.items() if key.startswith("decoder.")}
    assert found == {key: (value, CERTAIN) for key, value in options.items()}
    done = command_line("models", "add", file)
    assert done.returncode == 0, done.stderr
    done = command_line("predict", "m", shared / "images" / "cat.bmp")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("metadata", "shape", "family"),
    [
        ({**POSE, "kpt_shape": "[5, 3]"}, (1, 56, 126), (None, MISSING)),
        ({**POSE, "kpt_shape": "[0, 3]"}, (1, 20, 126), (None, MISSING)),
        ({**POSE, "kpt_shape": "[5, 4]"}, (1, 25, 126), (None, MISSING)),
        ({**POSE, "kpt_shape": "[1.5, True]"}, (1, 56, 126), ("yolov8_pose", CERTAIN)),
        ({**POSE, "kpt_shape": "nothing"}, (1, 56, 126), ("yolov8_pose", CERTAIN)),
    ],
)
def test_keypoints_that_the_metadata_does_not_tell(tmp_path, metadata, shape, family):
    file = make(tmp_path / "m.onnx", [("output0", "f", shape)], picture=(1, 3, 64, 96), metadata=metadata)
    _, lines = proposed(file)
    assert lines["family"] == family
    assert lines.get("decoder.keypoints") == ((17, LIKELY) if family[0] else None)
