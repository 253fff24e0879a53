"""All that a quantisation found out, as one JSON document: the report, the terminal and model.yaml are made from it alone."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgevision._version import __version__
from edgevision.clock import SYSTEM_CLOCK
from edgevision.host.benchmark.machine import environment
from edgevision.host.evaluate.against import Comparison
from edgevision.host.evaluate.report import DatasetFacts
from edgevision.host.evaluate.run import Evaluation, figure_name
from edgevision.host.evaluate.tables import main_figures
from edgevision.host.quantize.calibration import CalibrationSet
from edgevision.host.quantize.search import Bench, Gate, Tried
from edgevision.host.quantize.store import tool_versions
from edgevision.host.quantize.verdict import Verdict
from edgevision.messages.times import timestamp

SCHEMA = "edgevision/quantization/1"


def document(
    *,
    bench: Bench,
    gate: Gate,
    facts: DatasetFacts,
    calibration: CalibrationSet | None,
    reference: Tried,
    tried: Sequence[Tried],
    verdict: Verdict,
    here: bool,
    comparison: Comparison | None,
    compared: Tried | None,
    began_s: float,
) -> dict[str, Any]:
    """Put it together.

    Args:
        bench: source, target and settings.
        gate: the budget.
        facts: of the dataset that was evaluated on.
        calibration: the pictures that were calibrated with; None where a finished file was proved.
        reference: the float model.
        tried: every candidate.
        verdict: what is packaged.
        here: whether this machine is a device of the target.
        comparison: float against `compared`, on the same pictures.
        compared: the candidate that is packaged, or came nearest.
        began_s: when the work began, on the monotonic clock.
    """
    evaluation = _evaluated(reference)
    detection = bench.dataset.task == "detection"
    return {
        "schema": SCHEMA,
        "edgevision": __version__,
        "made_at": timestamp(SYSTEM_CLOCK.time_ns()),
        "name": bench.name,
        "source": {
            "name": bench.source.manifest.name,
            "version": bench.source.manifest.version,
            "file": bench.source.file_name,
            "sha256": bench.source.sha256,
            "size_bytes": len(bench.source.content),
        },
        "target": {"name": bench.target.name, "what": bench.target.what, "backend": bench.target.backend, "here": here},
        "gate": asdict(gate),
        "figure": figure_name(evaluation.result),
        "dataset": asdict(facts) | {"source": str(facts.source).rpartition("/")[2]},
        "calibration": None if calibration is None else calibration.document(),
        "settings": {
            "confidence": evaluation.confidence if detection else None,
            "own_confidence": evaluation.own_confidence,
            "iou": evaluation.iou if detection else None,
            "max_detections": evaluation.max_detections if detection else None,
            "latency_threads": bench.latency_threads,
            "classes_matched": evaluation.classes,
        },
        "frontier": [_row(reference, gate, verdict), *(_row(one, gate, verdict) for one in tried)],
        "verdict": {
            "packaged": None if verdict.chosen is None else verdict.chosen.name,
            "allowed": verdict.allowed,
            "problems": list(verdict.problems),
            "remarks": list(verdict.remarks),
        },
        "compared": None if compared is None else _compared(reference, compared, comparison),
        "tools": tool_versions(),
        "environment": environment(),
        "took": _took(began_s),
    }


def _took(began_s: float) -> dict[str, float | int]:
    """Time and memory of the whole work; a tool that ran in a process of its own counts where it took more."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": round(time.monotonic() - began_s, 1),
        "processor_s": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 1),
        "peak_rss_bytes": max(own.ru_maxrss, children.ru_maxrss) * 1024,  # Linux tells KiB, getrusage(2)
    }


def _evaluated(tried: Tried) -> Evaluation:
    if tried.evaluation is None:
        raise ValueError(f"{tried.name} was not evaluated")  # the float model always is
    return tried.evaluation


def _row(tried: Tried, gate: Gate, verdict: Verdict) -> dict[str, Any]:
    integers = tried.integers
    return {
        "name": tried.name,
        "kind": tried.kind,
        "figure": tried.figure,
        "drop_points": tried.drop,
        "latency": None if tried.latency is None else tried.latency.document(),
        "size_bytes": len(tried.content) or None,
        "integers": None
        if integers is None
        else {
            "convolutions": integers.integer,
            "of": integers.total,
            "share": round(integers.share, 4),
            "operators": dict(integers.operators),
        },
        "spared": list(tried.attempt.spared),
        "parameters": dict(tried.attempt.parameters),
        "seconds": round(tried.seconds, 1),
        "failure": tried.failure,
        "problems": gate.problems(tried) if tried.kind == "int8" else [],
        "packaged": tried is verdict.chosen,
    }


def _compared(reference: Tried, compared: Tried, comparison: Comparison | None) -> dict[str, Any]:
    before: Mapping[str, float | None] = dict(main_figures(_evaluated(reference)))
    after: Mapping[str, float | None] = dict(main_figures(_evaluated(compared)))
    return {
        "name": compared.name,
        "figures": [{"figure": name, "float": before[name], "int8": after[name]} for name in before],
        "difference": None if comparison is None else asdict(comparison) | {"proved": comparison.proved},
        "layers": [{"layer": one.layer, "sqnr_db": round(one.sqnr_db, 2)} for one in compared.noise],
    }
