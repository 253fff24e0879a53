"""Make `yolov5.npz`, `yolov5_grids.npz` and `yolov5_maps.npz`: a small YOLOv5 with random weights, decoded by its own code.

    python make_yolov5.py

Needs torch, torchvision, setuptools < 80 and the package yolov5 (AGPL-3.0): have them in an environment of their own. The
decoding is that package's `Detect.forward`, the NMS its `non_max_suppression`.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import yolov5  # type: ignore[import-not-found]
from yolov5.models.yolo import DetectionModel  # type: ignore[import-not-found]
from yolov5.utils.general import non_max_suppression  # type: ignore[import-not-found]

HERE = Path(__file__).parent
WIDTH, HEIGHT, CLASSES = 96, 64, 4
STRIDES = (8, 16, 32)
CONFIDENCE, IOU = 0.2, 0.5


def network():
    """The model and a picture; nothing of a picture would reach the head with batch normalisation's first figures."""
    torch.manual_seed(1)
    model = DetectionModel(Path(yolov5.__file__).parent / "models" / "yolov5n.yaml", ch=3, nc=CLASSES)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    for _ in range(4):
        model(torch.rand(8, 3, HEIGHT, WIDTH))
    model.eval()
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    # Mean of x, y, w, h, objectness and the classes, in raw numbers.
    mean = torch.tensor([0.0, 0, 0, 0, -1.0] + [-0.5] * CLASSES).repeat(3)
    for module in model.model[-1].m:
        seen: list[torch.Tensor] = []
        handle = module.register_forward_hook(lambda _module, _given, output, seen=seen: seen.append(output))
        model(image)
        handle.remove()
        factor = 1.2 / seen[0].std(dim=(0, 2, 3))
        module.weight.mul_(factor[:, None, None, None])
        module.bias.sub_(seen[0].mean(dim=(0, 2, 3))).mul_(factor).add_(mean)
    return model, image


def save(name, tensors, rows, decoder, activation="none"):
    settings = {
        "size": [WIDTH, HEIGHT], "confidence": CONFIDENCE, "iou": IOU, "classes": CLASSES, "decoder": decoder,
        "activation": activation, "made_with": f"yolov5 {version('yolov5')}, torch {version('torch').partition('+')[0]}",
    }  # fmt: skip
    np.savez_compressed(
        HERE / f"{name}.npz",
        **{f"tensor {role}": tensor.numpy() for role, tensor in tensors.items()},
        xyxy=rows[:, :4].numpy(), confidence=rows[:, 4].numpy(), class_id=rows[:, 5].numpy().astype(np.int64),
        settings=json.dumps(settings),
    )  # fmt: skip
    print(f"{name}: {len(rows)} boxes; { ({role: list(tensor.shape) for role, tensor in tensors.items()}) }")  # noqa: T201 - a script that a person runs


@torch.no_grad()
def main():
    model, image = network()
    decoded, maps = model(image)
    maps = {f"predictions_{stride}": part for stride, part in zip(STRIDES, maps, strict=True)}
    for multi_label, name in ((False, "yolov5"), (True, "yolov5_multi_label")):
        rows = non_max_suppression(decoded.clone(), CONFIDENCE, IOU, multi_label=multi_label)[0]
        save(name, {"predictions": decoded}, rows, {"multi_label": multi_label})
    rows = non_max_suppression(decoded.clone(), CONFIDENCE, IOU)[0]
    save("yolov5_grids", maps, rows, {"multi_label": False}, "sigmoid")
    flat = {
        role: part.permute(0, 1, 4, 2, 3).reshape(1, -1, part.shape[2], part.shape[3]).contiguous()
        for role, part in maps.items()
    }
    save("yolov5_maps", flat, rows, {"multi_label": False}, "sigmoid")


if __name__ == "__main__":
    main()
