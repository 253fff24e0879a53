"""Makes efficientdet_*.npz: outputs of EfficientDet heads, and what effdet's own code makes of them.

    python tests/golden/decoders/make_efficientdet.py

Needs torch, timm and effdet (made with 2.14.1, 1.0.31 and 0.4.1), which are no dependency of the project. The network is
random, from a seed, and its scores are spread until dozens reach the threshold.
"""

import json
from pathlib import Path

import numpy as np
import torch
from effdet import EfficientDet, get_efficientdet_config
from effdet.anchors import Anchors, generate_detections
from effdet.bench import _post_process

HERE = Path(__file__).parent
CLASSES, THRESHOLD = 4, 0.4


def make(name, *, size, anchor_scale):
    """One file: five grids of scores and codes (channels first), and the detections."""
    config = get_efficientdet_config("tf_efficientdet_lite0")
    config.image_size, config.num_classes, config.anchor_scale = size, CLASSES, anchor_scale
    config.fpn_channels, config.fpn_cell_repeats, config.box_class_repeats = 16, 1, 1
    network = EfficientDet(config, pretrained_backbone=False).eval()
    with torch.no_grad():
        scores, codes = network(torch.rand(1, 3, *size))
        everything = torch.cat([part.flatten() for part in scores])
        scores = [(part - everything.mean()) / everything.std() * 1.5 - 4.6 for part in scores]
        spread = torch.cat([part.flatten() for part in codes]).std()
        codes = [part / spread * 0.3 for part in codes]
        picked = _post_process(scores, codes, num_levels=5, num_classes=CLASSES, max_detection_points=1000)
        found = generate_detections(
            picked[0][0], picked[1][0], Anchors.from_config(config).boxes, picked[2][0], picked[3][0], None, None, 100
        )
    found = found[found[:, 4] >= THRESHOLD].numpy()
    settings = {"width": size[1], "height": size[0], "confidence": THRESHOLD, "iou": 0.5, "activation": "sigmoid"}
    options = {"anchor_scale": anchor_scale, "layout": "NCHW"}
    tensors = {f"tensor scores_{level}": part.numpy() for level, part in enumerate(scores, 3)}
    tensors |= {f"tensor boxes_{level}": part.numpy() for level, part in enumerate(codes, 3)}
    np.savez_compressed(
        HERE / f"{name}.npz",
        **tensors,
        xyxy=found[:, :4],
        confidence=found[:, 4],
        class_id=found[:, 5].astype(np.int32) - 1,
        settings=json.dumps({**settings, "options": options, "made with": "effdet 0.4.1"}),
    )
    return len(found)


if __name__ == "__main__":
    torch.manual_seed(3)
    make("efficientdet_lite", size=(128, 160), anchor_scale=3.0)  # 160 is halved to 5 and then to 3: an uneven grid
    make("efficientdet_d", size=(128, 128), anchor_scale=4.0)
