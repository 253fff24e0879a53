"""A machine made of files, a clock that tests own, and results made of chosen latencies."""

import numpy as np

from edgevision.host.benchmark import machine
from edgevision.host.benchmark.candidate import measure
from edgevision.host.benchmark.settings import Candidate, Settings

ENVIRONMENT = machine.environment()


def put(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class FakeClock:
    """Time that moves only when somebody waits or a call takes it."""

    def __init__(self):
        self.ns = 1_000_000_000

    def __call__(self):
        return self.ns

    monotonic_ns = time_ns = __call__

    def wait(self, event, seconds):
        self.ns += round(seconds * 1e9)
        return event.is_set()

    def spend(self, ms):
        self.ns += round(ms * 1e6)


def repeat(random, *, ours_ms=10.0, twin_ms=9.0, machine_speed=1.0, others=0.0, rounds=4, turns=40, noise=0.02):
    """One process's measurement; `machine_speed` above 1 is a slower machine."""

    def spent(ms, count):
        slow = machine_speed * np.exp(random.normal(0, noise, count))
        return (ms * 1e6 * slow).astype(int).tolist()

    shared = machine_speed * np.exp(random.normal(0, 0.1, turns))  # turns share the machine's moment
    in_turn = {
        f"{name}_ns": (ms * 1e6 * shared * np.exp(random.normal(0, noise, turns))).astype(int).tolist()
        for name, ms in (("edgevision", ours_ms), ("twin", twin_ms), ("reference", 5.0))
    }
    return {
        "model": {"name": "m", "version": "1", "sha256": "a" * 64},
        "backend": "onnxrt",
        "cold_start": {
            "process_ms": 20.0,
            "import_ms": 200.0,
            "load_ms": 50.0,
            "first_frame_ms": 9.0,
            "total_ms": 279.0,
        },
        "bare": {"load_ms": 30.0, "first_inference_ms": 12.0},
        "warm_up": {"stable": True, "windows": 3, "seconds": 0.3},
        "yardstick": "y 1",
        "reference": "r 1",
        "others_cores": others,
        "turns": in_turn,
        "rounds": [
            {
                "at_s": 0.1 * n,
                "edgevision_ns": spent(ours_ms, 20),
                "bare_ns": spent(twin_ms, 20),
                "yardstick_ns": spent(1, 20),
            }
            for n in range(rounds)
        ],
        "stages_ns": {name: spent(1, 20) for name in ("preprocess", "inference", "decode", "publish")},
        "capture_decode_ns": spent(3, 5),
    }


def alone(fps=None):
    return {
        "fps_asked": fps, "fps": fps or 100.0, "frames_left_out": 0, "seconds": 1.0,
        "latency": {"calls": 10, "p50_ms": 10.0, "p99_ms": 11.0},
        "cpu_percent_of_a_core": 99.0, "cpu_ms_per_frame": 9.9,
        "peak_rss_bytes": 10**8, "rss_bytes": 10**8, "pss_bytes": 9 * 10**7,
    }  # fmt: skip


def result(seed=0, repeats=6, **more):
    """A result as `measure` makes it, of invented repeats."""
    random = np.random.default_rng(seed)

    def run(job, on_line=lambda line: None):
        if job["job"] == "latency":
            return repeat(random, **more)
        on_line({"phase": "timed"})
        return alone(job["fps"])

    candidate = Candidate(given="m", like=None, sha256="a" * 64, backend="onnxrt", threads=1)
    return measure(candidate, Settings(repeats=repeats), run=run)


def document(*results, **environment):
    return {
        "schema": "edgevision/benchmark/1",
        "environment": {**ENVIRONMENT, **environment},
        "results": list(results),
        "failures": [],
    }
