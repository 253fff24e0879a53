"""What a report shows: the pictures that got worst, with both models' answers drawn, and accuracy against time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.capture.images import read_image
from edgevision.drawing import draw, encode_jpeg, shrink
from edgevision.host.evaluate.against import Comparison
from edgevision.host.evaluate.answers import Found
from edgevision.host.evaluate.files import write_whole
from edgevision.host.evaluate.run import Evaluation
from edgevision.types import Classifications, Detections

_WIDTH_PX = 640
_BETWEEN_PX = 8
_NAMED = 3
"""Classes that a drawn classification names."""


def draw_worst(
    folder: Path, first: Evaluation, second: Evaluation, comparison: Comparison, labels: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Draw the pictures that got worst, the first model's answer on the left and the second's on the right.

    Returns:
        File name in `folder` and caption of each.

    Raises:
        StateError: the folder cannot be written.
        ImageError: a picture cannot be read any more.
    """
    rows = {sample.name: row for row, sample in enumerate(first.samples)}
    made = []
    for number, worse in enumerate(comparison.worse, 1):
        row = rows[worse.picture]
        sides = [_shown(evaluation.answers[row], labels, evaluation.own_confidence) for evaluation in (first, second)]
        if None in sides:
            continue  # a segmentation keeps counts and not the picture of its answer
        image = read_image(first.samples[row].path)
        drawn = [shrink(draw(image, side), _WIDTH_PX) for side in sides if side is not None]
        gap = np.full((drawn[0].shape[0], _BETWEEN_PX, 3), 255, np.uint8)
        pair: NDArray[np.uint8] = np.hstack([drawn[0], gap, drawn[1]])
        file = f"{number:02d}.jpg"
        write_whole(folder / file, encode_jpeg(pair, 88))
        change = f"{comparison.picture_figure} {worse.before:.2f} in float (left), {worse.after:.2f} in 8 bits"
        made.append((file, f"{worse.picture}: {change}"))
    return made


def _shown(answer: Found, labels: tuple[str, ...], confidence: float) -> Detections | Classifications | None:
    if isinstance(answer, Detections):
        keep = answer.confidence >= confidence
        return Detections(
            xyxy=answer.xyxy[keep],
            confidence=answer.confidence[keep],
            class_id=answer.class_id[keep],
            labels=labels,
        )
    if isinstance(answer, Classifications):
        return replace(
            answer,
            confidence=answer.confidence[:_NAMED],
            class_id=answer.class_id[:_NAMED],
            labels=labels,
        )
    return None


def draw_frontier(target: Path, found: dict[str, Any]) -> bool:
    """Accuracy against time, one dot a candidate; False where there is nothing to draw.

    Raises:
        PluginError: matplotlib is not installed.
        StateError: it cannot be written.
    """
    rows: Sequence[dict[str, Any]] = [
        row for row in found["frontier"] if row["figure"] is not None and (row["latency"] or row["kind"] == "float")
    ]
    if len(rows) < 2:
        return False
    figures = registry.require("matplotlib.figure", package="edgevision[host]", purpose="the report")
    agg = registry.require("matplotlib.backends.backend_agg", package="edgevision[host]", purpose="the report")
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    reference = rows[0]["figure"]
    axes.axhspan(reference - found["gate"]["max_drop"] / 100, reference, color="#dff0d8", label="within the budget")
    axes.axvline(1, color="#999999", linewidth=0.8)
    for row in rows:
        ratio = 1.0 if row["kind"] == "float" else row["latency"]["ratio"]
        color = "#2a7f2a" if row["packaged"] else "#333333" if row["kind"] == "float" else "#b04a2f"
        axes.plot(ratio, row["figure"], "o", color=color)
        axes.annotate(row["name"], (ratio, row["figure"]), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel(f"time of one inference over float's, {found['settings']['latency_threads']} thread(s)")
    axes.set_ylabel(found["figure"])
    axes.set_title(f"{found['source']['name']} for {found['target']['name']}")
    axes.legend(loc="lower right")
    axes.margins(x=0.2)
    agg.FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_whole(target, buffer.getvalue())
    return True
