"""Make the goldens of the Ultralytics families: small networks with random weights, decoded by the package's own code.

    python make_ultralytics.py

Needs torch, torchvision and ultralytics, which is AGPL-3.0: have it in an environment of its own. Networks are built from the
package's own YAML files, their last convolutions are rescaled so that a few dozen boxes reach the threshold, and a random
picture goes through. NMS is `ultralytics.utils.nms.non_max_suppression`, masks are `ultralytics.utils.ops.process_mask`.
"""

import json
from pathlib import Path

import numpy as np
import torch
import ultralytics  # type: ignore[import-not-found]
from ultralytics.nn.tasks import (  # type: ignore[import-not-found]
    DetectionModel,
    PoseModel,
    SegmentationModel,
    yaml_model_load,
)
from ultralytics.utils import nms, ops  # type: ignore[import-not-found]

HERE = Path(__file__).parent
WIDTH, HEIGHT, CLASSES = 96, 64, 4
STRIDES = (8, 16, 32)
CONFIDENCE, IOU = 0.3, 0.5
CELLS = [WIDTH // s * (HEIGHT // s) for s in STRIDES]


def rescale(model, image, modules, mean, deviation):
    """Set mean and deviation, over the picture, of each channel that some convolutions give."""
    for module in modules:
        if not isinstance(module, torch.nn.Conv2d):
            continue
        seen: list[torch.Tensor] = []
        handle = module.register_forward_hook(lambda _module, _given, output, seen=seen: seen.append(output))
        model(image)
        handle.remove()
        factor = deviation / seen[0].std(dim=(0, 2, 3))
        module.weight.mul_(factor[:, None, None, None])
        module.bias.sub_(seen[0].mean(dim=(0, 2, 3))).mul_(factor).add_(mean)


@torch.no_grad()
def network(kind, yaml, seed, changes=None):
    """A network, the picture, and what its head gives: (decoded outputs, raw ones)."""
    torch.manual_seed(seed)
    config = {**yaml_model_load(yaml), **(changes or {})}
    model = kind(config, ch=3, nc=CLASSES, verbose=False).eval()
    # Batch normalisation takes its figures from random pictures: otherwise nothing of a picture reaches the head.
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    for _ in range(4):
        model(torch.rand(8, 3, HEIGHT, WIDTH))
    model.eval()
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    head = model.model[-1]
    one2one = getattr(head, "one2one_cv2", None) is not None
    if one2one:
        head.end2end = True
    for prefix in ("one2one_", "") if one2one else ("",):
        boxes = (1.5, 0.7) if head.reg_max == 1 else (0.0, 2.0)
        rescale(model, image, [branch[-1] for branch in getattr(head, f"{prefix}cv2")], *boxes)
        rescale(model, image, [branch[-1] for branch in getattr(head, f"{prefix}cv3")], -2.2, 1.4)
        if hasattr(head, f"{prefix}cv4"):
            rescale(model, image, [branch[-1] for branch in getattr(head, f"{prefix}cv4")], 0.0, 1.0)
    return model(image), head


def save(name, tensors, rows, decoder, *, activation="none", extra=None):
    """Write one file; `rows` are (n, 6): corners, confidence, class."""
    versions = f"ultralytics {ultralytics.__version__}, torch {torch.__version__.partition('+')[0]}"
    settings = {
        "size": [WIDTH, HEIGHT], "confidence": CONFIDENCE, "iou": IOU, "classes": CLASSES, "decoder": decoder,
        "activation": activation, "made_with": versions,
    }  # fmt: skip
    np.savez_compressed(
        HERE / f"{name}.npz",
        **{f"tensor {role}": tensor.float().numpy() for role, tensor in tensors.items()},
        xyxy=rows[:, :4].numpy(), confidence=rows[:, 4].numpy(), class_id=rows[:, 5].numpy().astype(np.int64),
        settings=json.dumps(settings), **(extra or {}),
    )  # fmt: skip
    print(f"{name}: {len(rows)} boxes; { ({role: list(tensor.shape) for role, tensor in tensors.items()}) }")  # noqa: T201 - a script that a person runs


def suppress(decoded, *, multi_label=False):
    return nms.non_max_suppression(decoded, CONFIDENCE, IOU, nc=CLASSES, multi_label=multi_label, max_time_img=60)[0]


def per_grid(raw, names):
    """Raw tensors of all grids in a row -> one map for each grid."""
    found = {}
    for role, tensor in names.items():
        for stride, part in zip(STRIDES, raw[tensor].split(CELLS, dim=2), strict=True):
            found[f"{role}_{stride}"] = part.reshape(1, -1, HEIGHT // stride, WIDTH // stride)
    return found


def detection():
    (decoded, raw), _ = network(DetectionModel, "yolov8n.yaml", 1)
    save("yolov8", {"predictions": decoded}, suppress(decoded), {"multi_label": False})
    save("yolov8_multi_label", {"predictions": decoded}, suppress(decoded, multi_label=True), {"multi_label": True})
    unit = decoded.clone()
    unit[:, [0, 2]] /= WIDTH
    unit[:, [1, 3]] /= HEIGHT
    save("yolov8_normalised", {"predictions": unit}, suppress(decoded), {"multi_label": False, "normalised": True})
    dfl = {"multi_label": False, "box_format": "dfl"}
    grids = per_grid(raw, {"boxes": "boxes", "scores": "scores"})
    save("yolov8_grids", grids, suppress(decoded), dfl, activation="sigmoid")
    joined = {
        f"predictions_{stride}": torch.cat([grids[f"boxes_{stride}"], grids[f"scores_{stride}"]], dim=1)
        for stride in STRIDES
    }
    save("yolov8_raw", joined, suppress(decoded), dfl, activation="sigmoid")
    (decoded, raw), _ = network(DetectionModel, "yolo11n.yaml", 2)
    whole = {"boxes": raw["boxes"], "scores": raw["scores"]}
    save("yolo11_split", whole, suppress(decoded), dfl, activation="sigmoid")
    # YOLO26's other head, which wants NMS: no distribution, the distances themselves.
    (_, both), head = network(DetectionModel, "yolo26n.yaml", 3)
    raw = both["one2many"]
    head.end2end = False
    decoded = head._inference(raw)
    save("yolo26_split", {"boxes": raw["boxes"], "scores": raw["scores"]}, suppress(decoded),
         {"multi_label": False, "box_format": "ltrb"}, activation="sigmoid")  # fmt: skip


def end_to_end():
    for name, yaml, seed in (("yolov10", "yolov10n.yaml", 4), ("yolo26", "yolo26n.yaml", 5)):
        (rows, _), _ = network(DetectionModel, yaml, seed)
        kept = nms.non_max_suppression(rows, CONFIDENCE, IOU, nc=CLASSES, end2end=True)[0]
        save(name, {"predictions": rows}, kept, {})


def masks_of(rows, prototypes):
    masks = ops.process_mask(prototypes[0], rows[:, 6:], rows[:, :4], (HEIGHT, WIDTH), upsample=True)
    return {"masks": np.packbits(masks.numpy().astype(bool), axis=2)}


def segmentation():
    ((decoded, prototypes), raw), _ = network(SegmentationModel, "yolov8n-seg.yaml", 6)
    rows = suppress(decoded)
    extra = masks_of(rows, prototypes)
    save("yolov8_seg", {"predictions": decoded, "prototypes": prototypes}, rows, {"multi_label": False}, extra=extra)
    split = per_grid(raw, {"boxes": "boxes", "scores": "scores", "coefficients": "mask_coefficient"})
    save("yolov8_seg_grids", {**split, "prototypes": prototypes}, rows, {"multi_label": False, "box_format": "dfl"},
         activation="sigmoid", extra=extra)  # fmt: skip
    ((rows, prototypes), _), _ = network(SegmentationModel, "yolo26n-seg.yaml", 7)
    prototypes = prototypes[0] if isinstance(prototypes, tuple) else prototypes
    kept = nms.non_max_suppression(rows, CONFIDENCE, IOU, nc=CLASSES, end2end=True)[0]
    save("yolo26_seg", {"predictions": rows, "prototypes": prototypes}, kept, {"end_to_end": True},
         extra=masks_of(kept, prototypes))  # fmt: skip


def pose():
    shape = {"kpt_shape": [5, 3]}
    (decoded, _), _ = network(PoseModel, "yolov8n-pose.yaml", 8, shape)
    rows = suppress(decoded)
    points = {"keypoints": rows[:, 6:].reshape(-1, 5, 3).numpy()}
    save("yolov8_pose", {"predictions": decoded}, rows, {"multi_label": False, "keypoints": 5}, extra=points)
    (rows, _), _ = network(PoseModel, "yolo26n-pose.yaml", 9, shape)
    kept = nms.non_max_suppression(rows, CONFIDENCE, IOU, nc=CLASSES, end2end=True)[0]
    save("yolo26_pose", {"predictions": rows}, kept, {"end_to_end": True, "keypoints": 5},
         extra={"keypoints": kept[:, 6:].reshape(-1, 5, 3).numpy()})  # fmt: skip


if __name__ == "__main__":
    with torch.no_grad():
        detection()
        end_to_end()
        segmentation()
        pose()
