"""A soak as a Markdown table and as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_GROUPS = {
    "broker": "tab:red",
    "camera": "tab:blue",
    "config": "tab:green",
    "disk": "tab:purple",
    "consumer": "tab:gray",
}


_LEGEND = (
    "Seconds, the worst of each kind. Noticed: from the fault's beginning until the daemon said so; `-`: it had no reason to "
    "(a line that was only slow, a disk that was full while the journal had room in its own pages). Recovered: from its end "
    "(of a blow to a reader: from when it was noticed) until the camera was live with a trusted result, the broker connected "
    "with nothing left to send, the alarm gone, the config answered. Others: the worst other camera's results to those that "
    "there should be."
)


def _seconds(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.1f}" if known else "-"


def _summary(result: dict[str, Any]) -> str:
    same = "yes" if result["same_process"] else "NO"
    return (
        f"{len(result['outcomes'])} faults; after {result['healed']} of them all was well at the end of the slot. One process "
        f"from the beginning to the end: {same}; it ended with status {result['exit_status']}. Longest wait of the watchdog: "
        f"{result['watchdog_hungry_s']:.1f} s. Most messages in the spool: {result['most_spooled']}."
    )


def _messages(kept: dict[str, Any]) -> str:
    return (
        f"Durable messages: {kept['made']} made, {kept['arrived']} arrived, {kept['arrived_twice']} twice after `edgevision "
        f"consume`; {kept['missing']} missing, of which the broker had acknowledged "
        f"{kept['missing_but_acknowledged_by_the_broker']} before it was killed or lost its state; "
        f"**{kept['missing'] - kept['missing_but_acknowledged_by_the_broker']} lost by edgevision**."
    )


def markdown(result: dict[str, Any]) -> str:
    """The table."""
    machine = result["environment"]
    lines = [
        f"# Soak of {result['hours']:g} h, seed {result['seed']}",
        "",
        f"{machine['cpu']}, {machine['usable_cores']} cores, shared with other work; {result['note']}",
        "",
        _summary(result),
        "",
        "| after a warm-up of {:.0f} min | first | last | per hour |".format(result["warm_up_s"] / 60),
        "|---|---|---|---|",
    ]
    for name, found in result["slopes"].items():
        if not found:
            lines.append(f"| {name} | - | - | too short to tell |")
            continue
        lines.append(
            f"| {name} | {found['first']:g} | {found['last']:g} "
            f"| {found['per_hour']:+g} (95 %: {found['interval']:g} to either side) |"
        )
    lines += [
        "",
        _messages(result["messages"]),
        "",
        _LEGEND,
        "",
        "| fault | times | lasted | noticed | recovered | others' frames | healed |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for outcome in sorted(result["outcomes"], key=lambda outcome: (outcome["hits"], outcome["fault"])):
        kinds[outcome["fault"]].append(outcome)
    for name, outcomes in kinds.items():
        others = [outcome["others_fps"] for outcome in outcomes if outcome["others_fps"] is not None]
        lines.append(
            f"| {name} | {len(outcomes)} | {_seconds(outcome['lasted_s'] for outcome in outcomes)} "
            f"| {_seconds(outcome['noticed_s'] for outcome in outcomes)} "
            f"| {_seconds(outcome['recovered_s'] for outcome in outcomes)} "
            f"| {f'{min(others):.3f}' if others else '-'} "
            f"| {sum(outcome['healed'] for outcome in outcomes)} of {len(outcomes)} |"
        )
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], samples: list[dict[str, float]], series: dict[str, Any], path: Path) -> None:
    """Memory, handles, spool and results over time, the faults marked."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    start_s = series["start_s"]
    minutes = np.array([taken["time_s"] - start_s for taken in samples]) / 60
    figure, axes = plt.subplots(4, 1, figsize=(14, 15), sharex=True, constrained_layout=True)
    memory, counts, spool, rate = axes
    memory.plot(minutes, [taken["pss_mb"] for taken in samples], label="daemon and readers (PSS)", color="black", lw=1)
    memory.plot(
        minutes, [taken["own_mb"] for taken in samples], label="daemon and readers, own", color="tab:orange", lw=1
    )
    memory.plot(minutes, [taken["daemon_own_mb"] for taken in samples], label="daemon, own", color="tab:blue", lw=1)
    memory.set_ylabel("MB")
    memory.set_ylim(bottom=0)
    for key, label in (
        ("files", "file handles"),
        ("threads", "threads"),
        ("processes", "processes"),
        ("segments", "segments"),
    ):
        counts.plot(minutes, [taken[key] for taken in samples], label=label, lw=1)
    counts.set_ylabel("count")
    counts.set_ylim(bottom=0)
    spool.plot(
        (np.array(series["spool_s"]) - start_s) / 60, series["spool_waiting"], color="tab:red", lw=1, label="spooled"
    )
    spool.set_ylabel("messages waiting")
    spool.set_yscale("symlog", linthresh=10)
    for name, times in series["results"].items():
        edges = np.arange(0, minutes[-1] * 60, 10.0)
        per_s, _ = np.histogram(np.array(times) - start_s, bins=edges)
        rate.plot(edges[:-1] / 60, per_s / 10, label=name, lw=1, drawstyle="steps-post")
    rate.set_ylabel("results a second")
    rate.set_ylim(bottom=0)
    rate.set_xlabel("minutes")
    for axis in axes:
        for outcome in result["outcomes"]:
            group = outcome["hits"].partition(":")[0]
            begun = outcome["at_s"] / 60
            axis.axvspan(begun, begun + max(outcome["lasted_s"], 1) / 60, color=_GROUPS[group], alpha=0.15, lw=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", fontsize=8, ncols=4)
    for outcome in result["outcomes"]:
        memory.text(outcome["at_s"] / 60, 2, outcome["fault"], rotation=90, fontsize=6, va="bottom", alpha=0.7)
    figure.suptitle(
        f"edgevision: {result['hours']:g} h, {len(result['outcomes'])} faults, {result['healed']} of them healed"
    )
    figure.savefig(path, dpi=80)
    plt.close(figure)
