"""A parity check as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgevision.host.parity.predictions import MATCH_IOU, SAME_DIRECTION
from edgevision.host.parity.run import Parity
from edgevision.pipeline import Model


def parity(first: Model, second: Model, found: Parity) -> RenderableType:
    """Outputs, then predictions."""
    outputs = Table(box=None, pad_edge=False, header_style="bold")
    outputs.add_column("output", overflow="fold")
    outputs.add_column("paired by")
    for name in ("shape", "max error", "mean error", "cosine", "SQNR dB"):
        outputs.add_column(name, justify="right")
    for single in found.outputs:
        name = single.first if single.first == single.second else f"{single.first} / {single.second}"
        one, two = (f"{'x'.join(map(str, shape))}" for shape in single.shapes)
        if not single.comparable:
            outputs.add_row(Text(name), Text(single.by), f"{one} / {two}", "shapes differ: not compared")
            continue
        sqnr = "equal" if single.max_error == 0 else _number(single.sqnr_db, ".1f")
        outputs.add_row(
            Text(name),  # rich would take `[left]` in a string for its markup
            Text(single.by),
            one,
            _number(single.max_error, ".4g"),
            _number(single.mean_error, ".4g"),
            _number(single.cosine, ".6f"),
            sqnr,
        )
    parts: list[RenderableType] = [
        Text("\n".join(_named(model) for model in (first, second))),
        Text(f"{found.pictures} pictures" + (f", {found.left_out} left out" if found.left_out else "")),
        Text(""),
        outputs,
    ]
    if found.alone:
        parts.append(Text(f"without a partner, not compared: {', '.join(found.alone)}", style="yellow"))
    return Group(*parts, Text(""), _predictions(found, first.manifest.task))


def _predictions(found: Parity, task: str) -> RenderableType:
    said = found.predictions
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("predictions")
    table.add_column("", justify="right")
    if task == "detection":
        table.add_row(
            f"counted, of both (confidence from {found.thresholds[0]:g} and {found.thresholds[1]:g})", str(said.counted)
        )
        table.add_row(f"agree (same label, IoU from {MATCH_IOU:g})", _number(said.agreement, ".1%"))
        table.add_row("pairs, whatever the label", str(said.pairs))
        table.add_row("of the pairs: same label", _number(said.label_agreement, ".1%"))
        table.add_row("IoU, mean and least", f"{_number(said.mean_iou, '.3f')}  {_number(said.least_iou, '.3f')}")
    elif task == "classification":
        table.add_row("top-1 agrees", _number(said.agreement, ".1%"))
    elif task == "embedding":
        cosines = [None if less is None else 1 - less for less in (said.mean_confidence, said.most_confidence)]
        table.add_row(f"vectors agree (cosine from {SAME_DIRECTION:g})", _number(said.agreement, ".1%"))
        table.add_row("cosine, mean and least", "  ".join(_number(cosine, ".4f") for cosine in cosines))
    else:
        table.add_row("pixels agree", _number(said.agreement, ".1%"))
        table.add_row("IoU, mean and least", f"{_number(said.mean_iou, '.3f')}  {_number(said.least_iou, '.3f')}")
    if task in {"detection", "classification"}:
        table.add_row(
            "confidence differs by, mean and most",
            f"{_number(said.mean_confidence, '.4f')}  {_number(said.most_confidence, '.4f')}",
        )
    return table


def _named(model: Model) -> str:
    return f"{model.name} {model.manifest.version} ({model.backend_name}, sha256 {model.sha256[:16]})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
