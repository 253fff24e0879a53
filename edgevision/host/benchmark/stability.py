"""When a model has warmed up: caches filled, clocks risen, lazy kernels chosen.

The rule: calls are timed in windows; the warm-up ends when the medians of three windows in a row lie within 3 % of each other,
or at a limit. Which of the two it was is in the report, because a machine with other work may never be quiet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgevision.host.benchmark.interleave import Loop, block

WINDOWS, TOLERANCE = 3, 0.03
WINDOW_S, LIMIT_S = 0.1, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """How a warm-up went."""

    stable: bool
    windows: int
    seconds: float


def warm_up(
    call: Callable[[], object],
    *,
    limit_s: float = LIMIT_S,
    now_ns: Callable[[], int] = time.perf_counter_ns,
) -> WarmUp:
    """Call until stable, for at most about `limit_s`."""
    window = Loop(call=call, block_s=min(WINDOW_S, limit_s / 10))
    began_ns = now_ns()
    medians: list[float] = []
    stable = False
    while not stable and (len(medians) < WINDOWS or now_ns() - began_ns < limit_s * 1e9):
        medians.append(float(np.median(block(window, now_ns=now_ns))))
        last = medians[-WINDOWS:]
        stable = len(last) == WINDOWS and max(last) <= min(last) * (1 + TOLERANCE)
    return WarmUp(stable=stable, windows=len(medians), seconds=round((now_ns() - began_ns) / 1e9, 3))
