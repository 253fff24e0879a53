"""The results as Markdown; standard library only."""

from __future__ import annotations

from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """Everything that was measured, and what was not and why."""
    facts = results["environment"]
    about = (
        f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, {results['frames']} frames of 1280x720. "
        "Ratios are to the bare runtime loop (the inference call alone) in the same round; in brackets the 95 % interval, a "
        "bootstrap over rounds. Start is from the process's start to the first result, memory the most that was resident."
    )
    quick = ["**A quick run: not to be quoted.**"] if results["quick"] else []
    parts = [f"# Benchmarks on {results['host']}", *quick, about]
    parts += [_peers(table) for table in results["tables"]]
    parts += [_quantisation(table) for table in results["quantisation"]]
    parts += [_overhead(results["overhead"])] if results["overhead"] else []
    parts += [_daemon(results["daemon"])] if results["daemon"] else []
    parts += (
        ["## Not measured\n\n" + "\n".join(f"- {line}" for line in results["left_out"])] if results["left_out"] else []
    )
    return "\n\n".join(parts) + "\n"


def _grid(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [head, rule, *rows])


def _spread(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.3f} ({row['low']:.3f}-{row['high']:.3f})" if "ratio" in row else "-"


def _peers(table: dict[str, Any]) -> str:
    rows, failures, notes = [], [], []
    for row in table["peers"]:
        if "unavailable" in row:
            failures.append(f"- {row['peer']}: {row['unavailable']}")
            continue
        same = row.get("agreement")
        rows.append(
            [
                row["peer"], _spread(row), f"{row['median_ms']:.2f}", f"{row['start_s']:.2f}", f"{row['peak_mb']:.0f}",
                "-" if same is None else f"{same:.3f}",
            ]
        )  # fmt: skip
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        notes.append(f"- {row['peer']}: {row['note']} ({versions})")
    kind = "same first class" if table["task"].startswith("mobilenet") else "F1 at IoU 0.5"
    head = ["peer", "ratio to bare", "median ms", "start s", "memory MB", f"{kind} with {table['compared_with']}"]
    text = f"## {table['model']}, {table['threads']} thread(s)\n\n{_grid(head, rows)}\n\n" + "\n".join(notes)
    return text + ("\n\nCould not run:\n\n" + "\n".join(failures) if failures else "")


def _quantisation(table: dict[str, Any]) -> str:
    rows = [
        [
            row["recipe"],
            f"{row['ap']:.3f}" if "ap" in row else "-",
            _spread(row),
            row.get("unavailable", ""),
        ]
        for row in table["recipes"]
    ]
    title = (
        f"## Plain quantisation of {table['model']}, ONNX Runtime, {table['threads']} thread(s), calibrated with "
        f"{table['calibration_pictures']} pictures"
    )
    return f"{title}\n\n" + _grid(["recipe", "AP", "time to float", "could not run"], rows)


def _overhead(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            row["model"],
            row["backend"],
            str(row["threads"]),
            _spread(row),
            f"{row['bare_ms']:.2f}",
            f"{row['edgevision_ms']:.2f}",
        ]
        for row in rows
    ]
    head = ["model", "backend", "threads", "ratio to bare", "bare ms", "edgevision ms"]
    return "## What edgevision adds to the inference call\n\n" + _grid(head, cells)


def _daemon(figures: dict[str, Any]) -> str:
    start, paced, fair = figures["start"], figures["paced"], figures["fairness"]
    rows = [
        ["process start to first result, s", f"{start['median_s']} (the very first {start['first_s']})"],
        ["memory of all its processes (PSS), MB", str(paced["pss_mb"])],
        [f"CPU at {paced['fps']} frames a second, % of a core", str(paced["cpu_percent"])],
        ["of that beyond the inferences", str(paced["beyond_inference_percent"])],
        [f"{fair['cameras']} cameras: fewest to most frames", str(fair["min_to_max"])],
        ["latency first and last sixth, ms", f"{fair['latency_ms_first_sixth']}, {fair['latency_ms_last_sixth']}"],
    ]
    return f"## The daemon, {figures['model']}, {figures['threads']} thread(s)\n\n" + _grid(["", ""], rows)
