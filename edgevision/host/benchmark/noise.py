"""Numbers that know how sure they are: ratios of latencies with an interval, from blocks that were measured in turns.

Calls of one block are alike because of one another (a busy neighbour slows them all), and blocks of one process because of
how its memory happened to lie. So what is drawn again, in the bootstrap, is whole repeats (a process each), which hold what
differs between their rounds too; rounds as well only where there are fewer than three repeats; single calls never. With the
few repeats that anybody has patience for, a bootstrap is too sure of itself: it is widened as a t interval is against a normal
one (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 3.8 on samples with levels; Student's t by the
expansion in Abramowitz and Stegun 26.7.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
CONFIDENCE_PERCENT = 95
_Z = 1.959964
"""Of the normal distribution, two-sided 95 %."""

QUIET = 1.15
"""How much longer than the fastest an undisturbed turn may take."""
FLOOR_PERCENT = 5
_LEAST_QUIET = 5
_ENOUGH_REPEATS = 3

Groups = Sequence[NDArray[np.float64]]
"""Logarithms of latencies or of ratios: an array a repeat, a number a round or a turn."""

METRICS: dict[str, Callable[[NDArray[Any]], float]] = {
    "p50": lambda samples: float(np.median(samples)),
    "mean": lambda samples: float(np.mean(samples)),
    "min": lambda samples: float(np.min(samples)),
    "p5": lambda samples: float(np.percentile(samples, 5)),
    "p90": lambda samples: float(np.percentile(samples, 90)),
    "p95": lambda samples: float(np.percentile(samples, 95)),
    "p99": lambda samples: float(np.percentile(samples, 99)),
}
_TAILS = frozenset({"p5", "p90", "p95", "p99", "min"})
"""What a single block has too few calls for: taken over all blocks of a repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as long, with its 95 % interval."""

    ratio: float
    low: float
    high: float

    def document(self) -> dict[str, float]:
        """As JSON."""
        return {"ratio": round(self.ratio, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def logs(repeats: Sequence[dict[str, Any]], loop: str, metric: str, *, by: str | None = None) -> Groups:
    """Logarithms of a loop's metric per repeat and round, in a result's `repeats`; divided by the median of `by`."""
    found = []
    for repeat in repeats:
        rounds = repeat["rounds"]
        blocks = [np.asarray(one[f"{loop}_ns"], np.float64) for one in rounds]
        if metric in _TAILS:
            blocks = [np.concatenate(blocks)]
        values = np.log([METRICS[metric](block) for block in blocks])
        if by is not None:
            others = np.log([np.median(one[f"{by}_ns"]) for one in rounds])
            values = values - (np.median(others) if metric in _TAILS else others)
        found.append(values)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Edgevision beside another loop, call by call."""

    logs: Groups
    """Of edgevision's time over the other's, a repeat each."""
    other_ns: float
    """The other's median: how fast the machine was."""
    quiet_share: float
    """Of all turns, those that nobody disturbed."""


def undisturbed(first_ns: NDArray[Any], second_ns: NDArray[Any], floor_ns: float | None = None) -> NDArray[np.bool_]:
    """Which turns took, both loops together, at most 1.15 times what the fastest took (or `floor_ns`), (turns,).

    By the sum, because choosing by one of the two would bend their ratio.
    """
    both = first_ns + second_ns
    floor = np.percentile(both, FLOOR_PERCENT) if floor_ns is None else floor_ns
    return np.asarray(both <= floor * QUIET)


def beside(repeats: Sequence[dict[str, Any]], other: str) -> Beside | None:
    """Edgevision beside `other`, in the turns that nobody disturbed; in all of them where there are too few of those.

    None where `other` was not timed.
    """
    if any(f"{other}_ns" not in repeat["turns"] for repeat in repeats):
        return None
    both = [
        np.array([repeat["turns"]["edgevision_ns"], repeat["turns"][f"{other}_ns"]], np.float64) for repeat in repeats
    ]
    floor_ns = float(np.percentile(np.concatenate([turns.sum(axis=0) for turns in both]), FLOOR_PERCENT))
    calm = [np.asarray(turns[:, undisturbed(turns[0], turns[1], floor_ns)], np.float64) for turns in both]
    enough = [turns for turns in calm if turns.shape[1] >= _LEAST_QUIET]
    chosen = enough if len(enough) >= max(2, len(both) / 2) else both
    return Beside(
        logs=[np.log(turns[0] / turns[1]) for turns in chosen],
        other_ns=float(np.median([np.median(turns[1]) for turns in chosen])),
        quiet_share=sum(turns.shape[1] for turns in calm) / sum(turns.shape[1] for turns in both),
    )


def ratio_of(values: Groups, *, seed: int = 0) -> Ratio:
    """Of logarithms of ratios that were measured in pairs: the middle one and its interval."""
    drawn = _draw(values, np.random.default_rng(seed))
    return _ratio(_middle(values), drawn, _widening(len(values)))


def ratio_between(before: Groups, after: Groups, *, seed: int = 0) -> Ratio:
    """How many times as long `after` takes as `before`."""
    random = np.random.default_rng(seed)
    drawn = _draw(after, random) - _draw(before, random)
    return _ratio(_middle(after) - _middle(before), drawn, _widening(min(len(before), len(after)), samples=2))


def _middle(groups: Groups) -> float:
    """The mean of the repeats' medians: a disturbed round does not count, every repeat does."""
    return float(np.mean([np.median(group) for group in groups]))


def _draw(groups: Groups, random: np.random.Generator) -> NDArray[np.float64]:
    """The middle of DRAWS samples drawn with replacement, (DRAWS,): of repeats; where there are few, of their rounds too."""
    if len(groups) >= _ENOUGH_REPEATS:
        medians = np.repeat([[np.median(group)] for group in groups], DRAWS, axis=1)
    else:
        medians = np.stack([
            np.median(group[random.integers(0, len(group), (DRAWS, len(group)))], axis=1) for group in groups
        ])  # fmt: skip
    picks = random.integers(0, len(groups), (len(groups), DRAWS))
    return np.asarray(np.take_along_axis(medians, picks, axis=0).mean(axis=0))


def _ratio(middle: float, drawn: NDArray[np.float64], widening: float) -> Ratio:
    tail = (100 - CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(drawn, (tail, 100 - tail)) - np.mean(drawn)
    return Ratio(ratio=math.exp(middle), low=math.exp(middle + low * widening), high=math.exp(middle + high * widening))


def _widening(repeats: int, *, samples: int = 1) -> float:
    """What a bootstrap over so few repeats has to be widened by."""
    if repeats < 2:
        return 2.0  # one process tells nothing of the next; `compare` says so
    freedom = samples * (repeats - 1)
    return math.sqrt(repeats / (repeats - 1)) * _student(freedom) / _Z


def _student(freedom: int) -> float:
    """Student's t, two-sided 95 %."""
    if freedom <= 2:
        return {1: 12.706, 2: 4.303}[freedom]
    z = _Z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
