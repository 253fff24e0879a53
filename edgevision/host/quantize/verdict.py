"""Which candidate is packaged, and what is said of it: in the budget, really integer, and worth it on this machine or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgevision.host.quantize.search import Gate, Tried
from edgevision.host.quantize.targets import Target

_NOTHING = 0.005
"""Points that two decimals do not show."""
_TIE = 0.25
"""Share of the budget within which two candidates are as accurate as each other: a choice by less would be a choice by the
noise of a few hundred pictures."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What came out."""

    chosen: Tried | None
    """What is packaged; None where the model is refused."""
    allowed: bool
    """Whether it is packaged only because the user allowed what the gate refuses."""
    problems: tuple[str, ...]
    """Why nothing may be packaged, or what the user allowed."""
    remarks: tuple[str, ...]
    """What a user must know, in plain words."""


def judge(
    tried: Sequence[Tried],
    gate: Gate,
    target: Target,
    *,
    here: bool,
    allow_drop: bool,
    caveats: Sequence[str] = (),
) -> Verdict:
    """Choose.

    Of the integer candidates that the gate lets through, those come first that are as accurate as the best one, within a
    quarter of the budget. Where this machine is the target, they must not be slower than float, and the fastest is taken;
    elsewhere the one with the most integers.

    Args:
        tried: every candidate, spared layers included.
        gate: budget and share of integers.
        target: the device.
        here: whether latency that was measured here is latency there.
        allow_drop: package the best one in any case.
        caveats: what this machine cannot show, said of whatever is packaged.
    """
    integer = [one for one in tried if one.kind == "int8"]
    passing = [one for one in integer if not gate.problems(one)]
    if passing:
        chosen = _best(passing, gate, here=here)
        return Verdict(
            chosen=chosen,
            allowed=False,
            problems=(),
            remarks=(*_remarks(chosen, tried, gate, target, here=here), *caveats),
        )
    made = [one for one in integer if one.drop is not None]
    problems = [f"{one.name}: {'; '.join(gate.problems(one))}" for one in integer]
    if not made or not allow_drop:
        return Verdict(chosen=None, allowed=False, problems=tuple(problems), remarks=())
    chosen = min(made, key=lambda one: (len(gate.problems(one)) > 1, one.drop))
    return Verdict(
        chosen=chosen,
        allowed=True,
        problems=tuple(gate.problems(chosen)),
        remarks=(*_remarks(chosen, tried, gate, target, here=here), *caveats),
    )


def _best(passing: Sequence[Tried], gate: Gate, *, here: bool) -> Tried:
    pool = list(passing)
    if here:
        pool = [one for one in pool if one.latency is not None and not one.latency.slower] or pool
    least = min(one.drop or 0.0 for one in pool)
    even = [one for one in pool if (one.drop or 0.0) <= least + _TIE * gate.max_drop]
    if here:
        return min(even, key=lambda one: one.latency.ratio if one.latency is not None else 1.0)
    return min(even, key=lambda one: (-one.integers.share if one.integers is not None else 0.0, one.drop or 0.0))


def _remarks(chosen: Tried, tried: Sequence[Tried], gate: Gate, target: Target, *, here: bool) -> list[str]:
    """Plain words; the report and the terminal say the same."""
    found = []
    latency = chosen.latency
    lost = f"{chosen.drop:.2f} points less" if (chosen.drop or 0) >= _NOTHING else "no accuracy lost"
    if latency is not None:
        place = "" if here else f"; this machine is no device of target {target.name}: measure it there"
        if latency.faster:
            found.append(f"the 8-bit model is {1 / latency.ratio:.2f} times as fast as float here, with {lost}{place}")
        elif latency.slower:
            advice = f": for this machine take the float model instead{_faster(tried, gate)}" if here else ""
            found.append(
                f"slower here: the 8-bit model takes {latency.ratio:.2f} times as long as float{place}{advice}"
            )
        else:
            advice = ": on this machine 8 bits gain size, not speed" if here else ""
            found.append(f"the 8-bit model is as fast as float here, within what can be measured{place}{advice}")
    if chosen.attempt.spared:
        found.append(f"{len(chosen.attempt.spared)} layers stay float: {', '.join(chosen.attempt.spared)}")
    return found


def _faster(tried: Sequence[Tried], gate: Gate) -> str:
    """A faster candidate that only the budget refuses is worth naming."""
    faster = [
        one
        for one in tried
        if one.kind == "int8" and one.latency is not None and one.latency.faster and one.drop is not None
    ]
    if not faster:
        return ""
    best = min(faster, key=lambda one: one.drop or 0.0)
    return f" (the best that is faster, {best.name}, loses {best.drop:.2f} points, {gate.max_drop:g} are allowed)"
