"""Whole evaluations: the shipped classifier on the package's photos, made-up models, faults, and two models side by side."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluate_support import coco_dataset, imagenet_dataset, made_up_model

import edgevision
from edgevision.assembly import load_model
from edgevision.errors import ImageError, PluginError, UsageError
from edgevision.host.dataset.base import Box, Dataset, LabelFault, Sample
from edgevision.host.evaluate import run
from edgevision.host.evaluate.job import Choices, evaluate_models
from edgevision.host.evaluate.remarks import remarks
from edgevision.types import Detections, Segmentation

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"
NAMES = {"coffee.jpg": "espresso", "rocket.jpg": "missile", "grace_hopper.jpg": "military uniform"}


@pytest.fixture(scope="module")
def settings():
    return run.settings_for("classification")


@pytest.fixture(scope="module")
def model(settings):
    loaded = load_model("efficientnet-lite0", settings=settings)
    yield loaded
    loaded.close()


def photos(names=NAMES, folder=PHOTOS, **more):
    labels = tuple(sorted(set(names.values())))
    samples = [
        Sample(name=file, path=folder / file, width=9, height=9, label_id=labels.index(label))
        for file, label in sorted(names.items())
    ]
    made = Dataset(source=folder, format="folders", task="classification", labels=labels, samples=tuple(samples))
    return replace(made, **more)


def evaluate(models, dataset, settings, **choices):
    said: list[str] = []
    outcome = evaluate_models(models, dataset, Choices(**choices), settings=settings, warn=said.append)
    return outcome, said


def test_a_classifier_whose_labels_are_a_part_of_the_models(model, settings):
    outcome, said = evaluate([model], photos(), settings)
    result = outcome.models[0].evaluation.result
    assert said == []
    assert (result.top5, outcome.facts.looked_at, outcome.facts.unreadable) == (1, 3, 0)
    assert result.right[0]  # coffee
    document = json.loads(json.dumps(outcome.document(), allow_nan=False))
    described = document["models"][0]
    assert (described["name"], described["sha256"]) == ("efficientnet-lite0", model.sha256)
    assert document["dataset"]["digest"] == photos().digest()
    assert document["edgevision"] == edgevision.__version__
    assert described["classes_matched"] == "by name"
    assert "only 3 pictures" in remarks(outcome.models[0].evaluation)[0]


def test_faults_end_it_and_are_left_out_when_told(model, settings, tmp_path):
    for file in NAMES:
        shutil.copy(PHOTOS / file, tmp_path)
    (tmp_path / "coffee.jpg").write_bytes((PHOTOS / "coffee.jpg").read_bytes()[:4000])
    (tmp_path / "rocket.jpg").unlink()
    fault = LabelFault(file="labels.txt", line=7, problem="the class 'nut' is empty")
    dataset = photos(folder=tmp_path, faults=(fault,))
    with pytest.raises(ImageError) as caught:
        evaluate([model], dataset, settings)
    text = str(caught.value)
    assert "3 faults" in text
    assert "--skip-faulty" in text
    assert all(words in text for words in ("labels.txt:7: the class 'nut' is empty", "coffee.jpg", "rocket.jpg"))
    outcome, said = evaluate([model], dataset, settings, skip_faulty=True)
    assert len(said) == 3
    assert (outcome.facts.looked_at, outcome.facts.unreadable, outcome.facts.faults) == (1, 2, 1)


def test_nothing_left_is_an_error(model, settings, tmp_path):
    with pytest.raises(ImageError, match="no picture is left"):
        evaluate([model], photos(folder=tmp_path), settings, skip_faulty=True)


def test_labels_that_the_model_does_not_know(model, settings):
    dataset = photos({**NAMES, "chelsea.jpg": "espreso"})
    with pytest.raises(UsageError, match="has no 'espreso' \\(did you mean 'espresso'\\?\\)"):
        evaluate([model], dataset, settings)
    outcome, said = evaluate([model], dataset, settings, skip_faulty=True)
    assert (outcome.facts.looked_at, outcome.facts.unknown) == (3, 1)
    assert "1 pictures are left out" in said[0]


def test_a_model_for_something_else(model, settings):
    with pytest.raises(UsageError, match=r"is a model for classification, and .* is a dataset for detection"):
        evaluate([model], photos(task="detection"), settings)


def test_numbers_for_labels(model, settings):
    numbers = {"coffee.jpg": str(model.labels.index("espresso")), "rocket.jpg": str(model.labels.index("missile"))}
    outcome, _ = evaluate([model], photos(numbers), settings, by_index=True)
    result = outcome.models[0].evaluation.result
    assert result.right.tolist()[0]
    assert f"{numbers['coffee.jpg']} (espresso)" in result.labels


def test_a_missing_package_is_told_before_any_picture_is_looked_at(model, settings, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(PluginError, match=r"classification metrics needs sklearn.metrics"):
        evaluate([model], photos(folder=tmp_path / "not there"), settings)


def test_spoiled_pictures_lose(model, settings):
    dataset = photos({"coffee.jpg": "espresso"})
    outcome, _ = evaluate([model], dataset, settings, corruptions=("noise", "occlusion"), severities=(1, 5))
    slices = outcome.models[0].slices
    assert [(part.corruption, part.severity) for part in slices] == [
        ("noise", 1),
        ("noise", 5),
        ("occlusion", 1),
        ("occlusion", 5),
    ]
    assert all(part.drop == pytest.approx(1 - part.figure) for part in slices)
    assert outcome.document()["models"][0]["robustness"]["slices"][0]["corruption"] == "noise"


def test_uses_of_a_test_set_are_counted(model, settings, tmp_path):
    for file in NAMES:
        shutil.copy(PHOTOS / file, tmp_path)
    dataset = photos(folder=tmp_path, role="test")
    counts = [evaluate([model], dataset, settings)[0].facts.test_uses_before for _ in range(3)]
    assert counts == [0, 1, 2]
    assert evaluate([model], replace(dataset, role="validation"), settings)[0].facts.test_uses_before is None


# Two boxes a picture of 100 x 100; the first model finds both, the second loses the right one in half the pictures.


def boxes_dataset(folder, count):
    samples = []
    for number in range(count):
        path = folder / f"{number:02}.png"
        image = np.full((100, 100, 3), number, np.uint8)
        cv2.imwrite(str(path), image)
        boxes = (Box(label_id=0, xyxy=(0, 0, 40, 40)), Box(label_id=1, xyxy=(50, 50, 90, 90)))
        samples.append(Sample(name=path.name, path=path, width=100, height=100, boxes=boxes))
    return Dataset(source=folder, format="coco", task="detection", labels=("bolt", "nut"), samples=tuple(samples))


def finder(losing):
    def find(image):
        number = int(image[0, 0, 0])
        rows = [((0, 0, 40, 40), 0.9, 0), ((50, 50, 90, 90), 0.8, 1), ((60, 0, 90, 20), 0.02, 2)]
        if number % 2 and losing:
            del rows[1]
        return Detections(
            xyxy=np.array([row[0] for row in rows], np.float32),
            confidence=np.array([row[1] for row in rows], np.float32),
            class_id=np.array([row[2] for row in rows], np.int32),
        )

    return made_up_model("detection", ("bolt", "nut", "washer"), find, name="losing" if losing else "whole")


def test_two_models_side_by_side(tmp_path):
    dataset = boxes_dataset(tmp_path, 40)
    settings = run.settings_for("detection")
    outcome, _ = evaluate([finder(losing=False), finder(losing=True)], dataset, settings)
    compared = outcome.comparison
    first, second = (part.evaluation for part in outcome.models)
    assert (first.figure, first.unscored) == (pytest.approx(1), 40)
    assert compared.difference == pytest.approx(second.figure - 1)
    assert compared.low < compared.difference < compared.high < 0
    assert compared.proved
    assert compared.high - compared.low < 0.2
    assert (compared.worse_count, compared.better_count) == (20, 0)
    assert (compared.worse[0].picture, compared.worse[0].before) == ("01.png", 1)
    assert compared.worse[0].after == pytest.approx(2 / 3)
    assert [change.label for change in compared.classes] == ["nut", "bolt"]
    json.dumps(outcome.document(), allow_nan=False)


def test_a_model_against_itself_proves_nothing(tmp_path):
    dataset = boxes_dataset(tmp_path, 6)
    outcome, _ = evaluate([finder(losing=True), finder(losing=True)], dataset, run.settings_for("detection"))
    compared = outcome.comparison
    assert (compared.difference, compared.low, compared.high, compared.proved) == (0, 0, 0, False)
    assert compared.worse == ()


def test_unknown_boxes_are_left_out_and_counted(tmp_path):
    dataset = boxes_dataset(tmp_path, 3)
    dataset = replace(dataset, labels=("bolt", "rivet"))
    model = finder(losing=False)
    with pytest.raises(UsageError, match="'rivet'"):
        evaluate([model], dataset, run.settings_for("detection"))
    outcome, said = evaluate([model], dataset, run.settings_for("detection"), skip_faulty=True)
    assert "3 boxes are left out" in said[0]
    assert outcome.models[0].evaluation.figure == pytest.approx(1)


def test_segmentation_by_a_real_model(shared, tmp_path):
    """The bird's mask, written as a dataset of masks; pixels of the mask's edge (neither bird nor ground) do not count."""
    from edgevision.host.dataset.formats import read

    mask = cv2.imread(str(shared / "images" / "bird_segmentation_mask.bmp"), cv2.IMREAD_UNCHANGED)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    shutil.copyfile(shared / "images" / "bird_segmentation.bmp", tmp_path / "images" / "bird.bmp")
    cv2.imwrite(str(tmp_path / "masks" / "bird.png"), np.select([mask == 0, mask == 3], [0, 1], 255).astype(np.uint8))
    (tmp_path / "labels.txt").write_text("background\nbird\n")
    settings = run.settings_for("segmentation")
    model = load_model(
        shared / "models" / "deeplabv3_mnv2_dm05_pascal_quant.tflite",
        like="deeplabv3-mnv2-pascal-quant",
        settings=settings,
    )
    outcome, said = evaluate([model], read(tmp_path), settings)
    model.close()
    result = outcome.models[0].evaluation.result
    assert said == []
    assert result.labels == ("background", "bird")
    assert result.class_iou[1] > 0.8
    assert result.class_iou[0] > 0.96


def test_segmentation_by_a_made_up_model(tmp_path):
    image, mask = np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20), np.uint8)
    mask[:, 10:] = 1
    mask[0] = 255
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "a-mask.png"), mask)
    sample = Sample(name="a.png", path=tmp_path / "a.png", width=20, height=10, mask=tmp_path / "a-mask.png")
    dataset = Dataset(source=tmp_path, format="masks", task="segmentation", labels=("floor", "belt"), samples=(sample,))

    def halves(image):
        said = np.full(image.shape[:2], 1, np.uint8)  # the model's own numbers are the other way round
        said[:, 15:] = 0
        return Segmentation(class_map=said)

    model = made_up_model("segmentation", ("belt", "floor"), halves)
    settings = run.settings_for("segmentation")
    outcome, _ = evaluate([model, model], dataset, settings)
    result = outcome.models[0].evaluation.result
    assert result.class_iou.tolist() == pytest.approx([10 / 15, 1 / 2])
    assert result.pixel_accuracy == pytest.approx(3 / 4)
    assert outcome.comparison.difference == 0
    json.dumps(outcome.document(), allow_nan=False)
    cv2.imwrite(str(tmp_path / "a-mask.png"), mask[:5])
    with pytest.raises(ImageError, match=r"a-mask.png: the mask is 20x5, the answer 20x10"):
        evaluate([model], dataset, settings)


def test_settings_keep_what_a_metric_needs_and_no_more():
    """A segmenter's threshold makes pixels background in the daemon, so it does in a figure of it."""
    assert run.settings_for("detection").confidence == 0.01
    assert run.settings_for("detection", confidence=0.3).confidence == 0.3
    assert run.settings_for("segmentation").confidence is None
    assert run.settings_for("segmentation", confidence=0.3).confidence == 0.3
    assert run.settings_for("classification").confidence == 0
    with pytest.raises(UsageError, match="--confidence: a classification is scored by all its answers"):
        run.settings_for("classification", confidence=0.3)


def plain_coco_ap(annotations, samples, model, tmp_path):
    """What a script of a few lines gives: pycocotools on files, as its own example does it."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(annotations))
    numbers = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
    categories = {category["name"]: category["id"] for category in truth.dataset["categories"]}
    results = []
    for sample in samples:
        found = model.predict(sample.path)
        for box, confidence, class_id in zip(found.xyxy, found.confidence, found.class_id, strict=True):
            left, top, right, bottom = box.tolist()
            results.append(
                {
                    "image_id": numbers[sample.name],
                    "category_id": categories[found.labels[class_id]],
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(confidence),
                }
            )
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluator.params.imgIds = sorted(numbers[sample.name] for sample in samples)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.stats


def test_ssd_on_coco_gives_what_a_plain_script_gives(shared, tmp_path):
    settings = run.settings_for("detection")
    file = shared / "models" / "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
    model = load_model(file, like="ssd-mobilenet-v1-quant", settings=settings)
    folder = shared / "images" / "coco-val"
    dataset = coco_dataset(folder / "instances.json", folder)
    outcome, _ = evaluate([model], dataset, settings, limit=50)
    part = outcome.models[0].evaluation
    assert (part.confidence, part.own_confidence, part.iou, part.max_detections) == (0.01, 0.5, 0.45, 100)
    plain = plain_coco_ap(dataset.source, part.samples, model, tmp_path)
    assert list(part.result.coco.summary.values()) == pytest.approx(plain.tolist(), abs=1e-9)
    assert part.figure > 0.15


def test_mobilenet_with_a_background_class(shared):
    settings = run.settings_for("classification")
    file = shared / "models" / "mobilenet_v2_1.0_224_quant.tflite"
    model = load_model(file, like="mobilenet-v2-quant", settings=settings)
    dataset = imagenet_dataset(shared / "images" / "imagenet")
    outcome, _ = evaluate([model], dataset, settings, limit=100, by_index=True, index_offset=1)
    assert outcome.models[0].evaluation.result.top1 > 0.8
    wrong, _ = evaluate([model], dataset, settings, limit=100, by_index=True)
    assert wrong.models[0].evaluation.result.top1 < 0.1
