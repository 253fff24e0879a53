"""COCO AP over the pictures that the golden tests share."""

import json

import cv2
import pytest


def average_precision(shared, chain):
    """COCO AP on the 158 pictures of what takes a picture and gives detections."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    folder = shared / "images" / "coco-val"
    truth = coco.COCO(str(folder / "instances.json"))
    # The labels are in the order of COCO's own category ids, which have gaps.
    category_ids = sorted(truth.getCatIds())
    results = []
    for image_id in sorted(truth.getImgIds()):
        found = chain(cv2.imread(str(folder / truth.loadImgs(image_id)[0]["file_name"])))
        for (x0, y0, x1, y1), score, class_id in zip(
            found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist(), strict=True
        ):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": category_ids[class_id],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": score,
                }
            )
    assert json.dumps(results)  # plain numbers only
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]
