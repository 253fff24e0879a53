"""How long one decode call takes, on tensors as large as real ones, with few and with many candidates.

Made-up tensors of the usual export sizes: background everywhere, and around each of some objects a cluster of cells that
reach the threshold. Calls of all cases take turns, so that a shared machine's moods hit all alike; where others compute beside
it, the 10th percentile is nearer to the call's own time than the median. A call's arrays are warm, as a benchmark's always are.
Right after an inference they are not: the decode figure of `benchmarks/overhead.py` is that one.

    python benchmarks/decode.py
    python benchmarks/decode.py --json decode.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.decode.base import DecodeContext
from edgevision.host.benchmark.machine import environment
from edgevision.quantization import quantize
from edgevision.types import ImageTransform, Quantization, Tensors, TensorSpec

SIDE = 640
"""Input pixels, square."""
CELLS = 8400
"""Of the grids of stride 8, 16 and 32."""
CLASSES = 80
CONFIDENCE, IOU = 0.25, 0.45


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table."""

    family: str
    what: str
    objects: int
    candidates: int
    call: Callable[[], int]
    """Decodes once; how many detections."""


def scene(objects: int, candidates: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes as centre and size (CELLS, 4) in pixels and scores (CELLS, CLASSES) with so many above the threshold."""
    rng = np.random.default_rng(seed)
    scores = (rng.random((CELLS, CLASSES)) * 0.05).astype(np.float32)
    boxes = (rng.random((CELLS, 4)) * (SIDE, SIDE, 200, 200) + (0, 0, 20, 20)).astype(np.float32)
    cells = rng.permutation(CELLS)[:candidates]
    owner = np.arange(candidates) % objects
    centres = rng.random((objects, 4)) * (SIDE * 0.9, SIDE * 0.9, 120, 120) + (SIDE * 0.05, SIDE * 0.05, 40, 40)
    boxes[cells] = centres[owner] + rng.normal(0, 2, (candidates, 4))
    scores[cells, rng.integers(0, CLASSES, objects)[owner]] = CONFIDENCE + 0.1 + rng.random(candidates) * 0.6
    return boxes, scores


def case(family: str, what: str, tensors: Mapping[str, NDArray[Any]], counts: tuple[int, int], **given: Any) -> Case:
    """A decoder of `tensors`, by role; `given`: its options, the activation, and the quantizations of integers, by role."""
    quantizations: Mapping[str, Quantization] = given.pop("quantizations", {})
    specs = {
        role: TensorSpec(name=role, shape=tensor.shape, dtype=tensor.dtype, quantization=quantizations.get(role))
        for role, tensor in tensors.items()
    }
    activation = given.pop("activation", "none")
    plugin = registry.load("decode", family)
    context = DecodeContext(
        confidence=CONFIDENCE, iou=IOU, labels=tuple(f"class {i}" for i in range(CLASSES)), activation=activation
    )
    decode = plugin.create(plugin.Options(**given), specs, context)
    transform = ImageTransform(
        frame_size=(1280, 720), input_size=(SIDE, SIDE), scale=(0.5, 0.5), offset=(0.0, 140.0), region=(0, 0, 1280, 720)
    )
    fixed: Tensors = dict(tensors)
    return Case(
        family=family, what=what, objects=counts[0], candidates=counts[1], call=lambda: len(decode(fixed, transform))
    )


def eight_bits(tensor: NDArray[np.float32]) -> tuple[NDArray[np.int8], Quantization]:
    """int8 with one scale over the tensor's range, as exporters choose it."""
    scale = np.float32(tensor.max() / 255)
    quantization = Quantization(scale=np.array([scale]), zero_point=np.array([-128], np.int32))
    return quantize(tensor, quantization, np.dtype(np.int8)), quantization


def cases() -> list[Case]:
    """All lines."""
    found = []
    for objects, candidates in ((20, 20), (20, 100), (60, 600)):
        boxes, scores = scene(objects, candidates, seed=objects + candidates)
        counts = (objects, candidates)
        channels = np.ascontiguousarray(np.concatenate((boxes, scores), axis=1).T)[None]
        unit = np.ascontiguousarray(np.concatenate((boxes / SIDE, scores), axis=1).T)[None]
        integers, quantization = eight_bits(unit)
        rows = np.ascontiguousarray(channels.transpose(0, 2, 1))
        found += [
            case("yolov8", "(1, 84, 8400) float32", {"predictions": channels}, counts),
            case(
                "yolov8", "(1, 84, 8400) int8", {"predictions": integers}, counts, normalised=True,
                quantizations={"predictions": quantization},
            ),
            case("yolov8", "(1, 84, 8400) float16", {"predictions": channels.astype(np.float16)}, counts),
            case("yolov8", "(1, 8400, 84) float32", {"predictions": rows}, counts, layout="channels_last"),
            case(
                "yolov8", "(1, 8400, 84) int8", {"predictions": integers.transpose(0, 2, 1).copy()}, counts, normalised=True,
                layout="channels_last", quantizations={"predictions": quantization},
            ),
            _grids(scores, counts),
            *_others(boxes, scores, channels, counts),
        ]  # fmt: skip
    return found


def _grids(scores: NDArray[np.float32], counts: tuple[int, int]) -> Case:
    """A map each for boxes and scores of each stride, int8, as for NPUs."""
    rng = np.random.default_rng(1)
    raw = np.log(scores / (1 - scores))
    tensors: dict[str, NDArray[Any]] = {}
    quantizations = {}
    first = 0
    for stride in (8, 16, 32):
        side = SIDE // stride
        part = slice(first, first + side * side)
        first += side * side
        maps = {"scores": raw[part].T, "boxes": rng.normal(0, 3, (64, side * side))}
        for role, values in maps.items():
            low = float(values.min())
            scale = np.float32((float(values.max()) - low) / 255)
            name = f"{role}_{stride}"
            quantizations[name] = Quantization(
                scale=np.array([scale]), zero_point=np.array([round(-128 - low / float(scale))], np.int32)
            )
            tensors[name] = quantize(values, quantizations[name], np.dtype(np.int8)).reshape(1, -1, side, side)
    return case(
        "yolov8", "6 maps (1, 64 and 80, h, w) int8", tensors, counts, box_format="dfl", quantizations=quantizations,
        activation="sigmoid",
    )  # fmt: skip


def _others(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], channels: NDArray[np.float32], counts: tuple[int, int]
) -> list[Case]:
    """One line each for the other families, float32."""
    rng = np.random.default_rng(2)
    best = scores.max(axis=1, keepdims=True)
    anchored = np.tile(np.concatenate((boxes, np.sqrt(best), scores / np.sqrt(best)), axis=1), (3, 1))
    anchored[CELLS:, 4] = 0.01
    order = np.argsort(-best[:, 0])[:300]
    corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1)
    ready = np.concatenate((corners, best, scores.argmax(axis=1)[:, None]), axis=1)[order]
    coefficients = rng.normal(0, 1, (1, 32, CELLS)).astype(np.float32)
    prototypes = rng.normal(0, 1, (1, 32, SIDE // 4, SIDE // 4)).astype(np.float32)
    points = rng.random((1, 51, CELLS)).astype(np.float32) * SIDE
    grids: dict[str, NDArray[Any]] = {}
    first = 0
    for stride in (8, 16, 32):
        cells = (SIDE // stride) ** 2
        grids[f"scores_{stride}"] = scores[None, first : first + cells]
        grids[f"boxes_{stride}"] = rng.normal(0, 3, (1, cells, 32)).astype(np.float32)
        first += cells
    return [
        case("yolov5", "(1, 25200, 85) float32", {"predictions": anchored[None].astype(np.float32)}, counts),
        case("yolov10", "(1, 300, 6) float32", {"predictions": ready[None].astype(np.float32)}, counts),
        case("nanodet", "6 maps (1, cells, 80 and 32) float32", grids, counts),
        case(
            "yolov8_seg", "(1, 116, 8400), (1, 32, 160, 160)", counts=counts,
            tensors={"predictions": np.concatenate((channels, coefficients), axis=1), "prototypes": prototypes},
        ),
        case("yolov8_pose", "(1, 135, 8400) float32", {"predictions": np.concatenate((channels, points), axis=1)}, counts),
    ]  # fmt: skip


def measure(all_cases: list[Case], seconds: float) -> list[dict[str, Any]]:
    """Percentiles of each case, in milliseconds; blocks of calls take turns."""
    samples: list[list[int]] = [[] for _ in all_cases]
    for one in all_cases:
        one.call()
    until = time.monotonic() + seconds
    while not samples[0] or time.monotonic() < until:
        for one, times in zip(all_cases, samples, strict=True):
            one.call()
            for _ in range(20):
                start = time.perf_counter_ns()
                one.call()
                times.append(time.perf_counter_ns() - start)
    rows = []
    for one, times in zip(all_cases, samples, strict=True):
        p10, p50, p99 = np.percentile(times, (10, 50, 99)) / 1e6
        rows.append(
            {
                "family": one.family,
                "outputs": one.what,
                "objects": one.objects,
                "candidates": one.candidates,
                "detections": one.call(),
                "p10_ms": round(float(p10), 4),
                "p50_ms": round(float(p50), 4),
                "p99_ms": round(float(p99), 4),
                "calls": len(times),
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="for all of it; 20 by default")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures here")
    arguments = parser.parse_args()
    rows = measure(cases(), arguments.seconds)
    print(
        f"{'family':14} {'outputs':36} {'objects':>7} {'candidates':>10} {'found':>5} {'p10 ms':>7} {'p50 ms':>7} {'p99 ms':>7}"
    )
    for row in rows:
        print(
            f"{row['family']:14} {row['outputs']:36} {row['objects']:7} {row['candidates']:10} {row['detections']:5} "
            f"{row['p10_ms']:7.3f} {row['p50_ms']:7.3f} {row['p99_ms']:7.3f}"
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"environment": environment(), "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
