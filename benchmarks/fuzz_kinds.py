"""The kinds of spoiled files: their seeds, how a case is made of its number, and the product's own way to take it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("EDGEVISION_SHARED", Path(__file__).resolve().parents[2] / "shared"))
REAL_ONE_IN = 20
"""Cases that are made of a real file."""
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)


def mutated(seed: bytes, draw: random.Random, *, edge: int = 0) -> bytes:  # noqa: C901  one branch for each mutation
    """One to four mutations; `edge` bytes at both ends get three of four of them, where a large file has its structure."""
    content = bytearray(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 4))):
        if not content:
            break
        at = draw.randrange(len(content))
        if edge and draw.random() < 0.75:
            at = draw.choice(
                (draw.randrange(min(edge, len(content))), len(content) - 1 - draw.randrange(min(edge, len(content))))
            )
        what = draw.randrange(8)
        if what <= 1:
            content[at] ^= 1 << draw.randrange(8)
        elif what == 2:
            content[at] = draw.randrange(256)
        elif what == 3:
            width = draw.choice((1, 2, 4, 8))
            value = draw.choice(_NUMBERS) & ((1 << 8 * width) - 1)
            content[at : at + width] = value.to_bytes(width, draw.choice(("little", "big")))
        elif what == 4:
            del content[at : at + draw.choice((1, 2, 4, 16, 64))]
        elif what == 5:
            content[at:at] = draw.randbytes(draw.choice((1, 2, 4, 16)))
        elif what == 6:
            other = draw.randrange(len(content))
            size = draw.choice((4, 8, 32, 128))
            content[at : at + size] = content[other : other + size]
        elif draw.random() < 0.5:
            del content[at:]
    return bytes(content)


def onnx_seed() -> bytes:
    """Picture (1, 3, 8, 8) -> scores (1, 4): quantised and float convolutions, resize, concat, reshape, gemm, softmax."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    constants = {
        "w": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "b": draw.normal(size=4).astype(np.float32),
        "s": np.float32(0.1), "z": np.uint8(128), "scales": np.array([1, 1, 2, 2], np.float32),
        "shape": np.array([0, -1], np.int64), "g": draw.normal(size=(8, 4)).astype(np.float32),
        "start": np.array([0], np.int64), "end": np.array([8], np.int64), "axis": np.array([1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["picture", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("Resize", ["r", "", "scales"], ["u"], mode="nearest"),
        helper.make_node("MaxPool", ["u"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["m", "r"], ["k"], axis=1),
        helper.make_node("GlobalAveragePool", ["k"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Slice", ["f", "start", "end", "axis"], ["l"]),
        helper.make_node("Gemm", ["l", "g"], ["y"]),
        helper.make_node("Softmax", ["y"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tflite_seed() -> bytes:
    """Picture (1, 8, 8, 3) -> scores (1, 4): convolution, pooling, reshape, softmax."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    draw = np.random.default_rng(0)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], []
    graph.tensors, graph.operators = [], []

    def tensor(name: str, shape: tuple[int, ...], value: Any = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.hasRank, made.type, made.buffer = name.encode(), list(shape), True, 0, 0
        if value is not None:
            made.type = 2 if value.dtype == np.int32 else 0
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def step(code: int, inputs: list[int], output: int, options: Any, kind: int) -> int:
        told, made = schema.OperatorCodeT(), schema.OperatorT()
        told.builtinCode, told.deprecatedBuiltinCode, told.version = code, code, 1
        made.inputs, made.outputs, made.opcodeIndex = inputs, [output], len(model.operatorCodes)
        made.builtinOptions, made.builtinOptionsType = options, kind
        model.operatorCodes.append(told)
        graph.operators.append(made)
        return output

    picture = tensor("picture", (1, 8, 8, 3))
    weights = tensor("w", (4, 3, 3, 3), draw.normal(size=(4, 3, 3, 3)).astype(np.float32))
    bias = tensor("b", (4,), draw.normal(size=4).astype(np.float32))
    convolution = schema.Conv2DOptionsT()
    convolution.strideH = convolution.strideW = convolution.dilationHFactor = convolution.dilationWFactor = 1
    at = step(3, [picture, weights, bias], tensor("c", (1, 8, 8, 4)), convolution, 1)
    pool = schema.Pool2DOptionsT()
    pool.strideH = pool.strideW = pool.filterHeight = pool.filterWidth = 8
    pool.padding = 1
    at = step(1, [at], tensor("p", (1, 1, 1, 4)), pool, 5)
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = [1, 4]
    at = step(22, [at, tensor("shape", (2,), np.array([1, 4], np.int32))], tensor("r", (1, 4)), reshape, 17)
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    at = step(25, [at], tensor("scores", (1, 4)), softmax, 9)
    graph.inputs, graph.outputs = [picture], [at]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


MANIFEST = {
    "name": "seed", "version": "1", "task": "classification", "family": "classifier",
    "input": {"size": [8, 8], "resize": "stretch"}, "outputs": {"scores": "scores"},
    "labels": "labels.txt", "activation": "none", "licence": "x", "source": "x",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How cases of a kind are made and run."""

    seeds: tuple[bytes, ...]
    real: bytes | None
    """One of the test material's; None where it is not there."""
    try_it: Callable[[bytes], None]
    """Raises what the product raises."""

    def case(self, kind: str, number: int) -> bytes:
        """The spoiled bytes."""
        draw = random.Random(f"{kind} {number}")
        if self.real is not None and number % REAL_ONE_IN == 0:
            return mutated(self.real, draw, edge=16_384)
        return mutated(draw.choice(self.seeds), draw)


def _model_kind(folder: Path, suffix: str, backend: str, seed: bytes, real: Path) -> Kind:
    from edgevision import assembly
    from edgevision.manifest import Manifest
    from edgevision.model_store import ModelFolder

    entry = {"path": f"seed{suffix}", "sha256": "0" * 64, "size": 1}
    manifest = Manifest.model_validate(MANIFEST | {"files": {backend: entry}})
    (folder / "labels.txt").write_text("a\nb\nc\nd\n")
    like = ModelFolder(path=folder, manifest=manifest, shipped=False)
    file = folder / f"case{suffix}"

    def try_it(content: bytes) -> None:
        file.write_bytes(content)
        described = assembly.describe(file, like)
        described.model.close()

    try_it(seed)
    return Kind(seeds=(seed,), real=real.read_bytes() if real.is_file() else None, try_it=try_it)


def _onnx(folder: Path) -> Kind:
    return _model_kind(folder, ".onnx", "onnxrt", onnx_seed(), SHARED / "models" / "picodet_s_416_coco.onnx")


def _tflite(folder: Path) -> Kind:
    real = SHARED / "models" / "mobilenet_v2_1.0_224_quant.tflite"
    return _model_kind(folder, ".tflite", "litert", tflite_seed(), real)


def _tiny_model(folder: Path) -> Path:
    import hashlib

    import yaml

    model = folder / "models" / "seed"
    model.mkdir(parents=True, exist_ok=True)
    entry = {"path": "seed.onnx", "sha256": hashlib.sha256(b"weights").hexdigest(), "size": 7}
    (model / "seed.onnx").write_bytes(b"weights")
    (model / "labels.txt").write_text("a\nb\n")
    (model / "model.yaml").write_text(yaml.safe_dump(MANIFEST | {"files": {"onnxrt": entry}}))
    return model


def _bundle(folder: Path) -> Kind:
    from edgevision import model_store
    from edgevision.bundle import export_bundle, import_bundle

    export_bundle(model_store.open_folder(_tiny_model(folder)), folder / "seed.bundle", replace=True)
    file = folder / "case.bundle"

    def try_it(content: bytes) -> None:
        file.write_bytes(content)
        own = import_bundle(file, name="case", replace=True, models_dir=folder / "imported")
        if model_store.verify(own) != {"onnxrt": "ok"}:
            raise AssertionError("a spoiled model was imported")

    seed = (folder / "seed.bundle").read_bytes()
    try_it(seed)
    return Kind(seeds=(seed,), real=None, try_it=try_it)


def _manifest(folder: Path) -> Kind:
    from edgevision.manifest import load_labels, load_manifest

    seed = (_tiny_model(folder) / "model.yaml").read_bytes()
    spoiled = folder / "spoiled"
    spoiled.mkdir(exist_ok=True)
    (spoiled / "labels.txt").write_text("a\nb\n")

    def try_it(content: bytes) -> None:
        (spoiled / "model.yaml").write_bytes(content)
        load_labels(spoiled, load_manifest(spoiled))

    try_it(seed)
    shipped = Path(__file__).resolve().parents[1] / "models" / "efficientnet-lite0" / "model.yaml"
    return Kind(seeds=(seed, shipped.read_bytes()), real=None, try_it=try_it)


def _picture(_folder: Path) -> Kind:
    import cv2
    import numpy as np

    from edgevision.capture.images import decode_image

    draw = np.random.default_rng(0)
    image = cv2.resize(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    seeds = []
    for suffix, given, options in (
        (".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80]),
        (".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".png", image, []),
        (".png", image.astype(np.uint16) * 257, []),
        (".bmp", image, []),
        (".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".tif", image, []),
        (".gif", image, []),
    ):
        done, encoded = cv2.imencode(suffix, given, options)
        if done:
            seeds.append(encoded.tobytes())
    # EXIF with an orientation, as a phone writes it.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    seeds.append(seeds[0][:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + seeds[0][2:])

    def try_it(content: bytes) -> None:
        decoded = decode_image(content, name="case")
        if decoded.dtype != np.uint8 or decoded.ndim != 3 or decoded.shape[2] != 3 or 0 in decoded.shape:
            raise AssertionError(f"no picture: {decoded.shape} {decoded.dtype}")

    for seed in seeds:
        try_it(seed)
    return Kind(seeds=tuple(seeds), real=None, try_it=try_it)


MAKERS = {"onnx": _onnx, "tflite": _tflite, "bundle": _bundle, "picture": _picture, "manifest": _manifest}
