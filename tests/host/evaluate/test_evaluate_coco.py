"""COCO's and VOC's figures against their authors' own numbers."""

import json
from typing import Any

import numpy as np
import pytest

from edgevision.host.evaluate.coco import coco_scores, resampled_ap
from edgevision.host.evaluate.voc import average_precision


def read(path):
    content = json.loads(path.read_text())
    return content["annotations"] if "dets" in str(path) else content


@pytest.fixture(scope="module")
def fake(shared):
    return shared / "fixtures" / "coco-fake"


@pytest.fixture(scope="module")
def fake_scores(fake):
    truth = read(fake / "instances_val2014_100.json")
    return coco_scores(truth, json.loads((fake / "instances_val2014_fakebbox100_results.json").read_text()))


def test_boxes_of_cocos_own_example(fake_scores):
    summary = fake_scores.summary
    assert [round(summary[key], 6) for key in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")] == [
        0.504581,
        0.696973,
        0.572982,
        0.585626,
        0.519400,
        0.501398,
    ]


@pytest.mark.parametrize(("kind", "file"), [("segm", "fakesegm100"), ("bbox", "fakebbox100")])
def test_all_twelve_figures_of_cocos_own_example(fake, kind, file):
    results = json.loads((fake / f"instances_val2014_{file}_results.json").read_text())
    scores = coco_scores(read(fake / "instances_val2014_100.json"), results, kind)
    text = (fake / "val2014_fake_eval_res.txt").read_text().partition(f"type={kind}")[2].partition("-----")[0]
    published = [float(line.rpartition("=")[2]) for line in text.splitlines() if "Average" in line]
    assert len(published) == 12
    assert list(scores.summary.values()) == pytest.approx(published, abs=0.0005 + 1e-9)


def test_boxes_of_the_padilla_fixture(shared):
    folder = shared / "fixtures" / "padilla" / "test_coco_eval"
    results = json.loads((folder / "dets" / "sampled_bbox_results.json").read_text())
    truth = json.loads((folder / "gts" / "sampled_gts_bbox_area.json").read_text())
    summary: Any = coco_scores(truth, results["annotations"] if isinstance(results, dict) else results).summary
    assert [round(summary[key], 6) for key in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")] == [
        0.503647,
        0.696973,
        0.571667,
        0.593252,
        0.557991,
        0.489363,
    ]


def test_ap_of_a_resample_of_every_picture_once_is_pycocotools_own(fake_scores):
    pictures = len(fake_scores.matches[0].objects)
    once = resampled_ap(fake_scores.matches, np.ones((1, pictures), np.int64))
    assert once[0] == pytest.approx(fake_scores.summary["ap"], abs=1e-12)


def test_ap_of_a_resample_is_that_of_the_pictures_copied(fake):
    truth = read(fake / "instances_val2014_100.json")
    results = json.loads((fake / "instances_val2014_fakebbox100_results.json").read_text())
    # No two equally confident: their order would differ between weighing and copying.
    results = [{**item, "score": item["score"] + number * 1e-9} for number, item in enumerate(results)]
    pictures = sorted(image["id"] for image in truth["images"])
    weights = np.random.default_rng(5).multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)))
    copied, found = {**truth, "images": [], "annotations": []}, []
    for picture, times in zip(pictures, weights, strict=True):
        for time in range(times):
            number = picture * 1000 + time
            copied["images"].append({"id": number})
            boxes = [item for item in truth["annotations"] if item["image_id"] == picture]
            copied["annotations"] += [
                {**item, "image_id": number, "id": len(copied["annotations"]) + 1 + row}
                for row, item in enumerate(boxes)
            ]
            found += [{**item, "image_id": number} for item in results if item["image_id"] == picture]
    scores = coco_scores(truth, results)
    assert resampled_ap(scores.matches, weights[None])[0] == pytest.approx(
        coco_scores(copied, found).summary["ap"], abs=1e-9
    )


def one_picture(*boxes):
    """COCO truth of one class; a box is x, y, w, h and flags."""
    return {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "bolt"}],
        "annotations": [
            {
                "id": row,
                "image_id": 1,
                "category_id": 1,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
                **flags,
            }
            for row, (box, flags) in enumerate(boxes, 1)
        ],
    }


def found(*boxes):
    return [{"image_id": 1, "category_id": 1, "bbox": list(box), "score": score} for box, score in boxes]


def test_a_difficult_object_is_neither_missed_nor_wrong():
    easy, hard = (0, 0, 50, 50), (100, 100, 50, 50)
    truth = one_picture((easy, {}), (hard, {"difficult": 1}))
    for results in (found((easy, 0.9)), found((hard, 0.95), (easy, 0.9))):
        assert coco_scores(truth, results).summary["ap"] == pytest.approx(1)
    counted = one_picture((easy, {}), (hard, {}))
    assert coco_scores(counted, found((easy, 0.9))).summary["ap"] == pytest.approx(51 / 101)


def test_a_crowd_takes_many_detections():
    truth = one_picture(((0, 0, 50, 50), {}), ((100, 100, 80, 80), {"iscrowd": 1}))
    inside = [((100 + step, 100 + step, 20, 20), 0.95) for step in (0, 25, 50)]
    scores = coco_scores(truth, found(*inside, ((0, 0, 50, 50), 0.9)))
    assert scores.summary["ap"] == pytest.approx(1)
    assert scores.matches[0].objects.tolist() == [1]


def test_nothing_found_is_zero_and_nothing_to_find_is_no_figure(capfd):
    truth = one_picture(((0, 0, 50, 50), {}))
    assert coco_scores(truth, []).summary["ap"] == 0
    empty = coco_scores(one_picture(), found(((0, 0, 9, 9), 0.5)))
    assert empty.summary["ap"] is None
    assert np.isnan(empty.class_ap).all()
    assert np.isnan(resampled_ap(empty.matches, np.ones((3, 1), np.int64))).all()
    assert capfd.readouterr() == ("", "")


def padilla(shared):
    """xyxy of objects and detections, and confidences, of test case 1, which has whole pixels, the last one inside."""
    folder = shared / "fixtures" / "padilla" / "test_case_1"
    objects, boxes, confidence = [], [], []
    for file in sorted((folder / "gts").glob("*.txt")):
        rows = [[float(word) for word in line.split()[1:]] for line in file.read_text().splitlines()]
        lines = (folder / "dets" / file.name).read_text().splitlines()
        found = np.array([[float(word) for word in line.split()[1:]] for line in lines])
        truth = np.array(rows)
        truth[:, 2:] += truth[:, :2]
        confidence.append(found[:, 0])
        found = found[:, 1:].copy()
        found[:, 2:] += found[:, :2]
        objects.append(truth)
        boxes.append(found)
    return objects, boxes, confidence


@pytest.mark.parametrize(
    ("iou", "expected"), [(0.1, 0.3371980676), (0.3, 0.2456866804), (0.5, 0.0222222222), (0.75, 0.0)]
)
def test_voc_every_point_of_the_padilla_fixture(shared, iou, expected):
    assert average_precision(*padilla(shared), iou=iou, inclusive=True) == pytest.approx(expected, abs=1e-9)


def test_voc_eleven_points_of_the_padilla_fixture(shared):
    # The fixture's authors print 26.84 % for this case at IoU 0.3.
    value = average_precision(*padilla(shared), iou=0.3, points="eleven", inclusive=True)
    assert value == pytest.approx(0.2684, abs=5e-5)


def test_voc_difficult_and_double_detections():
    box, hard = np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    twice = np.repeat(box, 2, axis=0)
    assert average_precision([box], [twice], [np.array([0.9, 0.8])]) == pytest.approx(1)
    assert average_precision([box, box], [twice, box], [np.array([0.9, 0.8]), np.array([0.7])]) == pytest.approx(5 / 6)
    flags = [np.array([False, True])]
    assert average_precision([hard], [hard], [np.array([0.5, 0.9])], difficult=flags) == pytest.approx(1)
    assert average_precision([hard], [np.empty((0, 4))], [np.empty(0)]) == 0
    assert average_precision([np.empty((0, 4))], [box], [np.array([0.9])]) is None
