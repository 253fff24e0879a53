"""A bar for each peer's ratio with its interval.

python plot.py RESULTS.json OUTPUT.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

OURS, OTHERS = "#1f77b4", "#b0b0b0"


def draw(tables: list[dict[str, Any]], output: Path) -> None:
    """One panel per table."""
    heights = [1 + sum("ratio" in row for row in table["peers"]) for table in tables]
    figure, panels = plt.subplots(
        len(tables), 1, figsize=(9, 0.42 * sum(heights) + 0.8 * len(tables)), squeeze=False,
        gridspec_kw={"height_ratios": heights}, layout="constrained",
    )  # fmt: skip
    for (axis,), table in zip(panels, tables, strict=True):
        rows = [row for row in table["peers"] if "ratio" in row][::-1]
        spread = [
            [max(0, row["ratio"] - row["low"]) for row in rows], [max(0, row["high"] - row["ratio"]) for row in rows]
        ]  # fmt: skip
        axis.barh(
            [row["peer"] for row in rows], [row["ratio"] for row in rows], xerr=spread,
            color=[OURS if row["peer"].startswith("edgevision") else OTHERS for row in rows],
        )  # fmt: skip
        for place, row in enumerate(rows):
            axis.text(row["high"], place, f"  {row['ratio']:.2f}", va="center", fontsize=8)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.margins(x=0.12)
        axis.set_title(f"{table['model']}, {table['threads']} thread(s): time to the bare loop's", fontsize=9)
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["tables"]
    draw([table for table in measured if any("ratio" in row for row in table["peers"])], Path(sys.argv[2]))
