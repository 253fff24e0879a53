"""Makes torchvision_*.npz: outputs of torchvision's own networks, and what its own code makes of them.

    python tests/golden/decoders/make_torchvision.py

Needs `torch` and `torchvision` (made with 2.14.1 and 0.29.1), which are no dependency of the project. The weights are random,
from a seed: a decoder is tested, not a network. Random scores are all alike, so the heads are scaled until there is something
to find.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's users know
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

HERE = Path(__file__).parent


def settle(part, *, size):
    """Give batch norms the statistics of random pictures: with those they begin with, a random network's answer is flat."""
    part.train()
    with torch.no_grad():
        for _ in range(12):
            part(F.interpolate(torch.rand(4, 3, 6, 8), size=size, mode="bicubic"))
    part.eval()


def deeplab():
    """The low-resolution scores, and the class map after torchvision's own bilinear interpolation."""
    torch.manual_seed(1)
    network = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=6)
    settle(network, size=(192, 256))
    coarse = torch.rand(1, 3, 6, 8)
    picture = F.interpolate(coarse, size=(192, 256), mode="bicubic")
    with torch.no_grad():
        scores = network.classifier(network.backbone(picture)["out"])
        scores = (scores - scores.mean(dim=(2, 3), keepdim=True)) / scores.std(dim=(2, 3), keepdim=True)
        # What `_SimpleSegmentationModel.forward` ends in; a user then takes the argmax.
        upsampled = F.interpolate(scores, size=picture.shape[-2:], mode="bilinear", align_corners=False)
    np.savez_compressed(
        HERE / "torchvision_deeplab.npz",
        **{"tensor scores": scores.numpy()},
        class_map=upsampled.argmax(dim=1)[0].numpy().astype(np.uint8),
    )


def faster_rcnn():
    """What the network gives in evaluation mode: boxes in pixels of its input, labels from 1 on, scores."""
    torch.manual_seed(2)
    network = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=5, min_size=160, max_size=320, box_score_thresh=0.05
    )
    settle(network.backbone, size=(160, 224))
    network.eval()
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight *= 30
        network.roi_heads.box_predictor.bbox_pred.weight *= 10
        picture = F.interpolate(torch.rand(1, 3, 10, 14), size=(160, 224), mode="bicubic")[0].clamp(0, 1)
        (found,) = network([picture])
    settings = {"width": 224, "height": 160, "confidence": 0.1, "activation": "none", "made with": "torchvision 0.29.1"}
    sure = found["scores"] >= settings["confidence"]
    np.savez_compressed(
        HERE / "torchvision_faster_rcnn.npz",
        **{
            "tensor boxes": found["boxes"].numpy(),
            "tensor classes": found["labels"].numpy(),
            "tensor scores": found["scores"].numpy(),
        },
        xyxy=found["boxes"][sure].numpy(),
        confidence=found["scores"][sure].numpy(),
        class_id=found["labels"][sure].numpy().astype(np.int32),
        settings=json.dumps(settings),
    )


if __name__ == "__main__":
    deeplab()
    faster_rcnn()
