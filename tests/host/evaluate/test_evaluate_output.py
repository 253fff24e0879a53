"""What is written and drawn: whole files or none, plots that can be read, tables with every figure."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluate_support import made_up_model
from rich.console import Console

from edgevision.capture.images import read_image
from edgevision.errors import StateError
from edgevision.host.dataset.base import Box, Sample
from edgevision.host.evaluate import tables
from edgevision.host.evaluate.against import compare
from edgevision.host.evaluate.classification import score as score_classes
from edgevision.host.evaluate.detection import score as score_boxes
from edgevision.host.evaluate.files import check_writable, write_json, write_whole
from edgevision.host.evaluate.plots import draw
from edgevision.host.evaluate.remarks import remarks
from edgevision.host.evaluate.robustness import Slice
from edgevision.host.evaluate.run import Evaluation
from edgevision.host.evaluate.segmentation import count_pixels
from edgevision.host.evaluate.segmentation import score as score_pixels
from edgevision.types import Classifications, Detections

SLICES = (
    Slice(corruption="blur", severity=1, figure=0.5, drop=0.25),
    Slice(corruption="blur", severity=3, figure=None, drop=None),
)


def evaluation(result, count):
    samples = tuple(Sample(name=f"{number}.jpg", path=Path("x"), width=9, height=9) for number in range(count))
    return Evaluation(
        class_agnostic=False,
        samples=samples,
        answers=(),
        result=result,
        confidence=0.01,
        own_confidence=0.5,
        iou=0.65,
        max_detections=100,
        classes="by name",
        unscored=7,
    )


def classifier(classes, pictures=400, wrong=0.3, labels=None):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, classes, pictures)
    said = np.where(rng.random(pictures) < wrong, rng.integers(-1, classes, pictures), truth)
    answers = [Classifications(confidence=np.ones(1, np.float32), class_id=np.array([one], np.int32)) for one in said]
    names = labels or tuple(f"class {number}" for number in range(classes))
    return evaluation(score_classes(truth, answers, names, model_classes=classes, own_threshold=0.5), pictures)


def detector(labels=("bolt", "nut", "$x_1$")):
    samples = [
        Sample(name="a", path=Path("a"), width=99, height=99, boxes=(Box(label_id=0, xyxy=(0, 0, 40, 40)),)),
        Sample(name="b", path=Path("b"), width=99, height=99, boxes=(Box(label_id=1, xyxy=(0, 0, 9, 9)),) * 9),
    ]
    found = [
        Detections(
            xyxy=np.array([[0, 0, 40, 40], [50, 50, 60, 60]], np.float32),
            confidence=np.array([0.9, 0.6], np.float32),
            class_id=np.array([0, 1], np.int32),
        )
    ] * 2
    return evaluation(score_boxes(samples, found, labels, own_threshold=0.5, voc_too=True), 2)


@pytest.mark.parametrize("classes", [3, 40, 1000])
def test_a_confusion_picture_for_few_and_many_classes(tmp_path, classes):
    labels = ("$ok$", "a_long_name_" * 3, "Kratzer") if classes == 3 else None
    (drawn,) = draw(tmp_path, "model", classifier(classes, labels=labels))
    picture = read_image(drawn)
    assert drawn.name == "model-confusion.png"
    assert 250 < picture.shape[0] < 2600
    assert 400 < picture.shape[1] < 2600
    assert picture.std() > 10


def test_pictures_of_a_detector_and_of_its_robustness(tmp_path):
    drawn = draw(tmp_path / "new", "model", detector(), SLICES)
    assert [path.name for path in drawn] == [
        "model-classes.png",
        "model-precision-recall.png",
        "model-robustness.png",
    ]
    assert all(read_image(path).std() > 10 for path in drawn)
    assert sorted(tmp_path.joinpath("new").iterdir()) == sorted(drawn)


def printed(renderable):
    target = io.StringIO()
    Console(file=target, width=160).print(renderable)
    return target.getvalue()


def named(name):
    return made_up_model("detection", (), lambda _image: pytest.fail("nothing is to be run"), name=name)


def test_tables_of_a_detector():
    measured = detector()
    text = printed(tables.evaluation(named("yolo"), measured, remarks(measured)))
    for words in ("confidence from 0.01, NMS IoU 0.65", "AP small", "VOC AP", "bolt", "by name", "only 2 pictures"):
        assert words in text
    assert "1 ($x_1$) of 3 classes have no object" in text
    assert "the classes are unbalanced: 'nut' has 9 of 10 objects (90%), 'bolt' has 1" in text
    text = printed(tables.robustness(SLICES, measured))
    assert "0.500 (-25%)" in text
    assert "severity 3" in text


def test_tables_of_a_classifier_and_of_two():
    measured = classifier(1000)
    text = printed(tables.evaluation(named("net"), measured, remarks(measured)))
    for words in ("top-5", "balanced accuracy", "most confused", "more classes; --json holds all"):
        assert words in text
    compared = compare(measured, measured)
    text = printed(tables.comparison(measured, measured, compared, ("one", "two")))
    assert "not proved" in text
    assert "0 pictures got worse, 0 better" in text


def test_names_with_brackets_are_shown_as_they_are():
    labels = ("crack [/edge]", "part[left]", ":cat: [bold]")
    measured = classifier(3, labels=labels)
    text = printed(tables.evaluation(named("net"), measured, ()))
    text += printed(tables.comparison(measured, measured, compare(measured, measured), ("[/a]", "[b]")))
    counts = [count_pixels(np.full((2, 2), number), np.full((2, 2), number), 3) for number in range(3)]
    text += printed(tables.evaluation(named("net"), evaluation(score_pixels(counts, labels), 3), ()))
    for label in labels:
        assert text.count(label) >= 3
    assert "[/a]" in text
    assert "[b]" in text
    measured = detector(labels)
    assert "part[left]" in printed(tables.evaluation(named("yolo"), measured, ()))


def test_imbalance_is_pointed_out():
    truth = np.array([0] * 95 + [1] * 5)
    always = [Classifications(confidence=np.ones(1, np.float32), class_id=np.zeros(1, np.int32))] * 100
    result = score_classes(truth, always, ("ok", "scratch"), model_classes=2, own_threshold=0.0)
    said = " ".join(remarks(evaluation(result, 100)))
    assert "'ok' has 95 of 100 pictures (95%)" in said
    assert "would score 0.950, so read the balanced accuracy (0.500)" in said


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "result.json"
    write_json(target, {"a": "ü"})
    assert target.read_text() == '{\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"a": float("nan")})
    assert target.read_text().startswith("{")
    with pytest.raises(StateError, match="cannot be written"):
        write_whole(target / "below", b"x")
    assert list(target.parent.iterdir()) == [target]


def test_what_could_not_be_written_is_told_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "result.json")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(StateError, match="is a folder; name a file"):
        check_writable(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be written"):
        check_writable(tmp_path / "file" / "result.json")


def test_ctrl_c_in_the_middle_of_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    code = f"""
import os, signal
from pathlib import Path
from edgevision.host.evaluate import files
def interrupted(path, other):
    os.kill(os.getpid(), signal.SIGINT)
Path.replace = interrupted
files.write_whole(Path({str(target)!r}), b"new")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False, env=os.environ)
    assert done.returncode == -signal.SIGINT
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
