"""Makes detr_*.npz: outputs of RT-DETR, D-FINE and DETR, and what transformers' and RF-DETR's own code makes of them.

    python tests/golden/decoders/make_detr.py

Needs torch, transformers and rfdetr (made with 2.14.1, 5.24.0 and 1.11.2), which are no dependency of the project. The networks
are small, with random weights from a seed; scores are spread until dozens reach the threshold.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from rfdetr.models.postprocess import PostProcess
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    DFineConfig,
    DFineForObjectDetection,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
)

HERE = Path(__file__).parent
WIDTH, HEIGHT, CLASSES, QUERIES = 160, 128, 7, 40
SMALL = {"num_labels": CLASSES, "num_queries": QUERIES, "decoder_layers": 3, "encoder_layers": 1}


def outputs_of(network):
    """Raw logits and boxes of a random picture, the logits spread so that some stand out."""
    network.eval()
    with torch.no_grad():
        found = network(pixel_values=torch.rand(1, 3, HEIGHT, WIDTH))
    logits = found.logits
    return SimpleNamespace(
        logits=(logits - logits.mean(dim=1)) / logits.std(dim=1) * 2 - 1.5, pred_boxes=found.pred_boxes
    )


def keep(name, outputs, result, *, threshold, activation, made_with, most=QUERIES):
    """`most`: what the reference code keeps at most."""
    settings = {
        "width": WIDTH,
        "height": HEIGHT,
        "confidence": threshold,
        "max_detections": most,
        "activation": activation,
        "made with": made_with,
    }
    np.savez_compressed(
        HERE / f"{name}.npz",
        **{"tensor scores": outputs.logits.numpy(), "tensor boxes": outputs.pred_boxes.numpy()},
        xyxy=result["boxes"].numpy(),
        confidence=result["scores"].numpy(),
        class_id=result["labels"].numpy(),
        settings=json.dumps(settings),
    )


def main():
    size = torch.tensor([[HEIGHT, WIDTH]])
    made_with = f"transformers {transformers.__version__}"
    torch.manual_seed(0)
    for name, network, threshold in (
        ("detr_rtdetr", RTDetrForObjectDetection(RTDetrConfig(**SMALL, use_pretrained_backbone=False)), 0.5),
        ("detr_dfine", DFineForObjectDetection(DFineConfig(**SMALL)), 0.5),
    ):
        outputs = outputs_of(network)
        (result,) = RTDetrImageProcessor().post_process_object_detection(
            outputs, threshold=threshold, target_sizes=size
        )
        keep(name, outputs, result, threshold=threshold, activation="sigmoid", made_with=made_with)
    backbone = transformers.ResNetConfig(out_features=["stage4"])
    network = DetrForObjectDetection(
        DetrConfig(**SMALL, use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=backbone)
    )
    outputs = outputs_of(network)
    (result,) = DetrImageProcessor().post_process_object_detection(outputs, threshold=0.3, target_sizes=size)
    keep("detr_detr", outputs, result, threshold=0.3, activation="softmax", made_with=made_with)
    # RF-DETR: the code that selects and scales, on random outputs of its shapes (91 classes, COCO's own numbers).
    logits, boxes = torch.randn(1, QUERIES, 91) * 1.5 - 4, torch.rand(1, QUERIES, 4) * 0.5 + 0.2
    (result,) = PostProcess(num_select=300)({"pred_logits": logits, "pred_boxes": boxes}, size)
    sure = result["scores"] > 0.3
    keep(
        "detr_rfdetr",
        SimpleNamespace(logits=logits, pred_boxes=boxes),
        {key: value[sure] for key, value in result.items()},
        threshold=0.3,
        activation="sigmoid",
        made_with="rfdetr 1.11.2",
        most=300,
    )


if __name__ == "__main__":
    main()
