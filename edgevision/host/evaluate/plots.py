"""An evaluation as pictures, drawn without a screen (matplotlib's Agg canvas; no global state, no window)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevision import registry
from edgevision.host.evaluate.classification import OTHER_NAME, ClassificationResult, confused_pairs
from edgevision.host.evaluate.detection import DetectionResult
from edgevision.host.evaluate.files import check_writable, write_whole
from edgevision.host.evaluate.robustness import Slice
from edgevision.host.evaluate.run import Evaluation, Result, figure_name

_MOST_CELLS = 40
"""Classes up to which a confusion matrix can be read as a matrix."""
_MOST_NUMBERS = 20
"""Classes up to which its cells hold numbers."""
_MOST_BARS = 40
_LABEL_CHARACTERS = 30
_CHARACTER_IN = 0.09
"""Inches that a character of a label takes."""


def draw(folder: Path, name: str, evaluation: Evaluation, slices: Sequence[Slice] = ()) -> list[Path]:
    """Draw what belongs to a result; the files' names begin with `name`.

    Raises:
        PluginError: matplotlib is not installed.
        StateError: the folder cannot be written.
    """
    result = evaluation.result
    made = []
    if isinstance(result, ClassificationResult):
        made.append(_save(folder / f"{name}-confusion.png", _confusion(result, name)))
    if isinstance(result, DetectionResult):
        made.append(_save(folder / f"{name}-classes.png", _class_bars(result, name)))
        made.append(_save(folder / f"{name}-precision-recall.png", _precision_recall(result, name)))
    if slices:
        made.append(_save(folder / f"{name}-robustness.png", _robustness(slices, result, evaluation.figure, name)))
    return made


def check_drawable(folder: Path) -> None:
    """Tell before the work what would keep plots from being made after it; raises PluginError and StateError."""
    registry.require("matplotlib.figure", package="edgevision[host]", purpose="--plots")
    check_writable(folder / "plot.png")


def _figure(width_in: float, height_in: float) -> Any:
    module = registry.require("matplotlib.figure", package="edgevision[host]", purpose="--plots")
    return module.Figure(figsize=(width_in, height_in), layout="constrained")


def _save(target: Path, figure: Any) -> Path:
    agg = registry.require("matplotlib.backends.backend_agg", package="edgevision[host]", purpose="--plots")
    picture = io.BytesIO()
    agg.FigureCanvasAgg(figure).print_png(picture)
    write_whole(target, picture.getvalue())
    return target


def _plain(text: str) -> str:
    """A label as matplotlib shall print it: cut off where it is long; `$` would begin a formula."""
    short = text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"
    return short.replace("$", r"\$")


def _confusion(result: ClassificationResult, name: str) -> Any:
    """The matrix where it can be read; of many classes the most confused pairs."""
    present = np.flatnonzero(result.confusion.sum(axis=1))
    answered = np.flatnonzero(result.confusion.sum(axis=0))
    columns = np.union1d(present, answered)
    if len(columns) > _MOST_CELLS:
        return _pairs(result, name)
    labels = [_plain(label) for label in (*result.labels, OTHER_NAME)]
    counts = result.confusion[np.ix_(present, columns)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    margin = 1.5 + _CHARACTER_IN * max(len(labels[column]) for column in columns)
    figure = _figure(max(3.0, 0.45 * len(columns)) + margin + 1, max(2.0, 0.45 * len(present)) + margin)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), [labels[column] for column in columns], rotation=90)
    axes.set_yticks(range(len(present)), [labels[row] for row in present])
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.set_title(f"{name}: top-1 {result.top1:.3f}")
    if len(columns) <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
    figure.colorbar(image, ax=axes, label="share of the truth's pictures", shrink=0.8)
    return figure


def _pairs(result: ClassificationResult, name: str) -> Any:
    pairs = confused_pairs(result.confusion, result.labels, _MOST_BARS)
    figure = _figure(9, max(2.5, 0.26 * len(pairs) + 1.2))
    axes = figure.subplots()
    axes.barh(range(len(pairs)), [count for _, _, count, _ in pairs])
    axes.set_yticks(
        range(len(pairs)), [f"{_plain(truth)}  taken for  {_plain(answer)}" for truth, answer, _, _ in pairs]
    )
    axes.invert_yaxis()
    axes.set_xlabel("pictures")
    axes.set_title(f"{name}: the most confused of {len(result.labels)} classes (top-1 {result.top1:.3f})")
    return figure


def _class_bars(result: DetectionResult, name: str) -> Any:
    ranked = sorted(
        ((single.ap, single.label, single.objects) for single in result.classes if single.ap is not None),
        key=lambda item: (item[0], item[1]),
    )
    shown = ranked[:_MOST_BARS]
    figure = _figure(8, max(2.5, 0.24 * len(shown) + 1.2))
    axes = figure.subplots()
    axes.barh(range(len(shown)), [ap for ap, _, _ in shown])
    axes.set_yticks(range(len(shown)), [_plain(f"{label} ({objects})") for _, label, objects in shown])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel("AP, IoU 0.50:0.95 (in brackets: objects)")
    more = f", the worst {len(shown)} of {len(ranked)}" if len(ranked) > len(shown) else ""
    axes.set_title(f"{name}: AP by class{more}")
    return figure


def _precision_recall(result: DetectionResult, name: str) -> Any:
    """Precision and recall of all classes together, over the confidence threshold."""
    matches = result.everything
    figure = _figure(7, 4)
    axes = figure.subplots()
    objects = max(int(matches.objects.sum()), 1)
    right, counted = np.cumsum(matches.hit[0]), np.cumsum(~matches.ignored[0])
    precision = right / np.maximum(counted, 1)
    axes.plot(matches.confidence, precision, label="precision")
    axes.plot(matches.confidence, right / objects, label="recall")
    axes.plot(matches.confidence, 2 * right / (counted + objects), label="F1")
    if result.overall is not None:
        axes.axvline(result.overall.threshold, color="grey", linestyle="--", label="the model's own threshold")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence threshold")
    axes.set_title(f"{name}: all classes, IoU 0.5")
    axes.legend()
    return figure


def _robustness(slices: Sequence[Slice], result: Result, clean: float | None, name: str) -> Any:
    figure = _figure(7, 4)
    axes = figure.subplots()
    for corruption in dict.fromkeys(part.corruption for part in slices):
        points = [(part.severity, part.figure) for part in slices if part.corruption == corruption]
        axes.plot(*zip(*points, strict=True), marker="o", label=corruption)
    if clean is not None:
        axes.axhline(clean, color="grey", linestyle="--", label="as they are")
    axes.set_xticks(sorted({part.severity for part in slices}))
    axes.set_ylim(0, 1)
    axes.set_xlabel("severity")
    axes.set_ylabel(figure_name(result))
    axes.set_title(f"{name}: spoiled pictures")
    axes.legend()
    return figure
