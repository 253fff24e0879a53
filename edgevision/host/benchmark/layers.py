"""Where a model's time goes, operator by operator, from ONNX Runtime's own profiler.

The profile is Chrome trace JSON with one event a node and call (https://onnxruntime.ai/docs/performance/tune-performance/
profiling-tools.html). It also shows what no option tells: which execution provider really took which node, and whether a
quantised model's convolutions became integer kernels or are still computed in float.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.inference.onnxrt import Options as OnnxOptions

CALLS, WARM_UP_CALLS = 20, 5
TOP = 15
INTEGER_CONVOLUTIONS = frozenset({"QLinearConv", "ConvInteger", "NhwcQLinearConv", "QLinearConvTranspose"})
FLOAT_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose"})

NO_LITERT = "not available: the Python package of LiteRT has no profiler; Google's benchmark_model tool has one"
_KERNEL = "_kernel_time"


def profile(
    content: bytes,
    tensors: Mapping[str, NDArray[Any]],
    *,
    threads: int,
    providers: Iterable[str] = ("CPUExecutionProvider",),
    calls: int = CALLS,
) -> dict[str, Any]:
    """Run an ONNX model under the profiler, as `onnxrt` would, and sum up; see `summarise`."""
    ort = registry.require("onnxruntime", package="edgevision[onnxrt]", purpose="the profile")
    chosen = OnnxOptions.model_validate({"providers": tuple(providers)}).provider_options()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="edgevision-profile-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(content, options, providers=list(chosen.items()))
        for _ in range(WARM_UP_CALLS + calls):
            session.run(None, dict(tensors))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return summarise(events, skip=WARM_UP_CALLS)


def summarise(events: Iterable[Mapping[str, Any]], *, skip: int = 0) -> dict[str, Any]:
    """What a profile says.

    Args:
        events: the profile.
        skip: calls at the beginning that are not counted.

    Returns:
        `operators` (by kind) and `nodes` (single ones), those with most time first, as mean microseconds a call and share;
        `providers` with their share of nodes and of time; `convolutions` as integer and float kernels.
    """
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    kinds: dict[tuple[str, str], tuple[str, str]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith(_KERNEL):
            continue
        more = event.get("args", {})
        key = (name.removesuffix(_KERNEL), str(more.get("node_index", "")))
        durations[key].append(float(event["dur"]))
        kinds[key] = (str(more.get("op_name", "?")), str(more.get("provider", "?")))
    mean_us = {key: float(np.mean(spent[skip:] or spent)) for key, spent in durations.items()}
    total_us = sum(mean_us.values()) or 1.0
    operators: dict[str, list[float]] = defaultdict(list)
    providers: dict[str, list[float]] = defaultdict(list)
    for key, spent_us in mean_us.items():
        operators[kinds[key][0]].append(spent_us)
        providers[kinds[key][1]].append(spent_us)
    slowest = sorted(mean_us, key=lambda key: -mean_us[key])[:TOP]
    convolutions = [kinds[key][0] for key in mean_us]
    return {
        "calls": max((len(spent) for spent in durations.values()), default=skip) - skip,
        "total_us": round(total_us, 1),
        "operators": [
            {"operator": name, "count": len(spent), "mean_us": round(sum(spent), 1), "share": _share(sum(spent), total_us)}
            for name, spent in sorted(operators.items(), key=lambda item: -sum(item[1]))[:TOP]
        ],
        "nodes": [
            {"node": key[0], "operator": kinds[key][0], "mean_us": round(mean_us[key], 1),
             "share": _share(mean_us[key], total_us)}
            for key in slowest
        ],
        "providers": {
            name: {"nodes": len(spent), "node_share": _share(len(spent), len(mean_us)),
                   "time_share": _share(sum(spent), total_us)}
            for name, spent in sorted(providers.items(), key=lambda item: -sum(item[1]))
        },
        "convolutions": {
            "integer": sum(kind in INTEGER_CONVOLUTIONS for kind in convolutions),
            "float": sum(kind in FLOAT_CONVOLUTIONS for kind in convolutions),
        },
    }  # fmt: skip


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
