"""What edgevision adds to the bare inference call, as a ratio in one run.

For one model: the bare runtime with its own defaults on a tensor that is ready, against all that edgevision does for a frame:
fit the picture into the input, run, decode, and make the message. The two take turns in short blocks, because a shared
machine's speed wanders by more than what is measured; and each block begins with uncounted calls, because the threads of the
session that has just run go on spinning for a moment. The ratio is the median over pairs of neighbouring blocks, its interval
a bootstrap over them.

A third loop, the floor, is the bare runtime and one `cv2.resize` of the frame before it, nothing else: no colours, no boxes,
no message. It tells how much of the difference any program has to pay that starts from a camera's picture, and that grows as
the inference gets faster.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --model yolox_nano.onnx --json overhead.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision import assembly, logs
from edgevision.host.benchmark.frames import frame_of, scene
from edgevision.host.benchmark.interleave import Loop, rounds, settling_s
from edgevision.host.benchmark.loops import STAGES, EdgevisionLoop, bare_loop, weights
from edgevision.host.benchmark.machine import environment


def ratio(ours: NDArray[np.float64], bare: NDArray[np.float64], *, seed: int = 0) -> dict[str, float]:
    """The median ratio of block medians, (rounds,), with its 95 % bootstrap interval."""
    ratios = ours / bare
    random = np.random.default_rng(seed)
    drawn = np.median(ratios[random.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"ratio": float(np.median(ratios)), "low": float(low), "high": float(high)}


def measure(name: str, backend: str | None, threads: int, seconds: float, like: str | None) -> dict[str, Any]:
    """One model's figures."""
    model = assembly.load_model(name, backend=backend, threads=threads, like=like)
    image = scene(1280, 720)
    tensor_name = model.backend.inputs[0].name
    frame = frame_of(image, time_ns=time.time_ns(), mono_ns=time.monotonic_ns())
    tensor = np.array(model.preprocessor(frame).tensors[tensor_name])
    content = weights(name, model.backend_name)
    edgevision = EdgevisionLoop(model, image)
    bare = bare_loop(content, model.backend_name, threads, tensor, tensor_name)
    transform = model.preprocessor(frame).transform
    left, top, right, bottom = transform.region
    region = image[top:bottom, left:right]
    size = (round((right - left) * transform.scale[0]), round((bottom - top) * transform.scale[1]))
    small = np.empty((size[1], size[0], 3), np.uint8)

    def floor() -> None:
        cv2.resize(region, size, dst=small, interpolation=cv2.INTER_LINEAR)
        bare()

    settle_s = settling_s(threads)
    loops = {
        "bare": Loop(call=bare, settle_s=settle_s),
        "edgevision": Loop(call=edgevision, settle_s=settle_s),
        "floor": Loop(call=floor, settle_s=settle_s),
    }
    found = rounds(loops, seconds)
    medians = {loop: np.array([np.median(one.samples_ns[loop]) / 1e6 for one in found]) for loop in loops}
    stages = np.median(edgevision.take_stages_ns(), axis=0) / 1e6
    return {
        "model": model.name,
        "backend": model.backend_name,
        "threads": threads,
        "frame": "1280x720",
        "rounds": len(found),
        "bare_ms": round(float(np.median(medians["bare"])), 3),
        "edgevision_ms": round(float(np.median(medians["edgevision"])), 3),
        **{key: round(value, 4) for key, value in ratio(medians["edgevision"], medians["bare"]).items()},
        "floor_ratio": round(ratio(medians["floor"], medians["bare"])["ratio"], 4),
        "stages_ms": {stage: round(float(value), 3) for stage, value in zip(STAGES, stages, strict=True)},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a model's name or file; may be given several times")
    parser.add_argument("--like", help="for a bare file: a model that is built alike")
    parser.add_argument("--backend", help="onnxrt, litert or openvino")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of one inference, in both; 1 2 by default"
    )
    parser.add_argument("--seconds", type=float, default=20, help="for each model and number of threads")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures here")
    arguments = parser.parse_args()
    logs.configure(level="error")
    cv2.setNumThreads(1)  # as the daemon does
    rows = []
    for name in arguments.model or ["efficientnet-lite0"]:
        for threads in arguments.threads:
            row = measure(name, arguments.backend, threads, arguments.seconds, arguments.like)
            rows.append(row)
            print(
                f"{row['model']:22} {row['backend']:7} {row['threads']} threads: bare {row['bare_ms']:7.2f} ms, edgevision "
                f"{row['edgevision_ms']:7.2f} ms, ratio {row['ratio']:.3f} ({row['low']:.3f}-{row['high']:.3f}), "
                f"floor {row['floor_ratio']:.3f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"environment": environment(), "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
