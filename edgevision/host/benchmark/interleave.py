"""Loops timed in turns, so that a machine whose speed wanders wanders for all of them: in blocks, or call by call.

Blocks give the figures of the report, with caches as warm as in a run alone. Turns tell the smallest differences: on two cores
with others' work on them, two loops of the same INT8 model with two threads, 80 calls each in 2.5 s, wandered from run to run
by 27 % (standard deviation of the median), their ratio of medians by 3 %, the median of the ratios of neighbours by 0.7 %.

Why blocks and not call by call: threads of the session that ran last go on spinning. ONNX Runtime's own default burns 42 to
50 ms of CPU after the last call (two threads, measured), and would slow whatever runs next. So a block that follows such a
session begins with calls that are not counted, for as long as its threads may spin. The order is fixed, so that it is known
who follows whom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SETTLING_CALLS = 2
SETTLING_S = 0.1
"""How long another session's threads may spin: twice what was measured, for a machine that has other work too."""
LEAST_CALLS = 3
"""Timed calls in a block, however slow they are."""
BLOCK_S = 0.1
LEAST_ROUNDS = 2
LEAST_TURNS = 8
LONGEST = 3.0
"""Times the asked seconds that turns may take on a machine that is disturbed."""
_ASK_EVERY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Something that is timed."""

    call: Callable[[], object]
    block_s: float = BLOCK_S
    """Timed seconds in a block."""
    settle_s: float = 0.0
    """Seconds before them that are not timed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """Every loop's block once."""

    at_ns: int
    """Since the first round began."""
    samples_ns: dict[str, NDArray[np.int64]]
    """Per loop the latency of every timed call, (calls,)"""


def settling_s(threads: int) -> float:
    """One thread leaves nobody spinning."""
    return SETTLING_S if threads > 1 else 0.0


def block(loop: Loop, *, now_ns: Callable[[], int] = time.perf_counter_ns) -> NDArray[np.int64]:
    """One block: nanoseconds of every timed call, (calls,)."""
    call, began_ns, calls = loop.call, now_ns(), 0
    while calls < SETTLING_CALLS or now_ns() - began_ns < loop.settle_s * 1e9:
        call()
        calls += 1
    until_ns = now_ns() + loop.block_s * 1e9
    spent: list[int] = []
    done_ns = 0
    while len(spent) < LEAST_CALLS or done_ns < until_ns:
        started_ns = now_ns()
        call()
        done_ns = now_ns()
        spent.append(done_ns - started_ns)
    return np.array(spent, np.int64)


def rounds(
    loops: Mapping[str, Loop],
    seconds: float,
    *,
    on_round: Callable[[float], None] = lambda _s: None,
    now_ns: Callable[[], int] = time.perf_counter_ns,
) -> list[Round]:
    """Rounds of blocks, in the loops' order, for about `seconds`, at least two; `on_round` is told how many each took."""
    began_ns = now_ns()
    found: list[Round] = []
    while len(found) < LEAST_ROUNDS or now_ns() - began_ns < seconds * 1e9:
        at_ns = now_ns() - began_ns
        samples_ns = {name: block(loop, now_ns=now_ns) for name, loop in loops.items()}
        found.append(Round(at_ns=at_ns, samples_ns=samples_ns))
        on_round((now_ns() - began_ns - at_ns) / 1e9)
    return found


def turns(
    calls: Sequence[Callable[[], object]],
    seconds: float,
    *,
    enough: Callable[[NDArray[np.int64]], bool] = lambda _spent: True,
    now_ns: Callable[[], int] = time.perf_counter_ns,
) -> NDArray[np.int64]:
    """Nanoseconds of each, call by call, (turns, calls); who goes first changes. None may spin on.

    Takes about `seconds`, and up to three times as long while `enough` says no of what there is; it is asked now and then.
    """
    count = len(calls)
    spent: list[list[int]] = []
    began_ns = done_ns = now_ns()
    while True:
        used = (done_ns - began_ns) / (seconds * 1e9)
        if len(spent) >= LEAST_TURNS and (
            used >= LONGEST or (used >= 1 and len(spent) % _ASK_EVERY == 0 and enough(np.array(spent, np.int64)))
        ):
            break
        row = [0] * count
        for place in range(count):
            which = (place + len(spent)) % count
            started_ns = now_ns()
            calls[which]()
            done_ns = now_ns()
            row[which] = done_ns - started_ns
        spent.append(row)
    return np.array(spent[SETTLING_CALLS:], np.int64)
