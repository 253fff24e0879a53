"""Whether a model became slower between two results of `edgevision benchmark`; made for a CI on a machine that has noise.

A regression must be sure: the whole 95 % interval of the ratio lies above the limit. There are three ways to be sure:

1. *Beside its twin* (p50, same model, same packages): edgevision and the same model in a bare runtime loop were timed call by
   call, so the machine's speed cancels. Finds what edgevision, or how it drives the runtime, adds.
2. *Beside the reference* (p50, another model by --force, same packages): the same with the shipped reference model.
3. *In itself*, on a machine that had nothing else to do: the latency is longer, and so is its fastest twentieth, and so is it
   against the yardstick. Finds a runtime that became slower. A busy neighbour can double a latency, so on a busy machine
   this way is closed, and the comparison says so.

Measured on two cores with others' work on them (load average 2 to 3): from run to run the plain median of the same model
wandered by 15 to 20 % with one thread and by 40 to 70 % with two; beside its twin by 1 to 2 % with one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from edgevision.errors import UsageError
from edgevision.host.benchmark import document, noise
from edgevision.host.benchmark.noise import Ratio
from edgevision.registry import unknown_name

Verdict: TypeAlias = Literal["regression", "improvement", "equal"]
SCHEMA = "edgevision/comparison/1"
METRICS = ("p50", "mean", "p90", "p95", "p99")
_MACHINE = ("cpu", "architecture", "cores", "usable_cores")
_TOLD = ("edgevision", "python", "kernel", "governor", "packages")
_APART = 1.15
"""A twin or reference that itself took so much longer was not measured in the same state of the machine."""
_APART_ONE_THREAD = 1.6
"""With one thread a disturbed twin and a disturbed edgevision are disturbed alike; with more, the more parallel one more."""
_OTHERS_SHARE = 0.1
"""Of all cores: how much other work a quiet machine may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One candidate of both files."""

    candidate: str
    before_ms: float
    after_ms: float
    verdict: Verdict
    raw: Ratio
    """After / before."""
    fastest: Ratio
    """The same for the fastest twentieth of the calls."""
    yardstick: Ratio | None
    """The same, in units of the yardstick's time; None where the two files' yardsticks are not the same."""
    beside: Ratio | None
    """The same, in units of the time of the twin or the reference; None where it cannot be told."""
    beside_what: str | None
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        views = {"raw": self.raw, "fastest": self.fastest, "yardstick": self.yardstick, "beside": self.beside}
        return {
            "candidate": self.candidate,
            "verdict": self.verdict,
            "before_ms": round(self.before_ms, 4),
            "after_ms": round(self.after_ms, 4),
            **{name: view.document() if view else None for name, view in views.items()},
            "beside_what": self.beside_what,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two files."""

    metric: str
    limit: float
    lines: tuple[Line, ...]
    differences: tuple[str, ...]
    """What else is not the same: versions, kernel, governor."""
    only_in_one: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Line, ...]:
        """What became slower by more than the limit."""
        return tuple(line for line in self.lines if line.verdict == "regression")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema": SCHEMA,
            "metric": self.metric,
            "limit_percent": round(self.limit * 100, 4),
            "regressions": len(self.regressions),
            "lines": [line.document() for line in self.lines],
            "differences": list(self.differences),
            "only_in_one": list(self.only_in_one),
        }


def parse_percent(text: str) -> float:
    """0.05 from `5%` or `5`; raises UsageError."""
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 < percent <= 1000:
        raise UsageError(f"--fail-on: found {text!r}; write how much slower is too slow, as 5%")
    return percent / 100


def compare_files(before: Path, after: Path, *, limit: float, metric: str = "p50", force: bool = False) -> Comparison:
    """Compare two results.

    Args:
        before: the older file.
        after: the newer file.
        limit: how much slower is a regression, 0.05 for 5 %.
        metric: one of METRICS, of the time from frame to message in a closed loop.
        force: compare though machine, model or settings differ.

    Raises:
        UsageError: a file is no result, has been edited, or the two cannot be compared; says which.
    """
    if metric not in METRICS:
        raise UsageError(unknown_name("metric", metric, METRICS))
    first, second = document.read(before), document.read(after)
    environments = first["environment"], second["environment"]
    refusals = [
        f"other machine: {key} is {environments[0].get(key)} in {before} and {environments[1].get(key)} in {after}"
        for key in _MACHINE
        if environments[0].get(key) != environments[1].get(key)
    ]
    ours, theirs = _by_candidate(first, before), _by_candidate(second, after)
    both = [key for key in ours if key in theirs]
    if not both:
        raise UsageError(
            f"nothing to compare: {before} has {', '.join(ours) or 'no result'}; {after} has {', '.join(theirs) or 'no result'}"
        )
    for key in both:
        refusals += _refusals(key, ours[key], theirs[key])
    if refusals and not force:
        raise UsageError(
            f"{before} and {after} cannot be compared: {'; '.join(refusals)} (--force compares all the same)"
        )
    cores = int(environments[1].get("usable_cores") or 1)
    same_packages = environments[0].get("packages") == environments[1].get("packages")
    return Comparison(
        metric=metric,
        limit=limit,
        lines=tuple(
            _line(key, ours[key], theirs[key], limit, metric, same_packages=same_packages, cores=cores) for key in both
        ),
        differences=(*(refusals if force else ()), *_differences(*environments)),
        only_in_one=tuple(key for key in (*ours, *theirs) if key not in both),
    )


def _by_candidate(content: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Every result by what it is of; raises UsageError for one that is not whole or not what was measured."""
    found: dict[str, dict[str, Any]] = {}
    for number, result in enumerate(content["results"]):
        try:
            threads = result["threads"]
            key = f"{result['model']['name']} {result['backend']} {threads} thread{'s' if threads > 1 else ''}"
            told_ms = float(result["latency"]["p50_ms"])
            blocks = [one["edgevision_ns"] for repeat in result["repeats"] for one in repeat["rounds"]]
            real_ms = noise.METRICS["p50"](np.concatenate(blocks)) / 1e6
            _ = [(repeat["turns"], repeat["others_cores"]) for repeat in result["repeats"]], result["model"]["sha256"]
            _ = result["settings"], result["yardstick"], result["reference"]
        except (KeyError, TypeError, ValueError) as failure:
            raise UsageError(f"{path}: results[{number}] is not whole ({failure!r}); measure again") from failure
        if abs(told_ms - real_ms) > 1e-3 + 1e-4 * real_ms:
            raise UsageError(
                f"{path}: results[{number}]: p50_ms is {told_ms}, its samples give {real_ms:.4f}: the file has been edited; "
                "measure again"
            )
        found[key] = result
    return found


def _refusals(key: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    found = [
        f"other {setting}: {key} has {first['settings'][setting]} and {second['settings'][setting]}"
        for setting in ("frame", "providers")
        if first["settings"][setting] != second["settings"][setting]
    ]
    if first["model"]["sha256"] != second["model"]["sha256"]:
        found.append(
            f"other model: {key} has sha256 {first['model']['sha256'][:12]} and {second['model']['sha256'][:12]}"
        )
    return found


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for key in _TOLD:
        old, new = first.get(key), second.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [
                f"{name}: {old.get(name)} -> {new.get(name)}"
                for name in sorted({*old, *new})
                if old.get(name) != new.get(name)
            ]
        elif old != new:
            found.append(f"{key}: {old} -> {new}")
    return tuple(found)


def _line(
    key: str,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    limit: float,
    metric: str,
    *,
    same_packages: bool,
    cores: int,
) -> Line:
    notes: list[str] = []
    before, after = first["repeats"], second["repeats"]

    def view(of: str, by: str | None = None) -> Ratio:
        return noise.ratio_between(
            noise.logs(before, "edgevision", of, by=by), noise.logs(after, "edgevision", of, by=by)
        )

    raw, fastest = view(metric), view("p5")
    same_yardstick = first["yardstick"] == second["yardstick"]
    yardstick = view(metric, by="yardstick") if same_yardstick else None
    other = _other(first, second, metric, same_packages=same_packages, notes=notes)
    beside = _beside(other, before, after, first["threads"], notes) if other else None
    ways: list[list[Ratio]] = [[beside]] if beside else []
    if not same_yardstick:
        notes.append(f"yardsticks differ ({first['yardstick']}; {second['yardstick']}): not compared in itself")
    if _was_quiet(before, after, cores, notes) and yardstick is not None:
        ways.append([raw, fastest, yardstick])
    verdict = _verdict(limit, ways)
    notes += _doubts(ways, limit, verdict, min(len(before), len(after)))
    return Line(
        candidate=key,
        before_ms=float(first["latency"][f"{metric}_ms"]),
        after_ms=float(second["latency"][f"{metric}_ms"]),
        verdict=verdict,
        raw=raw,
        fastest=fastest,
        yardstick=yardstick,
        beside=beside,
        beside_what=other if beside else None,
        notes=tuple(notes),
    )


def _other(
    first: Mapping[str, Any], second: Mapping[str, Any], metric: str, *, same_packages: bool, notes: list[str]
) -> str | None:
    """What edgevision's time can be held against; None, with a note, where nothing is the same in both files."""
    if metric != "p50":
        notes.append(f"{metric} is compared in itself only; p50 also beside the bare runtime, where noise cancels")
        return None
    if not same_packages:
        notes.append("packages differ: compared in itself only, so the machine's noise does not cancel")
        return None
    if first["model"]["sha256"] == second["model"]["sha256"]:
        return "twin"
    if first["reference"] == second["reference"]:
        return "reference"
    notes.append("models differ, and so do the reference models: compared in itself only")
    return None


def _doubts(ways: Sequence[Sequence[Ratio]], limit: float, verdict: Verdict, repeats: int) -> list[str]:
    found = []
    if repeats < 3:
        found.append("fewer than 3 repeats: how much one process differs from the next is hardly known")
    if not ways:
        found.append("no slowdown could have been found: measure again on a machine with nothing else to do")
    elif verdict == "equal":
        resolution = min(max(view.ratio / view.low for view in way) for way in ways)
        if resolution > 1 + limit:
            hidden = (resolution * (1 + limit) - 1) * 100
            found.append(f"the noise hides slowdowns below about {hidden:.0f} %: measure longer (--duration)")
    return found


def _was_quiet(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], cores: int, notes: list[str]
) -> bool:
    """Whether others left the machine alone in both files; a note where they did not, or where nobody knows."""
    for name, repeats in (("first", before), ("second", after)):
        told = [repeat["others_cores"] for repeat in repeats]
        if any(busy is None for busy in told):
            notes.append(f"the {name} file does not tell what else the machine did: not compared in itself")
            return False
        busy = float(np.median(told))
        if busy > _OTHERS_SHARE * cores:
            notes.append(f"other work kept {busy:.1f} of {cores} cores busy in the {name} file: not compared in itself")
            return False
    return True


def _value_ms(result: Mapping[str, Any], metric: str) -> float:
    return float(result["latency"][f"{metric}_ms"])


def _beside(
    other: str, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], threads: int, notes: list[str]
) -> Ratio | None:
    """How the time beside another loop changed; None, with a note, where that says nothing."""
    first, second = noise.beside(before, other), noise.beside(after, other)
    if first is None or second is None:
        notes.append(f"the {other} was not timed: no bare loop or reference is known for this backend")
        return None
    apart = second.other_ns / first.other_ns
    limit = _APART_ONE_THREAD if threads == 1 and other == "twin" else _APART
    if not 1 / limit <= apart <= limit:
        notes.append(
            f"the {other} itself took {apart:.2f} times as long: one of the two was never measured undisturbed"
        )
        return None
    return noise.ratio_between(first.logs, second.logs)


def _verdict(limit: float, ways: Sequence[Sequence[Ratio]]) -> Verdict:
    if any(all(view.low > 1 + limit for view in way) for way in ways):
        return "regression"
    if any(all(view.high < 1 / (1 + limit) for view in way) for way in ways):
        return "improvement"
    return "equal"
