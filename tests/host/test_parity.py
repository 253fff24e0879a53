"""Parity: outputs are paired and compared in real values, predictions by what they say; the verdict is plain."""

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import edgevision
from edgevision import model_store
from edgevision.assembly import load_model
from edgevision.errors import ImageError, UsageError
from edgevision.host.parity import run, tables
from edgevision.host.parity.outputs import Difference, Pair, lowest_sqnr, pair_outputs
from edgevision.host.parity.predictions import compare, summarise
from edgevision.types import Classifications, Detections, Embedding, Quantization, Segmentation, TensorSpec

sys.path.insert(0, str(Path(__file__).parent / "evaluate"))
from evaluate_support import made_up_model

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"
MANIFEST = model_store.find("efficientnet-lite0").manifest


def spec(name, *shape, quantization=None):
    return TensorSpec(name=name, shape=shape, dtype=np.dtype(np.float32), quantization=quantization)


def difference(*pictures) -> Any:
    total = Difference(Pair(first=spec("a", 4), second=spec("b", 4), by="name"))
    for first, second in pictures:
        total.add(np.asarray(first, np.float64), np.asarray(second, np.float64))
    return total.result()


def test_figures_by_hand():
    found = difference(([1, 2, 3, 4], [1, 2, 3, 4.1]), ([0, 0, 0, 10], [0, 0, 0.2, 10]))
    signal, noise = 30 + 100, 0.01 + 0.04
    assert found.max_error == pytest.approx(0.2)
    assert found.mean_error == pytest.approx(0.3 / 8)
    assert found.sqnr_db == pytest.approx(10 * math.log10(signal / noise))
    one, two = np.array([1, 2, 3, 4, 0, 0, 0, 10]), np.array([1, 2, 3, 4.1, 0, 0, 0.2, 10])
    assert found.cosine == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def test_equal_outputs_and_no_signal():
    same = difference(([1, 2], [1, 2]))
    assert (same.max_error, same.sqnr_db, same.cosine) == (0, None, pytest.approx(1))
    assert lowest_sqnr([same]) is None
    assert difference(([0, 0], [0, 1])).sqnr_db == -math.inf
    assert difference(([0, 0], [0, 1])).cosine is None


def test_nan_is_counted_and_equal_infinities_are_equal():
    found = difference(([1, math.nan, math.inf, -math.inf], [1, 2, math.inf, math.inf]))
    assert (found.not_finite, found.max_error) == (2, 0)


def test_sides_of_one_do_not_matter_and_other_shapes_are_not_compared():
    assert difference((np.ones((1, 4)), np.ones((1, 4, 1, 1)))).comparable
    other = difference((np.ones((1, 4)), np.ones((2, 2))))
    assert (other.comparable, other.max_error, other.sqnr_db) == (False, None, None)
    assert other.shapes == ((1, 4), (2, 2))


def with_outputs(roles, *specs):
    model: Any = made_up_model("detection", (), lambda _image: pytest.fail("nothing is to be run"))
    model.manifest = model.manifest.model_copy(update={"outputs": roles})
    model._backend = type("Backend", (), {"outputs": specs})
    return model


def test_outputs_are_paired_by_role_then_name_then_shape():
    first = with_outputs({"boxes": "x"}, spec("x", 1, 4), spec("aux", 1, 7), spec("left", 1, 9), spec("lost", 2))
    second = with_outputs({"boxes": "y"}, spec("aux", 1, 8), spec("right", 1, 9), spec("y", 1, 4), spec("x", 3))
    found = pair_outputs(first, second)
    assert [(pair.first.name, pair.second.name, pair.by) for pair in found.pairs] == [
        ("x", "y", "role boxes"),
        ("aux", "aux", "name"),
        ("left", "right", "shape"),
    ]
    assert found.alone == ("'lost' of made-up", "'x' of made-up")


def test_a_shape_that_fits_twice_is_not_guessed():
    first = with_outputs({"boxes": "-"}, spec("a", 1, 9), spec("b", 1, 9))
    second = with_outputs({"boxes": "-"}, spec("c", 1, 9), spec("d", 1, 9))
    assert pair_outputs(first, second).pairs == ()
    assert len(pair_outputs(first, second).alone) == 4


def test_integers_are_made_real_before_they_are_compared():
    from edgevision.host.parity.outputs import _real

    quantization = Quantization(scale=np.array([0.5], np.float32), zero_point=np.array([10], np.int32))
    real = _real(np.array([10, 12], np.uint8), spec("a", 2, quantization=quantization))
    assert real.tolist() == [0, 1]


def said(*rows, labels=()):
    """A row is class, confidence, left, top, right, bottom."""
    return Detections(
        xyxy=np.array([row[2:] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row[1] for row in rows], np.float32),
        class_id=np.array([row[0] for row in rows], np.int32),
        labels=labels,
    )


BOX, FAR = (0, 0, 40, 40), (50, 50, 90, 90)


def agreement(first, second, thresholds=(0.3, 0.3)) -> Any:
    return summarise([compare(first, second, thresholds)], boxes=isinstance(first, Detections))


def test_embeddings_agree_where_they_point_the_same_way():
    def of(*numbers):
        return Embedding(vector=np.array(numbers, np.float32), normalised=False)

    parts = [
        compare(of(1, 0), of(2, 0), (0, 0)),
        compare(of(1, 0), of(0, 1), (0, 0)),
        compare(of(1, 0), of(1, 0, 0), (0, 0)),
        compare(of(0, 0), of(1, 0), (0, 0)),
    ]
    assert [part.agreed for part in parts] == [2, 0, 0, 0]
    assert summarise(parts, boxes=False).most_confidence == 1


def test_detections_that_agree_in_all_but_numbers():
    found = agreement(said((0, 0.9, *BOX), (1, 0.5, *FAR)), said((1, 0.55, *FAR), (0, 0.8, 0, 0, 40, 36)))
    assert (found.counted, found.agreement, found.pairs, found.label_agreement) == (4, 1, 2, 1)
    assert found.mean_iou == pytest.approx((1 + 0.9) / 2)
    assert found.least_iou == pytest.approx(0.9)
    assert found.mean_confidence == pytest.approx(0.075)
    assert found.most_confidence == pytest.approx(0.1)


def test_a_partner_just_below_the_threshold_is_no_disagreement_and_does_not_count_itself():
    found = agreement(said((0, 0.301, *BOX)), said((0, 0.299, *BOX)))
    assert (found.counted, found.agreement) == (1, 1)
    unsure = agreement(said((0, 0.2, *BOX)), said((0, 0.2, *BOX)))
    assert (unsure.counted, unsure.agreement, unsure.pairs) == (0, None, 0)


def test_missing_and_wrongly_named_detections_disagree():
    found = agreement(said((0, 0.9, *BOX), (0, 0.9, *FAR)), said((1, 0.9, *BOX)))
    assert (found.counted, found.agreement, found.pairs, found.label_agreement) == (3, 0, 1, 0)
    # Of two partners the one with the same label is taken, even if it overlaps less.
    found = agreement(said((0, 0.9, *BOX)), said((1, 0.9, *BOX), (0, 0.9, 0, 0, 40, 30)))
    assert (found.label_agreement, found.agreement) == (1, pytest.approx(2 / 3))
    assert agreement(said(), said((1, 0.9, *BOX))).agreement == 0
    assert agreement(said(), said()).agreement is None


def test_labels_are_compared_by_name_where_both_have_names():
    one, two = said((0, 0.9, *BOX), labels=("cat",)), said((1, 0.9, *BOX), labels=("background", "cat"))
    assert agreement(one, two).agreement == 1
    ids = np.array([0], np.int32), np.array([1], np.int32)
    top = [
        Classifications(confidence=np.array([0.9 - n / 10], np.float32), class_id=ids[n], labels=labels)
        for n, labels in enumerate((("cat",), ("background", "cat")))
    ]
    found = agreement(top[0], top[1])
    assert (found.agreement, found.mean_iou) == (1, None)
    assert found.mean_confidence == pytest.approx(0.1)


def test_class_maps():
    one = Segmentation(class_map=np.array([[0, 0], [1, 1]], np.uint8))
    two = Segmentation(class_map=np.array([[0, 1], [1, 1]], np.uint8))
    found: Any = summarise([compare(one, two, (0, 0))], boxes=True)
    assert (found.agreement, found.mean_iou) == (0.75, pytest.approx((1 / 2 + 2 / 3) / 2))


@pytest.fixture(scope="module")
def shipped():
    models = tuple(
        load_model("efficientnet-lite0", settings=run.settings_for(MANIFEST, backend=backend, threads=2))
        for backend in ("onnxrt", "litert")
    )
    yield models
    for model in models:
        model.close()


def test_a_model_is_the_same_as_itself(shipped):
    pictures = run.find_pictures([PHOTOS], 2)
    found = run.check(shipped[0], shipped[0], pictures, run.Limits(), warn=pytest.fail)
    assert found.same
    assert (found.outputs[0].max_error, found.predictions.agreement) == (0, 1)
    assert "outputs are equal, 100.0% of predictions agree (2 pictures)" in found.verdict()


def test_the_shipped_models_two_files_are_the_same_within_tolerance(shipped):
    pictures = run.find_pictures([PHOTOS], None)
    found: Any = run.check(shipped[0], shipped[1], pictures, run.Limits(sqnr_db=10, disagreement=0.4), warn=pytest.fail)
    assert found.same, found.verdict()
    (logits,) = found.outputs
    assert (logits.by, logits.comparable) == ("role scores", True)
    assert 10 < logits.sqnr_db < 60
    strict = run.check(shipped[0], shipped[1], pictures[:1], run.Limits(sqnr_db=90), warn=pytest.fail)
    assert not strict.same
    assert "SQNR" in strict.verdict()
    assert "at least 90 is asked for" in strict.verdict()
    text = json.dumps(run.document(shipped[0], shipped[1], found), allow_nan=False)
    assert json.loads(text)["same"] is True


def test_outputs_with_brackets_are_shown_as_they_are(shipped):
    found = run.check(shipped[0], shipped[0], run.find_pictures([PHOTOS], 1), run.Limits(), warn=pytest.fail)
    named = replace(found, outputs=(replace(found.outputs[0], first="Identity[/0]", second="x[left]"),))
    target = io.StringIO()
    Console(file=target, width=160).print(tables.parity(shipped[0], shipped[1], named))
    assert "Identity[/0] / x[left]" in target.getvalue()


def test_unreadable_pictures_are_told_and_left_out(shipped, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    told: list[str] = []
    model = shipped[0]
    found = run.check(model, model, [broken, PHOTOS / "coffee.jpg"], run.Limits(), warn=told.append)
    assert (found.pictures, found.left_out, len(told)) == (1, 1, 1)
    assert "broken.jpg" in told[0]
    with pytest.raises(ImageError, match="none of the 1 pictures"):
        run.check(model, model, [broken], run.Limits(), warn=told.append)


@pytest.mark.parametrize(("task", "confidence"), [("detection", 0.2), ("classification", 0.0), ("segmentation", None)])
def test_a_segmenter_keeps_its_own_threshold(task, confidence):
    thresholds = MANIFEST.thresholds.model_copy(update={"confidence": 0.4})
    manifest = MANIFEST.model_copy(update={"task": task, "thresholds": thresholds})
    assert run.settings_for(manifest, backend=None, threads=2).confidence == confidence


def test_embeddings_are_told_by_their_cosine():
    def answering(*numbers):
        vector = np.array(numbers, np.float32)
        return made_up_model("embedding", (), lambda _image: Embedding(vector=vector, normalised=False))

    first, second = answering(1, 0), answering(0.8, 0.6)
    found = run.check(first, second, run.find_pictures([PHOTOS], 1), run.Limits(), warn=pytest.fail)
    assert (found.predictions.mean_iou, found.predictions.least_iou) == (None, None)
    target = io.StringIO()
    Console(file=target, width=160).print(tables.parity(first, second, found))
    said = target.getvalue()
    assert "vectors agree (cosine from 0.99)" in said
    assert "0.8000  0.8000" in said
    assert "IoU" not in said
    assert "pixels agree" not in said
    assert "confidence" not in said


def test_models_for_different_tasks(shipped):
    other = made_up_model("detection", (), lambda _image: said())
    with pytest.raises(UsageError, match=r"efficientnet-lite0 is a model for classification and made-up for detection"):
        run.check(shipped[0], other, [PHOTOS / "coffee.jpg"], run.Limits(), warn=pytest.fail)


def test_pictures_are_found_and_evenly_limited(tmp_path):
    files = run.find_pictures([PHOTOS], None)
    assert len(files) == 5
    assert run.find_pictures([PHOTOS], 2) == [files[0], files[2]]
    assert run.find_pictures([PHOTOS / "coffee.jpg", PHOTOS], None) == [PHOTOS / "coffee.jpg", *files]
    with pytest.raises(UsageError, match="no such file or folder"):
        run.find_pictures([tmp_path / "nowhere"], None)
    with pytest.raises(UsageError, match="holds no picture"):
        run.find_pictures([tmp_path], None)
