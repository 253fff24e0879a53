"""A few hundred spoiled files of each kind, the same ones every time; `benchmarks/fuzz.py --count 10000` is the long form.

A runtime may crash on a spoiled model: then the prober, asked by this process, must refuse it in good order. What is ours
may not crash: our own parsers, and what goes around the runtimes.
"""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
fuzz = importlib.import_module("fuzz")
kinds = importlib.import_module("fuzz_kinds")


@pytest.mark.parametrize("kind", ["bundle", "picture", "manifest"])
def test_spoiled_files_give_a_result_or_one_of_our_errors(kind):
    tally = fuzz.results(kind, iter(range(300)))
    assert tally.cases == 300
    assert set(tally.outcomes) == {"result", "refused"}, tally.document()


@pytest.mark.parametrize(("kind", "runtime"), [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")])
def test_spoiled_models_give_a_result_or_one_of_our_errors_or_are_contained(kind, runtime):
    pytest.importorskip(runtime)
    pytest.importorskip("onnx")
    tally = fuzz.results(kind, iter(range(1, 240)))
    assert tally.cases == 239
    assert set(tally.outcomes) <= {"result", "refused", "contained"}, tally.document()
    assert tally.outcomes["result"] >= 10  # that not everything is refused at the door
    assert tally.outcomes["refused"] >= 100
    assert tally.outcomes["contained"] <= 10


def test_a_case_is_the_same_every_time_and_a_crash_a_hang_and_a_hog_are_seen(monkeypatch):
    kind = kinds.Kind(seeds=(b"seed" * 20,), real=None, try_it=lambda content: None)
    assert [kind.case("x", number) for number in range(20)] == [kind.case("x", number) for number in range(20)]
    assert len({kind.case("x", number) for number in range(20)}) > 15
    monkeypatch.setattr(fuzz, "DEADLINE_S", 1.0)
    with fuzz.Worker("manifest") as worker:
        worker._process.kill()
        assert worker.ask(0) is None
        assert worker.end()["detail"].startswith("SIGKILL")
    with fuzz.Worker("manifest") as worker:
        worker._process.send_signal(19)  # SIGSTOP: it answers no more
        assert worker.ask(0) is None
        assert worker.end()["outcome"] == "hang"
