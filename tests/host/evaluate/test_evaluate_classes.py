"""Classification, segmentation, and the matching of a model's classes with a dataset's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgevision.errors import UsageError
from edgevision.host.evaluate.answers import OTHER, match_classes
from edgevision.host.evaluate.classification import confused_pairs, resampled_top1, score
from edgevision.host.evaluate.segmentation import count_pixels, picture_iou, resampled_miou
from edgevision.host.evaluate.segmentation import score as score_pixels
from edgevision.types import Classifications

LABELS = ("ok", "scratch", "dent")


def said(*ids, first=0.9):
    confidence = np.linspace(first, 0.1, len(ids)).astype(np.float32)
    return Classifications(confidence=confidence, class_id=np.array(ids, np.int32))


def test_classification_by_hand():
    truth = np.array([0, 0, 0, 0, 1, 2])
    answers = [said(0, 1), said(0), said(0), said(1, 0), said(0, 1), said(OTHER, 2)]
    result = score(truth, answers, LABELS, model_classes=1000, own_threshold=0.0)
    assert result.top1 == pytest.approx(3 / 6)
    assert result.top5 == pytest.approx(6 / 6)
    assert result.balanced_accuracy == pytest.approx((3 / 4 + 0 + 0) / 3)
    assert result.majority_baseline == pytest.approx(4 / 6)
    assert result.confusion.tolist() == [[3, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    ok, scratch, dent = result.classes
    assert (ok.precision, ok.recall, ok.f1) == pytest.approx((3 / 4, 3 / 4, 3 / 4))
    assert (scratch.precision, dent.recall) == (0, 0)
    assert result.answered is None
    assert ("dent", "(another class)", 1, 1.0) in confused_pairs(result.confusion, LABELS, 10)
    assert len(confused_pairs(result.confusion, LABELS, 2)) == 2


def test_the_models_own_threshold_and_an_empty_answer():
    truth = np.array([0, 0, 1])
    answers = [said(0, first=0.9), said(1, first=0.3), said()]
    result = score(truth, answers, LABELS, model_classes=3, own_threshold=0.5)
    assert (result.answered, result.answered_top1) == pytest.approx((1 / 3, 1.0))
    assert result.top5 is None
    assert result.said.tolist() == [0, 1, OTHER]


def test_resampled_top1_weighs_pictures():
    right = np.array([True, False, False])
    assert resampled_top1(right, np.array([[3, 0, 0], [1, 1, 1], [0, 1, 2]])).tolist() == pytest.approx([1, 1 / 3, 0])


def test_segmentation_by_hand():
    true = np.array([[0, 0, 1], [1, 255, 255]], np.uint8)
    said = np.array([[0, 1, 1], [7, 0, 0]], np.uint8)
    counts = count_pixels(said, true, 3)
    assert (counts.both.tolist(), counts.said.tolist(), counts.true.tolist()) == ([1, 1, 0], [1, 2, 0], [2, 2, 0])
    result = score_pixels([counts], LABELS)
    assert result.class_iou[:2].tolist() == pytest.approx([1 / 2, 1 / 3])
    assert np.isnan(result.class_iou[2])
    assert result.mean_iou == pytest.approx(5 / 12)
    assert result.pixel_accuracy == pytest.approx(2 / 4)
    assert picture_iou(counts) == pytest.approx(5 / 12)
    assert resampled_miou([counts, counts], np.array([[2, 0], [1, 1]])).tolist() == pytest.approx([5 / 12] * 2)


def test_segmentation_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="3x2, the answer 2x2"):
        count_pixels(np.zeros((2, 2)), np.zeros((2, 3), np.uint8), 3)
    with pytest.raises(ValueError, match="a pixel of the mask is 9; the dataset has classes 0 to 2"):
        count_pixels(np.zeros((1, 1)), np.full((1, 1), 9, np.uint8), 3)


@given(
    hnp.arrays(np.uint8, (6, 5), elements=st.integers(0, 3)), hnp.arrays(np.uint8, (6, 5), elements=st.integers(0, 3))
)
def test_segmentation_agrees_with_sets_of_pixels(said, true):
    result = score_pixels([count_pixels(said, true, 4)], ("a", "b", "c", "d"))
    for number in range(4):
        union = ((said == number) | (true == number)).sum()
        both = ((said == number) & (true == number)).sum()
        assert np.isnan(result.class_iou[number]) if not union else result.class_iou[number] == both / union


def test_names_match_whatever_their_case_and_two_classes_may_share_one():
    classes = match_classes(("Crane", "hot-dog", "crane", "tv"), ("hot dog", "crane"), offset=None, used=frozenset({0}))
    assert classes.labels(np.array([0, 1, 2, 3, 9], np.int32)).tolist() == [1, 0, 1, OTHER, OTHER]
    assert classes.missing == frozenset()


def test_equal_lists_of_labels_match_by_place_even_with_doubles():
    names = ("crane", "crane", "tv")
    classes = match_classes(names, names, offset=None, used=frozenset({0, 1, 2}))
    assert classes.labels(np.array([0, 1, 2], np.int32)).tolist() == [0, 1, 2]


def test_a_label_that_nothing_carries_may_be_unknown():
    classes = match_classes(("bolt",), ("bolt", "nut"), offset=None, used=frozenset({0}))
    assert classes.missing == frozenset({1})


def test_labels_are_matched_by_number_when_told():
    in_order = match_classes(("bolt", "nut", "x"), ("Schraube", "Mutter"), offset=0, used=frozenset({0, 1}))
    assert in_order.labels(np.array([0, 1, 2], np.int32)).tolist() == [0, 1, OTHER]
    named = match_classes(tuple("abcd"), ("1", "3"), offset=0, used=frozenset({0, 1}))
    assert named.labels(np.array([0, 1, 2, 3], np.int32)).tolist() == [OTHER, 0, OTHER, 1]


@pytest.mark.parametrize(
    ("model", "dataset", "offset", "words"),
    [
        (("person", "car"), ("persn",), None, "no 'persn' \\(did you mean 'person'\\?\\) among its 2 labels"),
        (("person",), ("Person", "person"), None, "two classes of the dataset are named 'person'"),
        ((), ("person",), None, "say --by-index"),
        (("a", "b"), ("x", "y", "z"), 0, "the dataset has class 2, the model only 0 to 1"),
        (("a", "b"), ("0", "7"), 0, "the dataset has class 7, the model only 0 to 1"),
    ],
)
def test_labels_that_do_not_fit(model, dataset, offset, words):
    with pytest.raises(UsageError, match=words):
        match_classes(model, dataset, offset=offset, used=frozenset(range(len(dataset))))
