"""The report for people, in Markdown: what was made, what it cost, and why it was made so or refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

PLOT = "frontier.png"
PICTURES = "pictures"
_MOST = 20
_NOTHING = 0.005
"""Points that two decimals do not show."""


def verdict_line(found: dict[str, Any]) -> str:
    """One line that says what came out."""
    verdict, target = found["verdict"], found["target"]["name"]
    if verdict["packaged"] is None:
        return f"REFUSED: no 8-bit {found['name']} for {target} holds what is asked for"
    row = next(row for row in found["frontier"] if row["packaged"])
    cost = lost(row["drop_points"])
    allowed = " (over the budget, allowed by --allow-drop)" if verdict["allowed"] else ""
    return f"{found['name']} for {target}: {row['name']}, {found['figure']} {row['figure']:.4f}, {cost}{allowed}"


def lost(points: float | None) -> str:
    """A loss in points, in words."""
    if points is None:
        return "not measured"
    if abs(points) < _NOTHING:
        return "as accurate as float"
    return f"{points:.2f} points below float" if points > 0 else f"{-points:.2f} points above float"


def calibrated(found: dict[str, Any]) -> str:
    """Which pictures ranges were measured on, in words."""
    used = found["calibration"]
    if used is None:
        return "not known: a finished file was proved"
    drawn = f"{used['pictures']} of the {used['of']} pictures in {used['folder']}"
    return f"{drawn}, seed {used['seed']}, sha256 `{used['digest'][:16]}`"


def frontier_cells(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The frontier as a table of text: header and rows, one a candidate, for the terminal and for the report."""
    header = ["candidate", found["figure"], "loss", "time / float", "ms", "MB", "integer", ""]
    float_ms = [row["latency"]["float_ms"] for row in found["frontier"] if row["latency"] is not None]
    rows = []
    for row in found["frontier"]:
        latency, integers = row["latency"], row["integers"]
        if row["kind"] == "float":
            mark = "the reference"
        elif row["packaged"]:
            mark = "packaged"
        else:
            mark = row["failure"] or "; ".join(row["problems"])
        rows.append(
            [
                row["name"],
                "-" if row["figure"] is None else f"{row['figure']:.4f}",
                "-" if row["drop_points"] is None else f"{row['drop_points']:+.2f}",
                "1" if row["kind"] == "float" else _ratio(latency),
                _ms(latency, float_ms if row["kind"] == "float" else []),
                "-" if row["size_bytes"] is None else f"{row['size_bytes'] / 1e6:.2f}",
                "-" if integers is None else f"{integers['convolutions']} of {integers['of']}",
                mark,
            ]
        )
    return header, rows


def _ms(latency: dict[str, Any] | None, float_ms: Sequence[float]) -> str:
    """A candidate's time; float's is the median over the runs beside each candidate."""
    if float_ms:
        return f"{median(float_ms):.2f}"
    return "-" if latency is None else f"{latency['ms']:.2f}"


def _ratio(latency: dict[str, Any] | None) -> str:
    return "-" if latency is None else f"{latency['ratio']:.2f} ({latency['low']:.2f}-{latency['high']:.2f})"


def markdown(found: dict[str, Any], *, pictures: Sequence[tuple[str, str]] = (), plot: bool = False) -> str:
    """The whole report.

    Args:
        found: the document.
        pictures: of the ones that got worst, file name in `PICTURES` and caption.
        plot: whether `PLOT` was drawn.
    """
    verdict, dataset = found["verdict"], found["dataset"]
    lines = [f"# {verdict_line(found)}", ""]
    lines += [f"- {remark}" for remark in verdict["remarks"]]
    lines += [f"- not held: {problem}" for problem in verdict["problems"]]
    lines += ["", "## What was asked for", ""]
    lines += _table(
        ["", ""],
        [
            ["model", f"{found['source']['name']} {found['source']['version']}, `{found['source']['file']}`"],
            ["sha256", f"`{found['source']['sha256']}`"],
            ["target", f"{found['target']['name']}: {found['target']['what']}"],
            ["budget", f"{found['gate']['max_drop']:g} points of {found['figure']}"],
            ["integer convolutions", f"at least {found['gate']['least_share']:.0%}"],
            [
                "evaluated on",
                f"{dataset['source']}: {dataset['looked_at']} pictures, sha256 `{dataset['digest'][:16]}`",
            ],
            [
                "calibrated with",
                calibrated(found),
            ],
            ["settings", ", ".join(f"{key} {value}" for key, value in found["settings"].items() if value is not None)],
        ],
    )
    lines += ["", "## Every candidate", ""]
    lines += _table(*frontier_cells(found))
    lines += [
        "",
        "Loss in points (hundredths) against float; time as a ratio to float's, interleaved in this run, with its",
    ]
    lines += [
        f"95 % interval, {found['settings']['latency_threads']} thread(s). A model that was chosen on these pictures"
    ]
    lines += ["looks a little better on them than on others."]
    if plot:
        lines += ["", f"![accuracy against time]({PLOT})"]
    if found["compared"] is not None:
        lines += _compared(found, pictures)
    environment = found["environment"]
    lines += ["", "## Made with", ""]
    lines += [f"{environment['cpu']} ({', '.join(environment['features'])}), {environment['usable_cores']} cores."]
    took = found["took"]
    minutes, memory = f"{took['wall_s'] / 60:.1f} minutes", f"{took['peak_rss_bytes'] / 1e9:.2f} GB"
    lines += [
        "",
        f"Made in {minutes} ({took['processor_s'] / 60:.1f} of one processor), with {memory} of memory at most.",
    ]
    lines += [", ".join(f"{name} {version}" for name, version in found["tools"].items()) + "."]
    return "\n".join(lines) + "\n"


def _compared(found: dict[str, Any], pictures: Sequence[tuple[str, str]]) -> Iterable[str]:
    compared = found["compared"]
    lines = ["", f"## Float and {compared['name']} side by side", ""]
    rows = [
        [one["figure"], _number(one["float"]), _number(one["int8"]), _signed(one["float"], one["int8"])]
        for one in compared["figures"]
    ]
    lines += _table(["", "float", "8 bits", "difference"], rows)
    difference = compared["difference"]
    if difference is not None and difference["low"] is not None:
        proved = "" if difference["proved"] else "; it holds 0, so the difference is not proved"
        low, high = f"{difference['low']:+.4f}", f"{difference['high']:+.4f}"
        drawn = f"paired bootstrap, {difference['resamples']} draws of the pictures"
        lines.append("")
        lines.append(
            f"Difference of {difference['name']}: {difference['difference']:+.4f}, 95 % interval {low} to {high}"
        )
        lines.append(f"({drawn}){proved}.")
        changed = [
            [one["label"], _number(one["before"]), _number(one["after"]), _signed(one["before"], one["after"])]
            for one in difference["classes"]
            if one["before"] is not None and one["after"] is not None
        ]
        lines += ["", f"### Classes by {difference['class_figure']}, the most worsened first", ""]
        lines += _table(["class", "float", "8 bits", "difference"], changed[:_MOST])
        if len(changed) > _MOST:
            lines += ["", f"and {len(changed) - _MOST} more classes in report.json."]
        lines += ["", f"### Pictures by {difference['picture_figure']}"]
        lines += ["", f"{difference['worse_count']} got worse, {difference['better_count']} better."]
        worst = [[one["picture"], _number(one["before"]), _number(one["after"])] for one in difference["worse"]]
        lines += ["", *_table(["the worst", "float", "8 bits"], worst)] if worst else []
    for file, caption in pictures:
        lines += ["", f"![{caption}]({PICTURES}/{file})"]
    if compared["layers"]:
        lines += ["", "### Layers by their noise, the worst first", ""]
        layers = [[one["layer"], f"{one['sqnr_db']:.1f}"] for one in compared["layers"][:_MOST]]
        lines += _table(["layer", "SQNR, dB"], layers)
        if len(compared["layers"]) > _MOST:
            lines += ["", f"and {len(compared['layers']) - _MOST} more layers in report.json."]
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), "|" + "---|" * len(header), *(line(row) for row in rows)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _signed(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{after - before:+.4f}"
