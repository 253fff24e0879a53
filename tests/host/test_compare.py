"""Whether a model became slower: on machines that have noise, drift, neighbours, and other machines' files."""

import copy
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmark"))

from benchmark_support import document as whole_document
from benchmark_support import result

from edgevision.errors import UsageError
from edgevision.host import compare
from edgevision.host.benchmark import document


@pytest.fixture
def against(tmp_path):
    """Write two results and compare them."""

    def call(first, second, *, limit=0.05, **more):
        for name, content in (("a.json", first), ("b.json", second)):
            document.write(tmp_path / name, content)
        return compare.compare_files(tmp_path / "a.json", tmp_path / "b.json", limit=limit, **more)

    return call


def _verdicts(against, tries, *, before=None, after=None):
    found = []
    for seed in range(tries):
        first = whole_document(result(seed=seed, **(before or {})))
        second = whole_document(result(seed=1000 + seed, **(after or {})))
        found.append(against(first, second).lines[0].verdict)
    return found


QUIET, NEIGHBOUR = {"others": 0.0}, {"others": 1.0, "machine_speed": 1.4, "noise": 0.05}


@pytest.mark.parametrize(
    ("before", "after"),
    [(QUIET, QUIET), (NEIGHBOUR, NEIGHBOUR), (QUIET, NEIGHBOUR), (NEIGHBOUR, QUIET)],
    ids=["quiet", "noisy", "noise came", "noise went"],
)
def test_the_same_model_twice_is_equal(against, before, after):
    assert _verdicts(against, 20, before=before, after=after).count("equal") >= 19


@pytest.mark.parametrize(("before", "after"), [(QUIET, QUIET), (NEIGHBOUR, NEIGHBOUR), (QUIET, NEIGHBOUR)])
def test_ten_percent_that_edgevision_adds_are_found(against, before, after):
    slower = {**after, "ours_ms": 11.0}
    assert _verdicts(against, 20, before=before, after=slower).count("regression") >= 19


def test_ten_percent_that_the_runtime_adds_are_found_on_a_quiet_machine_only(against):
    slower = {"ours_ms": 11.0, "twin_ms": 9.9}
    assert _verdicts(against, 20, before=QUIET, after={**QUIET, **slower}).count("regression") >= 19
    assert _verdicts(against, 5, before=NEIGHBOUR, after={**NEIGHBOUR, **slower}) == ["equal"] * 5


def test_a_slower_machine_is_no_slower_model_and_a_faster_model_is_told(against):
    assert _verdicts(against, 5, after={"machine_speed": 1.12}) == ["equal"] * 5
    assert _verdicts(against, 5, after={"ours_ms": 9.0}) == ["improvement"] * 5


def test_a_slowdown_below_the_limit_is_no_regression(against):
    first, second = whole_document(result(seed=1)), whole_document(result(seed=2, ours_ms=10.8))
    assert [line.verdict for line in against(first, second, limit=0.1).lines] == ["equal"]
    assert [line.verdict for line in against(first, second, limit=0.04).lines] == ["regression"]


def test_what_could_not_have_been_found_is_said(against):
    wild = {"noise": 0.5, "others": 1.0, "machine_speed": 3.0, "repeats": 2}
    line = against(whole_document(result(seed=1)), whole_document(result(seed=2, **wild))).lines[0]
    assert line.verdict == "equal"
    assert line.beside is None
    told = " ".join(line.notes)
    for part in (
        "other work kept 1.0 of",
        "the twin itself took",
        "no slowdown could have been found",
        "fewer than 3 repeats",
    ):
        assert part in told
    noisy = {"noise": 0.3, "others": 1.0}
    line = against(whole_document(result(seed=1, **noisy)), whole_document(result(seed=2, **noisy))).lines[0]
    assert "the noise hides slowdowns below about" in " ".join(line.notes)


def _edit(content, **changes):
    found = copy.deepcopy(content)
    for path, value in changes.items():
        target = found
        *way, last = path.split("__")
        for key in way:
            target = target[int(key) if key.isdigit() else key]
        target[last] = value
    return found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"environment__cpu": "Another"}, r"other machine: cpu is .* in .*a\.json and Another in .*b\.json.*--force"),
        ({"environment__cores": 999}, "other machine: cores is"),
        (
            {"results__0__model__sha256": "b" * 64},
            "other model: m onnxrt 1 thread has sha256 aaaaaaaaaaaa and bbbbbbbbbbbb",
        ),
        ({"results__0__settings__frame": "640x480"}, "other frame: m onnxrt 1 thread has 1280x720 and 640x480"),
    ],
)
def test_files_that_cannot_be_compared_say_why_and_can_be_forced(against, changes, why):
    first = whole_document(result())
    with pytest.raises(UsageError, match=why):
        against(first, _edit(first, **changes))
    found = against(first, _edit(first, **changes), force=True)
    assert found.lines[0].verdict == "equal"
    assert found.differences


def test_another_model_is_compared_beside_the_reference(against):
    first = whole_document(result(seed=1, **NEIGHBOUR))
    other = _edit(
        whole_document(result(seed=2, ours_ms=11.5, twin_ms=10.4, **NEIGHBOUR)), results__0__model__sha256="b" * 64
    )
    line = against(first, other, force=True).lines[0]
    assert (line.verdict, line.beside_what) == ("regression", "reference")
    without = _edit(other, results__0__reference="another")
    assert against(first, without, force=True).lines[0].beside is None


def test_other_packages_are_told_and_noise_then_does_not_cancel(against):
    first = whole_document(result(seed=1))
    second = _edit(
        whole_document(result(seed=2)), environment__packages={"onnxruntime": "99"}, environment__governor="ondemand"
    )
    found = against(first, second)
    assert any("onnxruntime" in entry and "99" in entry for entry in found.differences)
    assert any("governor" in entry for entry in found.differences)
    assert found.lines[0].beside is None
    assert any("packages differ" in note for note in found.lines[0].notes)


def test_an_edited_broken_or_foreign_file_is_refused(against):
    good = whole_document(result())
    with pytest.raises(UsageError, match="the file has been edited"):
        against(good, _edit(good, results__0__latency__p50_ms=1.0))
    broken = copy.deepcopy(good)
    del broken["results"][0]["repeats"][0]["turns"]
    with pytest.raises(UsageError, match=r"b\.json: results\[0\] is not whole"):
        against(good, broken)
    with pytest.raises(UsageError, match=r"nothing to compare: .*m onnxrt 1 thread.*m onnxrt 2 threads"):
        against(good, _edit(good, results__0__threads=2))


def test_other_metrics_are_compared_in_themselves(against):
    first = whole_document(result(seed=1))
    slower = whole_document(result(seed=2, ours_ms=12.0))
    for metric in compare.METRICS:
        assert against(first, slower, metric=metric).regressions, metric
    with pytest.raises(UsageError, match="unknown metric 'p51'"):
        against(first, slower, metric="p51")


def test_candidates_of_one_file_only_are_named_and_the_comparison_is_json(against):
    first = whole_document(result(), {**result(), "threads": 2})
    found = against(first, whole_document(result(seed=3)))
    assert found.only_in_one == ("m onnxrt 2 threads",)
    told = json.loads(json.dumps(found.document()))
    assert told["schema"] == "edgevision/comparison/1"
    assert told["lines"][0]["beside"]["low"] <= told["lines"][0]["beside"]["high"]


@pytest.mark.parametrize(("text", "limit"), [("5%", 0.05), ("5", 0.05), (" 2.5 %", 0.025)])
def test_limits(text, limit):
    assert compare.parse_percent(text) == pytest.approx(limit)


@pytest.mark.parametrize("text", ["", "x", "-5%", "0", "nan", "inf", "5%%"])
def test_limits_that_are_none(text):
    with pytest.raises(UsageError, match="--fail-on"):
        compare.parse_percent(text)
