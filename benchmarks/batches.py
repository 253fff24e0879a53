"""Whether several pictures in one inference take less time each than one by one, on this machine.

Each ONNX file is opened to batches (its inputs' first size and its Reshapes), checked to give the same answers, and run
through our own backend in turns, call by call, because a shared machine's speed wanders. Told are milliseconds for one picture,
with one thread also of CPU, and the ratio to one by one: the median over turns with a 95 % bootstrap interval.

    python benchmarks/batches.py ../shared/models/yolox_nano.onnx models/efficientnet-lite0/efficientnet-lite0-int8.onnx
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.host.benchmark.interleave import turns
from edgevision.host.benchmark.machine import environment
from edgevision.inference.base import BackendContext, ModelFile

BATCHES = (1, 2, 4, 8)


def open_batch(path: Path) -> bytes:
    """The model as if it had been exported with an open batch."""
    import onnx

    model = onnx.load(path)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0] = 0  # "as in the input"
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    content: bytes = model.SerializeToString()
    return content


def ratio(many: NDArray[np.float64], one: NDArray[np.float64]) -> dict[str, float]:
    """Median of the ratios of turns, (turns,), with its bootstrap interval."""
    ratios = many / one
    random = np.random.default_rng(0)
    drawn = np.median(ratios[random.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"ratio": round(float(np.median(ratios)), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _cpu_s(call: Callable[[], object], *, calls: int = 15) -> float:
    """CPU seconds of this thread for one call, the median of some."""
    spent = []
    for _ in range(calls):
        began = time.thread_time()
        call()
        spent.append(time.thread_time() - began)
    return float(np.median(spent))


def measure(path: Path, threads: int, seconds: float) -> dict[str, Any]:
    """One model's figures."""
    plugin = registry.load("inference", "onnxrt")
    file = ModelFile(name=path.name, content=open_batch(path), sha256="")
    backend = plugin.create(plugin.Options(), file, BackendContext(threads=threads))
    (spec,) = backend.inputs
    assert spec.open_batch, "the batch could not be opened"
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (max(BATCHES), *spec.shape[1:])).astype(spec.dtype)
    for name, answer in backend.run({spec.name: pictures}).items():
        alone = np.concatenate([backend.run({spec.name: one[None]})[name] for one in pictures])
        if not np.allclose(answer, alone, rtol=1e-3, atol=1e-3):
            raise SystemExit(f"{path.name}: output {name} is another in a batch")

    calls = []
    for size in BATCHES:
        given = {spec.name: np.ascontiguousarray(pictures[:size])}
        calls.append(partial(backend.run, given))
    each = turns(calls, seconds) / 1e6 / np.array(BATCHES)  # (turns, batch sizes), ms for one picture
    cpu_ms: list[float] | None = None
    if threads == 1:  # then all work is done in this thread, and its CPU time knows nothing of other processes
        cpu_ms = [round(_cpu_s(call) * 1e3 / size, 3) for call, size in zip(calls, BATCHES, strict=True)]
    backend.close()
    return {
        "model": path.name,
        "threads": threads,
        "turns": len(each),
        "batches": list(BATCHES),
        "ms_each": [round(float(value), 3) for value in np.median(each, axis=0)],
        "cpu_ms_each": cpu_ms,
        "ratio_to_1": {str(size): ratio(each[:, place], each[:, 0]) for place, size in enumerate(BATCHES) if place},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help=".onnx files")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=30, help="for each model and number of threads")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures here")
    given = parser.parse_args()
    rows = []
    for path in given.models:
        for threads in given.threads:
            row = measure(path, threads, given.seconds)
            rows.append(row)
            told = ", ".join(
                f"{size}: {one['ratio']:.2f} ({one['low']:.2f}-{one['high']:.2f})"
                for size, one in row["ratio_to_1"].items()
            )
            print(
                f"{path.name} {threads} thread(s): ms each {row['ms_each']}, of CPU {row['cpu_ms_each']}; ratio to one by one "
                f"{told}",
                flush=True,
            )
    if given.json:
        machine = environment()
        machine.pop("host", None)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"environment": machine, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
