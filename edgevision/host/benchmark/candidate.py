"""One candidate's measurement: its jobs one after the other, each in a process of its own, put together as one result."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.host.benchmark import child, machine, noise, power, sensors
from edgevision.host.benchmark.figures import mlperf, summary, to_ms
from edgevision.host.benchmark.loops import STAGES
from edgevision.host.benchmark.settings import Candidate, Settings
from edgevision.host.benchmark.stability import LIMIT_S
from edgevision.messages import timestamp

_STARTING_S = 1.0
"""What a process takes to start and load; for the progress bar only."""
ALONE_SHARE = 0.25

Job = Callable[..., dict[str, Any]]


def seconds_expected(settings: Settings) -> float:
    """How long a candidate takes, for the progress bar; warm-ups are taken to be as long as they may be."""
    repeat_s = settings.duration_s / settings.repeats
    total_s = settings.repeats * (_STARTING_S + 1.5 * repeat_s + min(LIMIT_S, repeat_s))
    alone = [settings.duration_s * ALONE_SHARE] + ([settings.duration_s] if settings.paced_fps else [])
    total_s += sum(_STARTING_S + seconds + min(LIMIT_S, seconds) for seconds in alone)
    return total_s + (_STARTING_S if settings.profile else 0.0)


def measure(
    candidate: Candidate,
    settings: Settings,
    *,
    on_progress: Callable[[float], None] = lambda _s: None,
    on_warning: Callable[[str], None] = lambda _line: None,
    root: Path = Path("/"),
    run: Job = child.run,
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, Any]:
    """Measure one candidate.

    Args:
        candidate: what is measured.
        settings: how.
        on_progress: told how many seconds of work are done.
        on_warning: told log lines of the model's loading, each once.
        root: where /sys and /proc are; another folder in tests.
        run: does a job in a process of its own.
        clock: the time.

    Raises:
        EdgevisionError: the model cannot be loaded or fails.
    """
    measured_at, load = timestamp(clock.time_ns()), machine.load_average(root)
    before = sensors.read(root)

    def job(kind: str, duration_s: float, fps: float | None = None, **more: Any) -> dict[str, Any]:
        done = run(_job(candidate, settings, kind, duration_s, fps), **more)
        on_progress(_STARTING_S)
        for line in done.pop("warnings", []):
            on_warning(line)
        return done

    def tell(line: dict[str, Any]) -> None:
        on_progress(float(line.get("progress", 0.0)))

    repeats = [job("latency", settings.duration_s / settings.repeats, on_line=tell) for _ in range(settings.repeats)]

    def alone(duration_s: float, fps: float | None) -> dict[str, Any]:
        with ExitStack() as stack:
            spent: dict[str, Any] = {}

            def on_line(line: dict[str, Any]) -> None:
                tell(line)
                if line.get("phase") == "timed":
                    meter = power.find(root)
                    spent["power"] = stack.enter_context(power.measured(meter, clock=clock))

            done = job("alone", duration_s, fps, on_line=on_line)
        return {**done, **spent}

    closed_loop = alone(settings.duration_s * ALONE_SHARE, None)
    paced = alone(settings.duration_s, settings.paced_fps) if settings.paced_fps else None
    profile = job("profile", 0.0) if settings.profile else {"said": "not asked for: --profile"}
    after = sensors.read(root)
    return {
        **_identity(candidate, repeats[0]),
        "frame": settings.document()["frame"],
        "settings": settings.document(),
        "measured_at": measured_at,
        "load_average_before": load,
        **_latency(repeats),
        "closed_loop": closed_loop,
        "paced": paced,
        "profile": profile,
        "sensors": {
            "before": before.document(), "after": after.document(), "throttled": sensors.verdict(before, after),
        },
        "yardstick": repeats[0]["yardstick"],
        "reference": repeats[0]["reference"],
        "repeats": [
            {key: one[key] for key in ("warm_up", "others_cores", "rounds", "turns")} for one in repeats
        ],
    }  # fmt: skip


def _job(candidate: Candidate, settings: Settings, kind: str, duration_s: float, fps: float | None) -> dict[str, Any]:
    return {
        "job": kind,
        "model": candidate.given,
        "backend": candidate.backend,
        "threads": candidate.threads,
        "like": candidate.like,
        "providers": list(settings.providers) if candidate.backend == "onnxrt" else [],
        "size": list(settings.size),
        "duration_s": duration_s,
        "bare": settings.bare,
        "fps": fps,
    }


def _identity(candidate: Candidate, repeat: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": {**repeat["model"], "given": candidate.given, "like": candidate.like},
        "backend": repeat["backend"],
        "threads": candidate.threads,
    }


def _latency(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is said of latency, from all repeats' samples."""
    samples = all_samples(repeats, "edgevision")
    colds = [one["cold_start"] for one in repeats]
    stages = {stage: np.concatenate([one["stages_ns"][stage] for one in repeats]) for stage in STAGES}
    stages["capture_decode"] = np.concatenate([one["capture_decode_ns"] for one in repeats])
    return {
        "cold_start": {
            **{key: round(statistics.median(cold[key] for cold in colds), 4) for key in colds[0]},
            "runs": len(colds),
        },
        "latency": summary(samples),
        "early_stopping": mlperf(samples),
        "stages": {
            name: {
                "p50_ms": to_ms(float(np.median(spent))),
                "p99_ms": to_ms(float(np.percentile(spent, 99))),
                "mean_ms": to_ms(float(np.mean(spent))),
            }
            for name, spent in stages.items()
        },
        "bare": _bare(repeats),
        "stable_repeats": sum(one["warm_up"]["stable"] for one in repeats),
    }


def _bare(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    twin = noise.beside(repeats, "twin")
    if twin is not None:
        found["ratio_in_turns"] = {**noise.ratio_of(twin.logs).document(), "quiet_share": round(twin.quiet_share, 3)}
    if "said" in repeats[0]["bare"]:
        return {**found, "said": repeats[0]["bare"]["said"]}
    samples = all_samples(repeats, "bare")
    return {
        **found,
        "latency": summary(samples),
        "early_stopping": mlperf(samples),
        "ratio": noise.ratio_of(noise.logs(repeats, "edgevision", "p50", by="bare")).document(),
        **{key: statistics.median(one["bare"][key] for one in repeats) for key in ("load_ms", "first_inference_ms")},
    }


def all_samples(repeats: list[dict[str, Any]], loop: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Every timed call of a loop's blocks, (calls,) nanoseconds, in the order of time."""
    return np.concatenate([np.asarray(one[f"{loop}_ns"], np.int64) for repeat in repeats for one in repeat["rounds"]])
