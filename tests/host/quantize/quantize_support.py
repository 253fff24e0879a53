"""A small classifier with everything that quantisers meet (ReLU, depthwise, SiLU, pooling), and pictures that it knows.

Its labels are what the float model itself says of pictures that it is sure of: float is right always, so whatever an 8-bit
candidate loses is its own doing. One variant cannot be made 8-bit: its signal is a small ripple on a large constant, which
no scaling of channels takes away.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevision.model_store import digest_of

SIZE = 32
CLASSES = ("bolt", "nut", "washer", "screw")
MEAN = STD = 128.0
OFFSET = 4000.0


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A model folder, pictures to calibrate with and labelled ones to evaluate on."""

    model: Path
    calibration: Path
    labelled: Path


def classifier(*, fragile: bool = False, seed: int = 3) -> onnx.ModelProto:
    """float32 [1, 3, 32, 32] -> logits [1, 4]; `fragile` cannot be made 8-bit."""
    random = np.random.default_rng(seed)
    weights = {
        "stem_w": random.normal(0, 0.4, (8, 3, 3, 3)),
        "stem_b": random.normal(0, 0.1, 8),
        "depth_w": random.normal(0, 0.5, (8, 1, 3, 3)),
        "depth_b": random.normal(0, 0.1, 8),
        "point_w": random.normal(0, 0.4, (16, 8, 1, 1)),
        "point_b": random.normal(0, 0.1, 16),
        "last_w": random.normal(0, 0.6, (4, 16)),
        "last_b": np.zeros(4),
    }
    if fragile:
        weights["depth_b"] = weights["depth_b"] + OFFSET
        weights["point_b"] = weights["point_b"] - weights["point_w"].sum((1, 2, 3)) * OFFSET
    nodes = [
        helper.make_node("Conv", ["input", "stem_w", "stem_b"], ["stem"], "stem", strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["stem"], ["stem_r"], "stem_relu"),
        helper.make_node("Conv", ["stem_r", "depth_w", "depth_b"], ["depth"], "depth", group=8, pads=[1] * 4),
        helper.make_node("Sigmoid", ["depth"], ["depth_s"], "depth_sigmoid"),
        helper.make_node("Mul", ["depth", "depth_s"], ["depth_a"], "depth_silu"),
        helper.make_node("Conv", ["depth_a", "point_w", "point_b"], ["point"], "point"),
        helper.make_node("Relu", ["point"], ["point_r"], "point_relu"),
        helper.make_node("GlobalAveragePool", ["point_r"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "last_w", "last_b"], ["logits"], "last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "parts",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def tensor_of(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(32, 32, 3) BGR -> the model's input."""
    return ((picture[..., ::-1].astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)[None]


def pictures(count: int, seed: int) -> list[NDArray[np.uint8]]:
    """Coloured blobs on coloured grounds, (32, 32, 3) BGR."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        picture = np.full((SIZE, SIZE, 3), random.integers(0, 256, 3), np.uint8)
        for _ in range(int(random.integers(1, 5))):
            centre, radius = random.integers(4, SIZE - 4, 2).tolist(), int(random.integers(3, 12))
            cv2.circle(picture, centre, radius, random.integers(0, 256, 3).tolist(), cv2.FILLED)
        made.append(picture)
    return made


def make_factory(folder: Path, *, fragile: bool = False, labelled: int = 40, calibration: int = 24) -> Factory:
    """Write all of it."""
    model = classifier(fragile=fragile)
    candidates = pictures(900, seed=1)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(None, {"input": tensor_of(one)})[0] for one in candidates])
    # No class may win by a constant: the bias takes each logit's mean away.
    centre = logits.mean(axis=0)
    bias = next(one for one in model.graph.initializer if one.name == "last_b")
    bias.CopyFrom(numpy_helper.from_array(-centre.astype(np.float32), "last_b"))
    logits = logits - centre
    ordered = np.sort(logits, axis=1)
    sure = np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")
    by_class = {label: [int(i) for i in sure if logits[i].argmax() == label] for label in range(len(CLASSES))}
    for label, rows in by_class.items():
        (folder / "labelled" / CLASSES[label]).mkdir(parents=True)
        for row in rows[: labelled // len(CLASSES)]:
            cv2.imwrite(str(folder / "labelled" / CLASSES[label] / f"{row}.png"), candidates[row])
    (folder / "calibration").mkdir()
    for number, picture in enumerate(pictures(calibration, seed=2)):
        cv2.imwrite(str(folder / "calibration" / f"{number}.png"), picture)
    write_model(folder / "parts", model)
    return Factory(model=folder / "parts", calibration=folder / "calibration", labelled=folder / "labelled")


def write_model(folder: Path, model: onnx.ModelProto) -> None:
    """A model folder of the float model."""
    content = model.SerializeToString()
    folder.mkdir(parents=True)
    (folder / "parts.onnx").write_bytes(content)
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    manifest = {
        "name": folder.name,
        "version": "1",
        "task": "classification",
        "family": "classifier",
        "files": {"onnxrt": {"path": "parts.onnx", "sha256": digest_of(content), "size": len(content)}},
        "input": {"size": [SIZE, SIZE], "color": "RGB", "resize": "stretch", "mean": [MEAN] * 3, "std": [STD] * 3},
        "outputs": {"scores": "logits"},
        "labels": "labels.txt",
        "thresholds": {"top_k": 4},
        "activation": "softmax",
        "licence": "Apache-2.0",
        "source": "made for a test",
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
