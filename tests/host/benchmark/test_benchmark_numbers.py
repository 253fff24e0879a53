"""Percentiles, MLPerf's rule, ratios with intervals, warm-up and turns: numbers that others must agree with."""

from functools import partial

import numpy as np
import pytest
from benchmark_support import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.host.benchmark import figures, noise
from edgevision.host.benchmark.early_stopping import calls_needed, estimate
from edgevision.host.benchmark.interleave import (
    LEAST_CALLS,
    LEAST_TURNS,
    LONGEST,
    SETTLING_CALLS,
    Loop,
    block,
    rounds,
    turns,
)
from edgevision.host.benchmark.stability import warm_up

# Answers of the real loadgen (mlcommons-loadgen 6.0.17, SingleStream, single_stream_target_latency_percentile as given,
# min_query_count = max_query_count = calls): "Would discard N highest latency queries", or "Need to process at least N".
LOADGEN_DISCARDS = {
    0.5: {
        20: 3,
        63: 20,
        64: 21,
        100: 36,
        130: 50,
        300: 128,
        700: 317,
        1000: 461,
        3000: 1434,
        10000: 4882,
        24576: 12104,
    },
    0.9: {
        64: 0,
        100: 2,
        130: 4,
        300: 17,
        459: 30,
        661: 47,
        700: 50,
        1000: 77,
        1500: 122,
        3000: 260,
        10000: 929,
        24576: 2347,
    },
    0.95: {130: 0, 300: 5, 459: 11, 661: 19, 700: 20, 1000: 33, 1500: 54, 3000: 121, 10000: 448, 24576: 1148},
    0.99: {662: 0, 700: 0, 1000: 1, 1500: 5, 3000: 16, 10000: 76, 24576: 208},
}
LOADGEN_NEEDS = {0.5: 11, 0.9: 64, 0.95: 130, 0.99: 662}


@pytest.mark.parametrize(
    ("percentile", "calls", "discarded"),
    [(percentile, calls, answer) for percentile, row in LOADGEN_DISCARDS.items() for calls, answer in row.items()],
)
def test_early_stopping_is_what_loadgen_answers(percentile, calls, discarded):
    samples = np.random.default_rng(calls).permutation(calls) * 1000
    found = estimate(samples, percentile)
    assert found.discarded == discarded
    assert found.value == np.sort(samples)[calls - 1 - discarded]  # loadgen: sorted[calls - t], t = discarded + 1


@pytest.mark.parametrize(("percentile", "needed"), LOADGEN_NEEDS.items())
def test_too_few_calls_have_no_estimate_and_say_how_many_are_needed(percentile, needed):
    assert calls_needed(percentile) == needed
    found = estimate(np.arange(needed - 1), percentile)
    assert (found.value, found.discarded, found.needed) == (None, None, needed)
    assert estimate(np.arange(needed), percentile).value is not None


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=700, max_size=900))
def test_an_estimate_is_one_of_the_calls_and_not_below_the_plain_percentile(samples):
    values = np.array(samples)
    for percentile in (0.9, 0.99):
        found = estimate(values, percentile)
        assert found.value in samples
        assert found.value >= np.percentile(values, 100 * percentile, method="lower")


def test_a_summary_is_numpys():
    samples = np.random.default_rng(1).lognormal(16, 0.3, 5000).astype(np.int64)
    found = figures.summary(samples)
    for percent in (50, 90, 95, 99):
        assert found[f"p{percent}_ms"] == pytest.approx(np.percentile(samples, percent) / 1e6, abs=1e-4)
    assert found["mean_ms"] == pytest.approx(samples.mean() / 1e6, abs=1e-4)
    assert found["std_ms"] == pytest.approx(samples.std() / 1e6, abs=1e-4)
    assert found["calls"] == 5000
    assert found["min_ms"] == pytest.approx(samples.min() / 1e6, abs=1e-4)
    assert found["max_ms"] == pytest.approx(samples.max() / 1e6, abs=1e-4)
    assert figures.mlperf(samples[:100])["p99"]["value_ms"] is None
    assert figures.mlperf(samples)["p99"]["value_ms"] >= found["p99_ms"]


def test_students_t_is_the_tables():
    for freedom, value in {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 8: 2.306, 10: 2.228, 30: 2.042}.items():
        assert noise._student(freedom) == pytest.approx(value, rel=0.012)


@pytest.mark.parametrize("repeats", [3, 5, 6, 10])
def test_an_interval_holds_the_truth_as_often_as_it_says(repeats):
    """Repeats differ by more than their rounds do, and neighbouring rounds are alike (an AR(1) process)."""
    random = np.random.default_rng(repeats)

    def groups(shift):
        found = []
        for _ in range(repeats):
            wander = [0.0]
            for _ in range(7):
                wander.append(0.8 * wander[-1] + random.normal(0, 0.02))
            found.append(shift + random.normal(0, 0.02) + np.array(wander))
        return found

    held = 0
    for seed in range(200):
        found = noise.ratio_between(groups(0.0), groups(np.log(1.1)), seed=seed)
        held += found.low <= 1.1 <= found.high
    assert held >= 182  # 95 % of 200 is 190; fewer than 182 come by chance once in 10,000


def test_a_ratio_of_one_repeat_is_unsure_and_of_none_disturbed_is_exact():
    assert noise.ratio_of([np.log(np.full(8, 1.2))] * 4).document() == {"ratio": 1.2, "low": 1.2, "high": 1.2}
    few, many = ([np.random.default_rng(seed).normal(0, 0.05, 8) for seed in range(count)] for count in (1, 6))
    assert noise.ratio_of(few).high > noise.ratio_of(many).high


def test_disturbed_turns_do_not_count():
    random = np.random.default_rng(0)
    repeats = []
    for _ in range(4):
        twin = random.normal(9e6, 1e5, 60)
        ours = twin * 1.2
        ours[::3] *= 2  # a neighbour took the core away, now and then, and only from one of the two
        repeats.append({"turns": {"edgevision_ns": ours.tolist(), "twin_ns": twin.tolist()}})
    found = noise.beside(repeats, "twin")
    assert found is not None
    assert noise.ratio_of(found.logs).ratio == pytest.approx(1.2, rel=1e-6)
    assert found.quiet_share == pytest.approx(2 / 3, abs=0.01)
    assert noise.beside(repeats, "reference") is None


def test_a_block_settles_first_and_has_calls_enough_however_slow_they_are():
    clock = FakeClock()
    spans = iter([50, 50, *[100] * LEAST_CALLS])
    spent = block(Loop(call=lambda: clock.spend(next(spans)), block_s=0.05, settle_s=0.0), now_ns=clock)
    assert spent.tolist() == [100_000_000] * LEAST_CALLS
    began_ns = clock.ns
    block(Loop(call=lambda: clock.spend(10), block_s=0.01, settle_s=0.1), now_ns=clock)
    assert clock.ns - began_ns == (10 + LEAST_CALLS) * 10_000_000


def test_rounds_time_every_loop_in_order_and_tell_what_they_took():
    clock = FakeClock()
    order: list[str] = []
    told: list[float] = []

    def loop(name, ms):
        def call():
            order.append(name)
            clock.spend(ms)

        return Loop(call=call, block_s=0.02)

    found = rounds({"a": loop("a", 5), "b": loop("b", 10)}, 0.3, on_round=told.append, now_ns=clock)
    assert {key: set(one.samples_ns[key]) for one in found for key in "ab"} == {"a": {5_000_000}, "b": {10_000_000}}
    assert order[: SETTLING_CALLS + 4] == ["a"] * (SETTLING_CALLS + 4)
    assert sum(told) == pytest.approx(0.3, abs=0.1)


def test_turns_change_who_goes_first_and_go_on_while_disturbed():
    clock = FakeClock()
    order: list[str] = []

    def call(name, ms):
        order.append(name)
        clock.spend(ms)

    calls = [partial(call, "a", 1), partial(call, "b", 2)]
    found = turns(calls, 0.1, now_ns=clock)
    assert "".join(order).startswith("abbaabba")
    assert {tuple(row) for row in found.tolist()} == {(1_000_000, 2_000_000)}
    longer = turns(calls, 0.1, enough=lambda _spent: False, now_ns=clock)
    assert len(longer) == pytest.approx(LONGEST * len(found), rel=0.2)
    assert len(turns([lambda: clock.spend(500)], 0.1, now_ns=clock)) == LEAST_TURNS - SETTLING_CALLS


def test_a_warm_up_ends_when_stable_or_at_its_limit():
    clock = FakeClock()
    slow = iter([30, 20, 15, 12, 11])
    found = warm_up(lambda: clock.spend(next(slow, 10)), now_ns=clock)
    assert found.stable
    assert found.seconds < 1.0
    wild = np.random.default_rng(0)
    never = warm_up(lambda: clock.spend(wild.choice([1, 9])), limit_s=0.5, now_ns=clock)
    growing = iter(range(1, 10**6))
    rising = warm_up(lambda: clock.spend(next(growing)), limit_s=2.0, now_ns=clock)
    assert not rising.stable
    assert rising.seconds >= 2.0
    assert never.windows >= 3
