"""What each runtime makes of a file on this machine; these functions run in a child process, one for each runtime.

A model is loaded as the daemon loads it. How long a run takes is a rough look with zeros as input; `edgevision benchmark`
measures.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgevision import registry
from edgevision.errors import EdgevisionError
from edgevision.graphs import read
from edgevision.host.inspect.facts import WEIGHTED, multiply_adds_of
from edgevision.inference.base import Backend, BackendContext, Execution, ModelFile
from edgevision.model_store import digest_of

_LOOK_S, _MOST_RUNS = 1.0, 50
_FREE_SIZE = 320
"""Pixels of an open height or width, for the look."""
_INTEGER_KERNELS = frozenset(
    {"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm", "MatMulIntegerToFloat"}
)
_FLOAT_KERNELS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})


def look(job: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Load and run with one backend, and ask it what it made of the file."""
    name = str(job["backend"])
    plugin = registry.load("inference", name)
    options = plugin.Options.model_validate(job["options"])
    file = ModelFile(name=str(job["name"]), content=content, sha256=digest_of(content))
    backend: Backend = plugin.create(options, file, BackendContext(threads=int(job["threads"])))
    told: Execution = getattr(backend, "execution", None) or Execution()
    zeros = {spec.name: np.zeros([_size(size) for size in spec.shape], spec.dtype) for spec in backend.inputs}
    found: dict[str, Any] = {
        "nodes": dict(told.nodes),
        "shares": {key: round(share, 4) for key, share in told.shares.items()},
        "left_out": dict(told.left_out),
        "notes": list(told.notes),
        "median_ms": _median_ms(backend, zeros),
    }
    backend.close()
    more = {"onnxrt": _onnxrt, "openvino": _openvino}.get(name)
    if more is not None:
        try:
            told_more = more(content, zeros)
            if found["shares"].keys() <= {"cpu"}:  # kernels are counted in the graph that the CPU executes
                found |= told_more
            else:
                found |= {key: value for key, value in told_more.items() if key == "multiply_adds"}
        except EdgevisionError as failure:
            found["notes"].append(str(failure))
    return found


def _size(size: int) -> int:
    return size if size > 0 else _FREE_SIZE


def _median_ms(backend: Backend, zeros: dict[str, Any]) -> float:
    backend.run(zeros)
    spent: list[int] = []
    while len(spent) < _MOST_RUNS and sum(spent) < _LOOK_S * 1e9:
        start_ns = time.perf_counter_ns()
        backend.run(zeros)
        spent.append(time.perf_counter_ns() - start_ns)
    return round(statistics.median(spent) / 1e6, 3)


def _onnxrt(content: bytes, zeros: dict[str, Any]) -> dict[str, Any]:
    """ONNX Runtime's own optimised graph, and the shapes that really came up."""
    ort = registry.require("onnxruntime", package="edgevision[onnxrt]", purpose="inspect")
    with tempfile.TemporaryDirectory(prefix="edgevision-inspect-") as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        operators = read(Path(options.optimized_model_filepath).read_bytes(), "the optimised graph").operators
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Every node as it stands in the file, so that what is multiplied is what the file says.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        session.run(None, zeros)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    plain: Counter[str] = Counter()
    for op, count in operators.items():
        plain[op.rpartition(".")[2]] += count  # `com.microsoft.nchwc.Conv`: laid out for this CPU
    integer = sum(count for op, count in plain.items() if op in _INTEGER_KERNELS)
    weighted = integer + sum(count for op, count in plain.items() if op in _FLOAT_KERNELS)
    return {
        "integer_kernels": integer,
        "weighted_kernels": weighted,
        "executed_operators": dict(operators.most_common()),
        "multiply_adds": _profiled(events),
    }


def _profiled(events: list[dict[str, Any]]) -> int | None:
    """Multiply-adds by the shapes in ONNX Runtime's profile; None where it does not tell them (before 1.10)."""
    total = 0
    for event in events:
        more = event.get("args", {})
        op = str(more.get("op_name", ""))
        if event.get("cat") != "Node" or not str(event.get("name", "")).endswith("_kernel_time") or op not in WEIGHTED:
            continue
        given, made = ([tuple(next(iter(one.values()))) for one in more.get(f"{way}_type_shape", [])]
                       for way in ("input", "output"))  # fmt: skip
        place = {"QLinearConv": 3, "QLinearMatMul": 3}.get(op, 1)
        if len(given) <= place or not made:
            return None
        total += multiply_adds_of(op, given[0], given[place], made[0])
    return total


def _openvino(content: bytes, _zeros: dict[str, Any]) -> dict[str, Any]:
    """The graph that OpenVINO executes, layer by layer, with the precision that each was compiled for."""
    from edgevision.host.quantize.onnx.openvino_graph import integer_share  # noqa: PLC0415  one runtime alone needs it

    integer, weighted, operators = integer_share(content)
    return {"integer_kernels": integer, "weighted_kernels": weighted, "executed_operators": operators}
