"""What is packaged, what is refused, and what is said of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.host.quantize.latency import Latency
from edgevision.host.quantize.search import Gate, Tried, nearest
from edgevision.host.quantize.targets import TARGETS
from edgevision.host.quantize.verdict import judge
from edgevision.host.quantize.workshop import Attempt, IntegerShare

GATE = Gate(max_drop=1.0, least_share=0.9)
X86 = TARGETS["x86"]


def tried(name, drop, ratio=0.7, *, kind="int8", integer=10, failure=None, spared=()):
    return Tried(
        attempt=Attempt(name=name, kind=kind, parameters={}, make=bytes, spared=tuple(spared)),
        seconds=1,
        failure=failure,
        drop=drop,
        integers=IntegerShare(integer=integer, total=10, operators={}),
        latency=Latency(float_ms=10, ms=10 * ratio, ratio=ratio, low=ratio - 0.02, high=ratio + 0.02, threads=1),
    )


def name_of(verdict):
    return None if verdict.chosen is None else verdict.chosen.name


def test_the_most_accurate_that_is_not_slower_is_packaged():
    found = judge(
        [tried("slow", 0.1, 1.5), tried("good", 0.5), tried("worse", 0.9)], GATE, X86, here=True, allow_drop=False
    )
    assert name_of(found) == "good"
    assert "1.43 times as fast as float here, with 0.50 points less" in found.remarks[0]


def test_what_the_machine_cannot_show_is_said_last():
    found = judge([tried("good", 0.5)], GATE, X86, here=True, allow_drop=False, caveats=("not on that one",))
    assert found.remarks[1:] == ("not on that one",)


def test_of_two_that_are_as_accurate_the_faster_one():
    found = judge([tried("one", 0.50, 0.8), tried("two", 0.70, 0.6)], GATE, X86, here=True, allow_drop=False)
    assert name_of(found) == "two"


def test_one_that_is_slower_is_packaged_with_the_words_slower_here_and_float_recommended():
    fast = tried("fast", 3.0, 0.8)
    found = judge([tried("slow", 0.1, 1.9), fast], GATE, X86, here=True, allow_drop=False)
    assert name_of(found) == "slow"
    assert "slower here: the 8-bit model takes 1.90 times as long as float" in found.remarks[0]
    assert "take the float model instead" in found.remarks[0]
    assert "fast, loses 3.00 points, 1 are allowed" in found.remarks[0]


def test_elsewhere_speed_here_does_not_choose():
    found = judge(
        [tried("slow", 0.1, 1.9), tried("fast", 0.9, 0.5)], GATE, TARGETS["arm64"], here=False, allow_drop=False
    )
    assert name_of(found) == "slow"
    assert "this machine is no device of target arm64" in found.remarks[0]


def test_over_the_budget_nothing_is_packaged_and_each_reason_is_told():
    found = judge(
        [tried("bad", 1.2), tried("broken", None, failure="no kernel")], GATE, X86, here=True, allow_drop=False
    )
    assert found.chosen is None
    assert found.problems == ("bad: loses 1.20 points, 1 are allowed", "broken: no kernel")


def test_exactly_the_budget_is_within_it():
    assert judge([tried("edge", 1.0)], GATE, X86, here=True, allow_drop=False).chosen is not None


def test_too_few_integers_are_refused():
    found = judge([tried("float inside", 0.1, integer=8)], GATE, X86, here=True, allow_drop=False)
    assert found.problems == ("float inside: only 8 of 10 convolutions run as integers, 90% are asked for",)


def test_allow_drop_packages_the_best_and_says_so():
    found = judge([tried("worse", 5.0), tried("bad", 1.2)], GATE, X86, here=True, allow_drop=True)
    assert name_of(found) == "bad"
    assert found.allowed
    assert found.problems == ("loses 1.20 points, 1 are allowed",)


def test_allow_drop_cannot_package_what_was_never_made():
    assert judge([tried("broken", None, failure="x")], GATE, X86, here=True, allow_drop=True).chosen is None


def test_float16_is_never_packaged_as_8_bit():
    assert judge([tried("half", 0.0, kind="float16")], GATE, X86, here=True, allow_drop=True).chosen is None


def test_spared_layers_are_named():
    found = judge([tried("one", 0.2, spared=("conv_7",))], GATE, X86, here=True, allow_drop=False)
    assert "1 layers stay float: conv_7" in found.remarks


@pytest.mark.parametrize("drops", [[3.0, 2.0], [2.0, 3.0]])
def test_the_nearest_lost_the_least(drops):
    found = nearest([tried(str(drop), drop) for drop in drops], GATE)
    assert found is not None
    assert found.drop == 2.0


def test_the_nearest_runs_as_integers_if_any_does():
    found = nearest([tried("float inside", 0.1, integer=2), tried("integer", 4.0)], GATE)
    assert found is not None
    assert found.name == "integer"


drops = st.floats(-5, 50)
ratios = st.floats(0.1, 5)


@given(st.lists(st.tuples(drops, ratios, st.integers(0, 10)), max_size=6), st.booleans(), st.booleans())
def test_nothing_over_the_budget_is_packaged_unless_it_is_allowed(rows, here, allow):
    attempts = [tried(str(place), drop, ratio, integer=whole) for place, (drop, ratio, whole) in enumerate(rows)]
    found = judge(attempts, GATE, X86, here=here, allow_drop=allow)
    if found.chosen is not None:
        assert found.allowed == bool(GATE.problems(found.chosen))
        assert allow or not found.allowed
    else:
        assert all(GATE.problems(one) for one in attempts)


def test_elsewhere_the_one_with_more_integers_if_it_is_as_accurate():
    spared, whole = tried("spared", 0.1, integer=9), tried("whole", 0.2)
    found = judge([spared, whole], GATE, TARGETS["arm64"], here=False, allow_drop=False)
    assert name_of(found) == "whole"
    worse = tried("whole", 0.4)
    assert name_of(judge([spared, worse], GATE, TARGETS["arm64"], here=False, allow_drop=False)) == "spared"
