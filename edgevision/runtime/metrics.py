"""Counts and times, kept where they arise and summed up for telemetry. Bounded: years of frames take no memory."""

from __future__ import annotations

import os
import threading
from array import array
from pathlib import Path

import numpy as np

from edgevision.capture._triggered import TriggerBox
from edgevision.clock import Clock
from edgevision.messages import ProcessTelemetry, StageSummary, TriggerTelemetry
from edgevision.types import StageTimes

WINDOW = 4096
"""Times kept per stage and interval; the newest win. 4096 is a minute at 60 frames per second."""
STAGES = ("capture_to_start", "preprocess", "inference", "decode", "events", "publish", "total")


class StageWindow:
    """The times of one camera's stages since the last summary."""

    def __init__(self) -> None:
        self._times: dict[str, array[int]] = {stage: array("q") for stage in STAGES}
        self._count = 0
        self._lock = threading.Lock()

    def add(self, times: StageTimes, total_ns: int) -> None:
        """Note one frame."""
        values = (
            times.capture_to_start_ns,
            times.preprocess_ns,
            times.inference_ns,
            times.decode_ns,
            times.events_ns,
            times.publish_ns,
            total_ns,
        )
        with self._lock:
            for window, value in zip(self._times.values(), values, strict=True):
                if len(window) < WINDOW:
                    window.append(value)
                else:
                    window[self._count % WINDOW] = value
            self._count += 1

    def summary(self) -> tuple[int, dict[str, StageSummary]]:
        """Frames since the last summary and their times, in milliseconds; starts a new interval."""
        with self._lock:
            count, times = self._count, self._times
            self._count, self._times = 0, {stage: array("q") for stage in STAGES}
        if count == 0:
            return 0, {}
        return count, {stage: _summary(np.frombuffer(window, np.int64) / 1e6) for stage, window in times.items()}


def trigger_telemetry(triggers: TriggerBox | None) -> TriggerTelemetry | None:
    """A triggered camera's counts and delays; begins a new interval."""
    if triggers is None:
        return None
    delays_ms = triggers.take_delays_ms()
    return TriggerTelemetry(
        received=triggers.received,
        served=triggers.served,
        missed=triggers.missed,
        delay_ms=_summary(np.array(delays_ms)) if delays_ms else None,
    )


def _summary(times_ms: np.ndarray) -> StageSummary:
    p50, p99 = np.percentile(times_ms, (50, 99))
    return StageSummary(
        mean=round(float(times_ms.mean()), 3),
        p50=round(float(p50), 3),
        p99=round(float(p99), 3),
        max=round(float(times_ms.max()), 3),
    )


class ProcessMeter:
    """What this process uses, from /proc."""

    def __init__(self, clock: Clock, *, proc: Path = Path("/proc/self")) -> None:
        """`proc` is another folder in tests."""
        self._clock = clock
        self._proc = proc
        self._started_ns = self._read_ns = clock.monotonic_ns()
        self._cpu_s = self._cpu()

    def _cpu(self) -> float:
        # Fields 14 and 15 (utime, stime, in clock ticks) of proc(5) stat; the name before them may hold spaces.
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def read(self) -> ProcessTelemetry:
        """Use now; the CPU's share since the last reading."""
        now_ns, cpu_s = self._clock.monotonic_ns(), self._cpu()
        elapsed_s = max((now_ns - self._read_ns) / 1e9, 1e-3)
        percent = max(0.0, (cpu_s - self._cpu_s) / elapsed_s * 100)
        self._read_ns, self._cpu_s = now_ns, cpu_s
        resident_pages = int((self._proc / "statm").read_text().split()[1])
        return ProcessTelemetry(
            uptime_s=round((now_ns - self._started_ns) / 1e9, 1),
            cpu_percent=round(percent, 1),
            rss_bytes=resident_pages * os.sysconf("SC_PAGE_SIZE"),
            threads=len(list((self._proc / "task").iterdir())),
            open_files=len(list((self._proc / "fd").iterdir())),
        )
