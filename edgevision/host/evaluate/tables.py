"""An evaluation as tables for people. Labels and names are `Text`: rich would take `[left]` in a string for its markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgevision.host.evaluate.against import Comparison
from edgevision.host.evaluate.classification import ClassificationResult, confused_pairs
from edgevision.host.evaluate.detection import DetectionResult, Rates
from edgevision.host.evaluate.report import DatasetFacts
from edgevision.host.evaluate.robustness import Slice, mean_drop
from edgevision.host.evaluate.run import Evaluation, figure_name
from edgevision.host.evaluate.segmentation import SegmentationResult
from edgevision.pipeline import Model

_MOST_CLASSES = 100
_WORST_CLASSES = 30
_MOST_PAIRS = 15


def header(facts: DatasetFacts) -> RenderableType:
    """What was looked at."""
    part = f"{facts.looked_at} of {facts.pictures} pictures"
    if facts.limit is not None:
        part += f" (--limit {facts.limit}: a stratified choice, seed {facts.seed})"
    left_out = {
        "unreadable pictures": facts.unreadable,
        "pictures of unknown classes": facts.unknown,
        "faults in the labels": facts.faults,
    }
    if any(left_out.values()):
        part += "; left out: " + ", ".join(f"{count} {what}" for what, count in left_out.items() if count)
    lines = [f"{facts.source} ({facts.format}, {facts.task}), sha256 {facts.digest[:16]}", part]
    lines += [f"note: {note}" for note in facts.notes]
    if facts.test_uses_before is not None:
        lines.append(f"this is a held-out test set; it had been used {facts.test_uses_before} times before")
    return Text("\n".join(lines))


def evaluation(model: Model, measured: Evaluation, notes: Iterable[str]) -> RenderableType:
    """One model's figures."""
    result = measured.result
    named = f"{model.name} {model.manifest.version} ({model.backend_name}, sha256 {model.sha256[:16]})"
    settings = f"classes matched: {measured.classes}"
    if isinstance(result, DetectionResult):
        settings = (
            f"confidence from {measured.confidence:g}, NMS IoU {measured.iou:g}"
            f"{' across classes' if measured.class_agnostic else ''}, at most {measured.max_detections} a "
            f"picture; {settings}"
        )
        parts = _detection(result)
    elif isinstance(result, ClassificationResult):
        parts = _classification(result, measured.own_confidence)
    else:
        parts = _segmentation(result)
    said = [Text(f"note: {note}", style="yellow") for note in notes]
    return Group(Text(""), Text(named, style="bold"), Text(settings), *said, *parts)


def robustness(slices: Sequence[Slice], clean: Evaluation) -> RenderableType:
    """Corruptions down, severities across: the figure and how much of the clean one is lost."""
    severities = sorted({part.severity for part in slices})
    table = _table(
        f"{figure_name(clean.result)} on spoiled pictures", *(f"severity {level}" for level in severities), "mean drop"
    )
    clean_row = [_number(clean.figure)] + [""] * len(severities)
    table.add_row("(none)", *clean_row)
    for corruption in dict.fromkeys(part.corruption for part in slices):
        cells = [
            f"{_number(part.figure)} ({_percent(part.drop, minus=True)})"
            for part in slices
            if part.corruption == corruption
        ]
        table.add_row(corruption, *cells, _percent(mean_drop(slices, corruption), minus=True))
    table.add_row("all", *[""] * len(severities), _percent(mean_drop(slices), minus=True), style="bold")
    return Group(Text(""), table)


def comparison(first: Evaluation, second: Evaluation, compared: Comparison, names: tuple[str, str]) -> RenderableType:
    """Two models side by side."""
    table = _table("", *names, "difference")
    for label, one, two in zip(_figure_names(first), _figures(first), _figures(second), strict=True):
        table.add_row(label, _number(one), _number(two), _signed(one, two))
    interval = ""
    if compared.low is not None and compared.high is not None:
        verdict = "" if compared.proved else ": it holds 0, so the difference is not proved"
        interval = (
            f"difference of {compared.name}: {_plus(compared.difference)}, 95 % interval {_plus(compared.low)} to "
            f"{_plus(compared.high)} (paired bootstrap, {compared.resamples} draws of the pictures){verdict}"
        )
    classes = _table(f"classes by {compared.class_figure}, the most worsened first", *names, "difference")
    for change in compared.classes[:_WORST_CLASSES]:
        classes.add_row(
            Text(change.label), _number(change.before), _number(change.after), _signed(change.before, change.after)
        )
    more = _more(len(compared.classes) - _WORST_CLASSES, "classes")
    worse = _table(f"pictures that got worst ({compared.picture_figure})", *names)
    for row in compared.worse:
        worse.add_row(Text(row.picture), _number(row.before), _number(row.after))
    count = Text(f"{compared.worse_count} pictures got worse, {compared.better_count} better")
    parts: list[RenderableType] = [Text(""), table, Text(interval), Text(""), classes, *more, Text(""), count]
    if compared.worse:
        parts.append(worse)
    return Group(*parts)


def _figure_names(measured: Evaluation) -> list[str]:
    return [name for name, _ in main_figures(measured)]


def _figures(measured: Evaluation) -> list[float | None]:
    return [value for _, value in main_figures(measured)]


def main_figures(measured: Evaluation) -> list[tuple[str, float | None]]:
    """An evaluation's figures by the names that people know, the one that stands for all first."""
    result = measured.result
    if isinstance(result, DetectionResult):
        own, best = result.overall, result.best_overall
        return [
            *((_COCO_NAMES[key], value) for key, value in result.coco.summary.items()),
            ("precision at own threshold", own.precision if own else None),
            ("recall at own threshold", own.recall if own else None),
            ("F1 at own threshold", own.f1 if own else None),
            ("F1 at best threshold", best.f1 if best else None),
        ]
    if isinstance(result, ClassificationResult):
        return [("top-1", result.top1), ("top-5", result.top5), ("balanced accuracy", result.balanced_accuracy)]
    return [("mIoU", result.mean_iou), ("pixel accuracy", result.pixel_accuracy)]


_COCO_NAMES = {
    "ap": "AP (IoU 0.50:0.95)",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar_1": "AR, 1 a picture",
    "ar_10": "AR, 10 a picture",
    "ar_100": "AR, 100 a picture",
    "ar_small": "AR small",
    "ar_medium": "AR medium",
    "ar_large": "AR large",
}


def _detection(result: DetectionResult) -> list[RenderableType]:
    summary = _table("", "value")
    for key, value in result.coco.summary.items():
        summary.add_row(_COCO_NAMES[key], _number(value))
    if result.voc_ap50 is not None:
        summary.add_row("VOC AP (IoU 0.50, every point)", _number(result.voc_ap50))
    columns = ("objects", "AP", "AP50", "best at", "P", "R", "F1", "own at", "P", "R", "F1")
    classes = _table("classes, IoU 0.5 for P, R and F1", *columns)
    shown = [single for single in result.classes if single.objects]
    for single in shown[:_MOST_CLASSES]:
        classes.add_row(
            Text(single.label),
            str(single.objects),
            _number(single.ap),
            _number(single.ap50),
            *_rates(single.best),
            *_rates(single.own),
        )
    total = str(sum(single.objects for single in shown))
    classes.add_row("all", total, "", "", *_rates(result.best_overall), *_rates(result.overall), style="bold")
    return [Text(""), summary, Text(""), classes, *_more(len(shown) - _MOST_CLASSES, "classes")]


def _classification(result: ClassificationResult, own_confidence: float) -> list[RenderableType]:
    summary = _table("", "value")
    summary.add_row("top-1", _number(result.top1))
    if result.top5 is not None:
        summary.add_row("top-5", _number(result.top5))
    summary.add_row("balanced accuracy", _number(result.balanced_accuracy))
    summary.add_row("(always the most frequent class)", _number(result.majority_baseline))
    if result.answered is not None:
        summary.add_row(f"answered (confidence from {own_confidence:g})", _number(result.answered))
        summary.add_row("top-1 of those", _number(result.answered_top1))
    classes = _table("classes, the worst F1 first", "pictures", "precision", "recall", "F1")
    for single in sorted(result.classes, key=lambda item: (item.f1, item.label))[:_WORST_CLASSES]:
        classes.add_row(
            Text(single.label),
            str(single.pictures),
            _number(single.precision),
            _number(single.recall),
            _number(single.f1),
        )
    pairs = _table("most confused", "taken for", "times", "share")
    for truth, answer, count, share in confused_pairs(result.confusion, result.labels, _MOST_PAIRS):
        pairs.add_row(Text(truth), Text(answer), str(count), f"{share:.0%}")
    parts: list[RenderableType] = [Text(""), summary, Text(""), classes]
    parts += _more(len(result.classes) - _WORST_CLASSES, "classes")
    return [*parts, Text(""), pairs] if pairs.row_count else parts


def _segmentation(result: SegmentationResult) -> list[RenderableType]:
    classes = _table("", "pixels", "IoU")
    for label, pixels, iou in zip(result.labels, result.class_pixels, result.class_iou, strict=True):
        classes.add_row(Text(label), str(int(pixels)), "" if iou != iou else f"{iou:.3f}")  # noqa: PLR0124 - NaN
    classes.add_row("mIoU", "", _number(result.mean_iou), style="bold")
    classes.add_row("pixel accuracy", "", _number(result.pixel_accuracy))
    return [Text(""), classes]


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text(first), overflow="fold")
    for name in columns:
        table.add_column(Text(name), justify="right")
    return table


def _more(count: int, what: str) -> list[RenderableType]:
    return [Text(f"and {count} more {what}; --json holds all")] if count > 0 else []


def _rates(rates: Rates | None) -> tuple[str, str, str, str]:
    if rates is None:
        return "", "", "", ""
    return f"{rates.threshold:.2f}", _number(rates.precision), _number(rates.recall), _number(rates.f1)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plus(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _signed(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{after - before:+.3f}"


def _percent(share: float | None, *, minus: bool = False) -> str:
    return "-" if share is None else f"{-share if minus else share:+.0%}"
