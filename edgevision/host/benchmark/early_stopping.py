"""MLPerf's early stopping: a percentile that the run is long enough to stand for.

The plain p99 of 300 calls is a guess. MLPerf's SingleStream rule gives instead a latency of which one may say, with 99 %
confidence, that the true percentile is not above it; few calls make it higher, and too few make none at all.

Source of the rule: mlcommons/inference, `loadgen/early_stopping.cc` and `PerformanceSummary::EarlyStopping` in
`loadgen/results.cc`, with their confidence of 0.99 and tolerance of 0. Written anew here, from the binomial distribution
that it rests on; the tests hold answers of the real loadgen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the rule says of a run."""

    percentile: float
    """0-1"""
    calls: int
    needed: int
    """Calls below which there is no estimate."""
    discarded: int | None
    """How many of the slowest calls are left out; None: too few calls."""
    value: float | None
    """The estimate in the unit of the calls; None: too few calls."""


def calls_needed(percentile: float, confidence: float = CONFIDENCE) -> int:
    """The fewest calls that give an estimate: 64 for 0.9, 662 for 0.99."""
    calls = 2
    while _slow_allowed(calls, percentile, confidence) is None:
        calls += 1
    return calls


def estimate(samples: NDArray[np.int64] | NDArray[np.float64], percentile: float) -> Estimate:
    """The early-stopping estimate of a percentile (0-1) of one-dimensional `samples`, in their unit."""
    count = len(samples)
    slow = _slow_allowed(count, percentile, CONFIDENCE)
    return Estimate(
        percentile=percentile,
        calls=count,
        needed=calls_needed(percentile),
        discarded=None if slow is None else slow - 1,
        value=None if slow is None else float(np.partition(samples, count - slow)[count - slow]),
    )


def _slow_allowed(calls: int, percentile: float, confidence: float) -> int | None:
    """The largest t with P(at most t of `calls` are slow) < 1 - confidence, slow having probability 1 - percentile.

    With t calls above a latency, that latency is then at or above the percentile. None where not even t = 1 will do.
    """
    log_fast, log_slow = math.log(percentile), math.log1p(-percentile)
    log_all = math.lgamma(calls + 1)
    chance, allowed = 0.0, -1
    for slow in range(calls + 1):
        log_ways = log_all - math.lgamma(slow + 1) - math.lgamma(calls - slow + 1)
        chance += math.exp(log_ways + slow * log_slow + (calls - slow) * log_fast)
        if chance >= 1 - confidence:
            break
        allowed = slow
    return allowed if allowed >= 1 else None
