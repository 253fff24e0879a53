"""Jobs in real processes, short: the protocol, what dies, what hangs, and every kind of job once."""

import sys
import time

import pytest
from benchmark_support import FakeClock

from edgevision.errors import InferenceError, ModelError, UsageError
from edgevision.host.benchmark import child, jobs
from edgevision.host.benchmark.frames import parse_size, scene

JOB = {
    "job": "latency", "model": "efficientnet-lite0", "backend": "onnxrt", "threads": 1, "like": None, "providers": [],
    "size": [320, 240], "duration_s": 0.2, "bare": True, "fps": None,
}  # fmt: skip


def _python(code):
    return (sys.executable, "-c", "import sys, json, os, time\n" + code)


def test_a_latency_job_tells_all_it_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    told: list[dict[str, object]] = []
    found = child.run(JOB, on_line=told.append)
    assert all(ms > 0 for ms in found["cold_start"].values())
    assert found["model"]["name"] == "efficientnet-lite0"
    for one in found["rounds"]:
        assert all(min(one[f"{name}_ns"]) > 0 for name in ("edgevision", "bare", "yardstick"))
    assert len({len(spent) for spent in found["turns"].values()}) == 1
    assert set(found["turns"]) == {"edgevision_ns", "twin_ns", "reference_ns"}
    calls = len(found["stages_ns"]["inference"])
    assert calls >= sum(len(one["edgevision_ns"]) for one in found["rounds"])
    assert found["bare"]["load_ms"] > 0
    assert any(line.get("progress") for line in told)


@pytest.mark.parametrize(("fps", "backend"), [(None, "litert"), (20.0, "onnxrt")])
def test_a_run_alone_tells_memory_and_processor(monkeypatch, tmp_path, fps, backend):
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    told: list[dict[str, object]] = []
    found = child.run({**JOB, "job": "alone", "fps": fps, "backend": backend}, on_line=told.append)
    assert found["cpu_percent_of_a_core"] > 0
    assert found["peak_rss_bytes"] > 20e6
    assert found["latency"]["calls"] >= 1
    assert {"phase": "timed"} in told
    if fps:
        assert found["latency"]["calls"] + found["frames_left_out"] == 4


def test_litert_has_no_profiler_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    assert child.run({**JOB, "job": "profile", "backend": "litert"})["said"].startswith("not available: ")


def test_a_workers_error_is_the_parents_error():
    with pytest.raises(UsageError, match="unknown model 'nonsense'"):
        child.run({**JOB, "model": "nonsense"})
    with pytest.raises(ModelError, match="no file for replay"):
        child.run({**JOB, "backend": "replay"})


def test_a_worker_that_dies_is_told_with_its_last_words():
    with pytest.raises(InferenceError, match=r"ended by SIGKILL; its last words:\nrunning hot"):
        child.run(JOB, command=_python("print('running hot', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"))
    with pytest.raises(InferenceError, match="ended with status 3"):
        child.run(JOB, command=_python("sys.exit(3)"))


def test_a_worker_that_hangs_is_ended():
    began = time.monotonic()
    with pytest.raises(InferenceError, match=r"said nothing for 0\.3 s"):
        child.run(JOB, silence_s=0.3, command=_python("time.sleep(60)"))
    assert time.monotonic() - began < 30


def test_warnings_of_ours_come_through_and_chatter_does_not():
    code = (
        "print('INFO: chatter', file=sys.stderr); print('time=1 level=warning message=x', file=sys.stderr, flush=True)"
    )
    found = child.run(JOB, command=_python(code + "\nprint(json.dumps({'result': {}}), flush=True)"))
    assert found["warnings"] == ["time=1 level=warning message=x"]


def test_paced_frames_come_at_their_time_and_those_a_busy_model_misses_are_counted():
    clock = FakeClock()
    spent, left_out = jobs.paced(lambda: clock.spend(10), 10, 1.0, say=lambda **_line: None, clock=clock)
    assert (len(spent), left_out) == (10, 0)
    assert clock.ns == 2_000_000_000  # began at 1 s, took 1 s
    spent, left_out = jobs.paced(lambda: clock.spend(250), 10, 1.0, say=lambda **_line: None, clock=clock)
    assert len(spent) + left_out == 10
    assert len(spent) == 4  # frames 0, 3, 6, 9


def test_flat_out_does_one_frame_at_least():
    clock = FakeClock()
    told: list[dict[str, float]] = []
    spent = jobs.flat_out(lambda: clock.spend(100), 1.0, say=lambda **line: told.append(line), now_ns=clock)
    assert spent == [100_000_000] * 10
    assert sum(line["progress"] for line in told) == pytest.approx(1.0, abs=0.3)
    assert len(jobs.flat_out(lambda: clock.spend(5000), 1.0, say=lambda **_line: None, now_ns=clock)) == 1


def test_a_scene_is_as_large_as_asked_and_bad_sizes_are_told():
    assert parse_size("1280x720") == (1280, 720)
    assert scene(641, 360).shape == (360, 641, 3)
    for text in ("1280", "0x720", "1280x", "-1x5", "99999x720", "axb", ""):
        with pytest.raises(UsageError, match="--input-size"):
            parse_size(text)
