"""What edgevision adds to the bare inference call, as a ratio in one run.

For one model: the bare runtime on a tensor that is ready, against all that edgevision does for a frame: fit the picture into
the input, run, decode, and make the message. The two are interleaved, frame by frame, on the same machine at the same
moment, because a shared machine's speed wanders by more than what is measured. The ratio is that of the medians; its
interval is a bootstrap over the rounds.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --model yolox_nano.onnx --json overhead.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import environment, scene
from numpy.typing import NDArray

from edgevision import assembly, logs
from edgevision.manifest import read_weights
from edgevision.messages import Composer, ModelRef
from edgevision.model_store import BACKEND_BY_SUFFIX, find
from edgevision.pipeline import Model
from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options as MemoryOptions
from edgevision.publish.memory import create as create_memory
from edgevision.types import Frame

CALLS, SETTLING = 20, 3
"""Timed calls in a block, and calls before them that are not."""


def weights(model: str, backend: str) -> bytes:
    """The bytes that `model` (a name or a file) is made of."""
    if Path(model).suffix in BACKEND_BY_SUFFIX:
        return Path(model).read_bytes()
    folder = find(model)
    return read_weights(folder.path, folder.manifest, backend)


def bare_loop(content: bytes, backend: str, threads: int, tensor: NDArray[Any], name: str) -> Callable[[], object]:
    """One call of the runtime alone, as a user's own script would have it, with the runtime's defaults."""
    if backend == "onnxrt":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {name: tensor})
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


def edgevision_loop(model: Model, image: NDArray[np.uint8]) -> Callable[[], object]:
    """Everything that the daemon does for a frame between the camera and the sink's queue."""
    composer = Composer(topic="edgevision", device="bench", version="0")
    reference = ModelRef(name=model.name, version=model.manifest.version, sha256=model.sha256)
    sink = create_memory(MemoryOptions(), SinkContext(device="bench"))

    def look() -> None:
        frame = Frame(
            image=image, camera="a", sequence=0, captured_at_ns=time.time_ns(), captured_mono_ns=time.monotonic_ns()
        )
        predictions, times = model.run(frame)
        sink.publish(composer.result(frame, predictions, times, model=reference, state="live", dropped=0))

    return look


def interleaved(loops: dict[str, Callable[[], object]], blocks: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of every loop, (blocks, CALLS); the order turns, so that none always follows the other."""
    names = list(loops)
    spent: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(blocks + 1):  # the first is the warm-up
        for name in names if number % 2 else reversed(names):
            loop, block = loops[name], []
            for _ in range(SETTLING + CALLS):
                started = time.perf_counter_ns()
                loop()
                block.append((time.perf_counter_ns() - started) / 1e6)
            spent[name].append(block[SETTLING:])
    return {name: np.array(values[1:]) for name, values in spent.items()}


def ratio(ours: NDArray[np.float64], bare: NDArray[np.float64], *, seed: int = 0) -> dict[str, float]:
    """The ratio of medians with its 95 % interval, a bootstrap over pairs of neighbouring blocks."""
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(ours), (1000, len(ours)))
    drawn = np.median(ours[picks], axis=(1, 2)) / np.median(bare[picks], axis=(1, 2))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"ratio": float(np.median(ours) / np.median(bare)), "low": float(low), "high": float(high)}


def measure(name: str, backend: str | None, threads: int, blocks: int, like: str | None) -> dict[str, Any]:
    """One model's figures."""
    model = assembly.load_model(name, backend=backend, threads=threads, like=like)
    image = scene(1280, 720)
    stages: dict[str, list[float]] = {"preprocess": [], "inference": [], "decode": []}
    frame = Frame(image=image, camera="a", sequence=0, captured_at_ns=0, captured_mono_ns=0)
    content = weights(name, model.backend_name)
    tensor_name = model.backend.inputs[0].name
    tensor = np.array(model.preprocessor(frame).tensors[tensor_name])
    loops = {
        "bare": bare_loop(content, model.backend_name, threads, tensor, tensor_name),
        "edgevision": edgevision_loop(model, image),
    }
    spent = interleaved(loops, blocks)
    for _ in range(5 * CALLS):
        _, times = model.run(frame)
        for stage, values in stages.items():
            values.append(getattr(times, f"{stage}_ns") / 1e6)
    return {
        "model": model.name,
        "backend": model.backend_name,
        "threads": threads,
        "frame": "1280x720",
        "blocks": blocks,
        "calls": CALLS,
        "bare_ms": round(float(np.median(spent["bare"])), 3),
        "edgevision_ms": round(float(np.median(spent["edgevision"])), 3),
        **{key: round(value, 4) for key, value in ratio(spent["edgevision"], spent["bare"]).items()},
        "stages_ms": {stage: round(float(np.median(values)), 3) for stage, values in stages.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a model's name or file; may be given several times")
    parser.add_argument("--like", help="for a bare file: a model that is built alike")
    parser.add_argument("--backend", help="onnxrt or litert")
    parser.add_argument("--threads", type=int, default=2, help="of one inference, in both")
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures here")
    arguments = parser.parse_args()
    logs.configure(level="error")
    cv2.setNumThreads(1)  # as the daemon does
    rows = []
    for name in arguments.model or ["efficientnet-lite0"]:
        row = measure(name, arguments.backend, arguments.threads, arguments.blocks, arguments.like)
        rows.append(row)
        print(
            f"{row['model']:22} {row['backend']:7} {row['threads']} threads: bare {row['bare_ms']:7.2f} ms, edgevision "
            f"{row['edgevision_ms']:7.2f} ms, ratio {row['ratio']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"environment": environment(), "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
