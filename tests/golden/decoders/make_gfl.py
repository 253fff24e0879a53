"""Make `nanodet.npz`, `nanodet_plus.npz` and `picodet.npz`: GFL heads of random convolutions, decoded by the authors' formulae.

    python make_gfl.py

Needs torch and torchvision. The formulae: NanoDet's `GFLHead.get_bboxes` and `NanoDetPlusHead.get_bboxes` (RangiLyu/nanodet),
PicoDet's `PicoHead` (PaddleDetection), NMS per class.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision

HERE = Path(__file__).parent
WIDTH, HEIGHT, CLASSES, REG_MAX = 128, 96, 5, 7
CONFIDENCE, IOU = 0.3, 0.6


class Head(torch.nn.Module):  # type: ignore[misc]
    """One convolution for the scores and one for the distributions, shared by all grids, as GFL heads are."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Conv2d(16, CLASSES, 3, padding=1)
        self.boxes = torch.nn.Conv2d(16, 4 * (REG_MAX + 1), 3, padding=1)

    def forward(self, features):
        return [(4 * self.scores(f) - 3.5, 6 * self.boxes(f)) for f in features]


def decode(scores, boxes, width, height, stride, offset, clamp):
    """Confidence (cells, classes) and corner boxes (cells, 4) of one grid, cells in rows."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (x.flatten() + offset) * stride, (y.flatten() + offset) * stride
    project = torch.linspace(0, REG_MAX, REG_MAX + 1)
    weights = torch.softmax(boxes.reshape(-1, 4, REG_MAX + 1), dim=-1)
    left, top, right, bottom = (torch.nn.functional.linear(weights, project[None]).squeeze(-1) * stride).unbind(-1)
    corners = [x - left, y - top, x + right, y + bottom]
    if clamp:
        corners = [edge.clamp(0, limit) for edge, limit in zip(corners, (WIDTH, HEIGHT) * 2, strict=True)]
    return scores, torch.stack(corners, -1)


def multiclass_nms(scores, boxes):
    """Every class of every cell that is above the threshold, then NMS within each class, most confident first."""
    cell, class_id = (scores > CONFIDENCE).nonzero(as_tuple=True)
    confidence = scores[cell, class_id]
    keep = torchvision.ops.batched_nms(boxes[cell], confidence, class_id, IOU)
    return boxes[cell][keep], confidence[keep], class_id[keep]


@torch.no_grad()
def make(name, strides, offset, *, clamp, joined, seed):
    torch.manual_seed(seed)
    head = Head()
    features = [torch.randn(1, 16, -(-HEIGHT // s), -(-WIDTH // s)) for s in strides]
    tensors, parts = {}, []
    for stride, feature, (raw_scores, raw_boxes) in zip(strides, features, head(features), strict=True):
        scores = raw_scores.sigmoid().flatten(2).permute(0, 2, 1)
        boxes = raw_boxes.flatten(2).permute(0, 2, 1)
        tensors[f"scores_{stride}"], tensors[f"boxes_{stride}"] = scores, boxes
        parts.append(decode(scores[0], boxes[0], feature.shape[3], feature.shape[2], stride, offset, clamp))
    if joined:
        rows = [torch.cat([tensors[f"scores_{s}"], tensors[f"boxes_{s}"]], dim=2) for s in strides]
        tensors = {"predictions": torch.cat(rows, dim=1)}
    scores, boxes = (torch.cat(part) for part in zip(*parts, strict=True))
    xyxy, confidence, class_id = multiclass_nms(scores, boxes)
    settings = {
        "size": [WIDTH, HEIGHT], "confidence": CONFIDENCE, "iou": IOU, "classes": CLASSES,
        "decoder": {"strides": strides, "cell_offset": offset, "reg_max": REG_MAX, "multi_label": True},
        "made_with": f"torch {torch.__version__.partition('+')[0]}, torchvision {torchvision.__version__.partition('+')[0]}",
    }  # fmt: skip
    np.savez_compressed(
        HERE / f"{name}.npz",
        **{f"tensor {role}": tensor.numpy() for role, tensor in tensors.items()},
        xyxy=xyxy.numpy(), confidence=confidence.numpy(), class_id=class_id.numpy(), settings=json.dumps(settings),
    )  # fmt: skip
    print(f"{name}: {len(xyxy)} boxes of {len(scores)} cells")  # noqa: T201 - a script that a person runs


if __name__ == "__main__":
    make("nanodet", [8, 16, 32], 0.5, clamp=True, joined=False, seed=1)
    make("nanodet_plus", [8, 16, 32, 64], 0, clamp=True, joined=True, seed=2)
    make("picodet", [8, 16, 32, 64], 0.5, clamp=False, joined=False, seed=3)
