"""The result as a picture: how latencies are distributed, and how they went over time."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgevision import registry
from edgevision.errors import UsageError
from edgevision.host.benchmark.candidate import all_samples
from edgevision.host.benchmark.document import write_bytes

SUFFIXES = (".png", ".svg", ".pdf")
_DRAWN = 20_000
"""Calls drawn of a candidate; more would only make the file larger."""


def check(path: Path) -> None:
    """Raise before anything is measured: UsageError for a suffix nobody can draw, PluginError without matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot: {path}: the suffix must be one of {', '.join(SUFFIXES)}")
    registry.require("matplotlib", package="edgevision[host]", purpose="--plot")


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw every candidate: the share of calls that were as quick as this, and each call in the order of time.

    Raises:
        StateError: the file cannot be written.
    """
    figures = registry.require("matplotlib.figure", package="edgevision[host]", purpose="--plot")
    ticker = registry.require("matplotlib.ticker", package="edgevision[host]", purpose="--plot")
    figure = figures.Figure(figsize=(12, 5), layout="constrained")  # no pyplot: nothing global, no window
    shares, order = figure.subplots(1, 2)
    for result in document["results"]:
        spent_ms = all_samples(result["repeats"], "edgevision") / 1e6
        name = f"{result['model']['name']} {result['backend']} {result['threads']} thr"
        ranked = np.sort(spent_ms)
        step = max(1, len(ranked) // _DRAWN)
        kept = np.unique(np.r_[0 : len(ranked) : step, len(ranked) - 1])
        shares.step(ranked[kept], (kept + 1) / len(ranked), where="post", label=name)
        order.plot(np.arange(0, len(spent_ms), step), spent_ms[::step], ".", markersize=2, label=name)
    shares.set(xlabel="ms from frame to message", ylabel="share of calls", xscale="log", title="Latency")
    order.set(xlabel="call", ylabel="ms", yscale="log", title="In the order of time")
    plain = ticker.FuncFormatter(lambda value, _place: f"{value:g}")  # 4.5 and not 4.5 x 10^0
    for axis in (shares.xaxis, order.yaxis):
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(plain)
    for axes in (shares, order):
        axes.grid(alpha=0.3, which="both")
        if document["results"]:
            axes.legend(fontsize=8, markerscale=4)
    figure.suptitle(f"edgevision benchmark, {document['environment']['cpu']}")
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lower()[1:], dpi=120)
    write_bytes(path, picture.getvalue())
