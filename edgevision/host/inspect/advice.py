"""What would make a model faster on this machine: each advice says what was seen and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LEAST_SHARE = 0.9
"""Of the convolutions; below it the conversions cost more than integers save."""
_QUICKER = 0.85
"""A runtime that takes less than this share of another's time is told; less is noise of a rough look."""
_OPSET = 13


def advice(facts: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]], target: str, name: str) -> Iterator[str]:
    """Concrete things to do, those that gain most first.

    Args:
        facts: what stands in the file.
        runs: what each runtime made of it; those that refused it have `error`.
        target: of `edgevision quantize`, for this machine.
        name: of the file, as the user gave it.
    """
    good = {backend: run for backend, run in runs.items() if "error" not in run}
    yield from _quantise(facts, good, target, name)
    yield from _runtime(good)
    for backend, run in good.items():
        for note in run["notes"]:
            yield f"{backend}: {note}"
        cpu = run["shares"].get("cpu", 0.0)
        if cpu and run["shares"].keys() - {"cpu", "xnnpack"}:
            yield f"{backend}: {cpu:.0%} of the nodes stay on the CPU, and pictures are copied to and fro at every change"
    yield from _graph(facts)


def _quantise(facts: Mapping[str, Any], good: Mapping[str, Mapping[str, Any]], target: str, name: str) -> Iterator[str]:
    kind, weighted = (
        facts["quantisation"],
        any(op in facts["operators"] for op in ("Conv", "Gemm", "CONV_2D", "Convolution")),
    )
    command = f"edgevision quantize {name} --target {target} --calibration PICTURES --evaluate LABELLED -o models/"
    if kind in {"float", "float16 weights"} and weighted:
        widened = "; its float16 weights only make the file smaller, a CPU widens them" if kind != "float" else ""
        if facts["format"] == "openvino":
            command = command.replace(name, "THE_ONNX_FILE_IT_WAS_MADE_OF", 1)
        yield f"it computes in float{widened}: {command}"
        return
    if kind == "integer weights":
        yield f"only its weights are integers, it computes in float: quantise the float model whole: {command}"
        return
    poor = {}
    for backend, run in good.items():
        if run.get("weighted_kernels") and run["integer_kernels"] < _LEAST_SHARE * run["weighted_kernels"]:
            poor[backend] = f"{run['integer_kernels']} of {run['weighted_kernels']}"
    fine = [backend for backend, run in good.items() if run.get("weighted_kernels") and backend not in poor]
    for backend, share in poor.items():
        other = f"run it with {fine[0]}, where they do, or " if fine else ""
        yield (
            f"{backend} runs only {share} convolutions and matrix products as integers here, the rest in float between two "
            f"conversions: it was quantised for another runtime or chip; {other}quantise the float model for this one: "
            f"{command.replace(name, 'FLOAT_MODEL', 1)}"
        )


def _runtime(good: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    times = {backend: run["median_ms"] for backend, run in good.items() if run.get("median_ms")}
    if len(times) < 2:
        return
    first, *_, last = sorted(times, key=lambda backend: times[backend])
    if times[first] < _QUICKER * times[last]:
        yield (
            f"{first} takes {times[first]:.1f} ms here and {last} {times[last]:.1f} (a rough look): backend: {first}; "
            "edgevision benchmark --backend all measures it"
        )


def _graph(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["open_sizes"]:
        yield "an input's size is left open, so that shapes are worked out at every run: export it with a fixed size"
    batch = [end["shape"][0] for end in facts["inputs"] if end["shape"] and len(end["shape"]) == 4]
    if batch and batch[0] > 1:
        yield f"its batch is fixed at {batch[0]}: a camera gives one picture; export it with a batch of 1"
    if facts["nms"]:
        yield (
            f"{', '.join(facts['nms'])} stands inside the graph: no accelerator takes it, and its thresholds are fixed; "
            "export the model without NMS, the decoder does it"
        )
    opset = facts["opsets"].get("ai.onnx", _OPSET)
    if opset < _OPSET:
        yield (
            f"opset {opset} cannot say `quantised per channel` ({_OPSET} can), and newer ones fuse better: export it with "
            "opset 17 (edgevision quantize converts it by itself)"
        )
    if facts["weight_types"].get("float64", 0) > 1000:
        yield "it has float64 constants, which no fast kernel takes: export it in float32"
