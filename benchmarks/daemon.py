"""What the daemon costs and whether it is fair: the whole process, measured from outside.

    start    seconds from the process's start to its first result at a sink
    memory   PSS of all its processes, with one camera and one model, after a while
    idle_cpu what it burns at 10 frames per second beyond the inferences themselves, in percent of one core
    fairness 8 cameras at 10 fps on one model: fewest to most frames, latency and memory over time

    python benchmarks/daemon.py --json daemon.json
    python benchmarks/daemon.py --source bottles.mp4 --model yolox-nano --seconds 120

The daemon publishes to an MQTT broker where one is named (`--broker host:port`), else to a JSON lines file, which is also how
this script reads what it did.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

from edgevision.host.benchmark.frames import scene
from edgevision.host.benchmark.machine import environment

TICKS = os.sysconf("SC_CLK_TCK")


def make_video(path: Path, *, seconds: int = 20, fps: int = 10, width: int = 1280, height: int = 720) -> Path:
    """A film of the package's photos drifting by, as MJPEG."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    wide = scene(width * 2, height)
    for number in range(seconds * fps):
        left = number * width // (seconds * fps)
        writer.write(wide[:, left : left + width])
    writer.release()
    return path


class Run:
    """One daemon and what it has published so far."""

    def __init__(self, folder: Path, cameras: int, arguments: argparse.Namespace, *, fps: float | None) -> None:
        self.output = folder / "messages.jsonl"
        self.output.unlink(missing_ok=True)
        sources = {"type": "opencv", "url": str(arguments.source), "loop": True}
        config: dict[str, Any] = {
            "device": "bench",
            "state_dir": str(folder / "state"),
            "sinks": [{"type": "jsonl", "path": str(self.output), "max_bytes": 2**31}],
            "models": {"m": {"model": arguments.model, "threads": arguments.threads}},
            "cameras": [
                {"name": f"c{number}", "source": sources, "model": "m", **({"fps": fps} if fps else {})}
                for number in range(cameras)
            ],
        }
        if arguments.broker:
            host, _, port = arguments.broker.partition(":")
            config["mqtt"] = {"host": host, "port": int(port or 1883), "telemetry": {"interval_s": 5}}
        self._file = folder / "config.json"
        self._file.write_text(json.dumps(config))  # JSON is YAML
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgevision", "run", "-c", str(self._file), "--log-level", "error"]
        )

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of all topics that end so."""
        if not self.output.exists():
            return []
        lines = self.output.read_text(encoding="utf-8").splitlines()
        found = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # the last line is being written
            if message["topic"].endswith(f"/{kind}"):
                found.append(message["payload"])
        return found

    def first_result_s(self, timeout_s: float = 60) -> float:
        """Seconds from the start until the first result stands in the file."""
        while time.monotonic() - self.started < timeout_s:
            if self.output.exists() and '/results"' in self.output.read_text(encoding="utf-8"):
                return time.monotonic() - self.started
            time.sleep(0.005)
        raise SystemExit("the daemon gave no result")

    def processes(self) -> list[int]:
        """The daemon and all below it."""
        found, unseen = [], [self.process.pid]
        while unseen:
            pid = unseen.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                unseen += [int(child) for child in (task / "children").read_text().split()]
        return found

    def pss_mb(self) -> float:
        """Proportional set size of all processes, in MB."""
        total_kb = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kb += int(line.split()[1])
        return total_kb / 1024

    def cpu_s(self) -> float:
        """CPU seconds of all processes so far."""
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS


@contextmanager
def daemon(folder: Path, cameras: int, arguments: argparse.Namespace, *, fps: float | None) -> Iterator[Run]:
    """A daemon that runs as long as the block."""
    run = Run(folder, cameras, arguments, fps=fps)
    try:
        yield run
    finally:
        run.process.send_signal(signal.SIGTERM)
        run.process.wait(30)


def start_times(folder: Path, arguments: argparse.Namespace, repeats: int = 5) -> dict[str, Any]:
    """Process start to first result; the first run also fills the system's file cache and is told apart."""
    seconds = []
    for _ in range(repeats):
        with daemon(folder, 1, arguments, fps=None) as run:
            seconds.append(run.first_result_s())
    return {"first_s": round(seconds[0], 3), "median_s": round(statistics.median(seconds[1:]), 3)}


def bare_cpu_ms(arguments: argparse.Namespace, *, fps: float, seconds: float) -> float:
    """CPU milliseconds of one inference alone, at the same pace and with the daemon's own settings, by process time."""
    import numpy as np

    from edgevision import assembly

    settings = assembly.ModelSettings(threads=arguments.threads, expected_fps=fps)
    model = assembly.load_model(arguments.model, settings=settings)
    tensors = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.backend.inputs}
    for _ in range(10):
        model.backend.run(tensors)
    count = int(fps * seconds)
    begun_cpu, begun = time.process_time(), time.monotonic()
    for number in range(count):
        model.backend.run(tensors)
        time.sleep(max(0.0, begun + (number + 1) / fps - time.monotonic()))
    spent_ms = (time.process_time() - begun_cpu) / count * 1e3
    model.close()
    return spent_ms


def paced(folder: Path, arguments: argparse.Namespace, fps: float = 10.0) -> dict[str, Any]:
    """Memory and CPU of one camera at 10 frames per second."""
    with daemon(folder, 1, arguments, fps=fps) as run:
        run.first_result_s()
        time.sleep(3)
        before, cpu_before, begun = len(run.messages("results")), run.cpu_s(), time.monotonic()
        time.sleep(arguments.seconds)
        cpu_s, elapsed_s = run.cpu_s() - cpu_before, time.monotonic() - begun
        results = run.messages("results")
        memory_mb = run.pss_mb()
    frames = len(results) - before
    inference_ms = bare_cpu_ms(arguments, fps=fps, seconds=min(arguments.seconds, 20))
    total = cpu_s / elapsed_s * 100
    inference = frames * inference_ms / 1e3 / elapsed_s * 100
    return {
        "fps": round(frames / elapsed_s, 2),
        "pss_mb": round(memory_mb, 1),
        "cpu_percent": round(total, 2),
        "inference_cpu_percent": round(inference, 2),
        "beyond_inference_percent": round(total - inference, 2),
        "latency_p50_ms": round(statistics.median(result["latency_ms"]["total"] for result in results[before:]), 2),
    }


def fairness(folder: Path, arguments: argparse.Namespace, cameras: int = 8) -> dict[str, Any]:
    """Eight cameras at 10 fps: who is served how often, and whether latency or memory grow."""
    with daemon(folder, cameras, arguments, fps=10) as run:
        run.first_result_s()
        time.sleep(5)
        memory_mb = [run.pss_mb()]
        begun = time.time()
        for _ in range(6):
            time.sleep(arguments.seconds / 6)
            memory_mb.append(run.pss_mb())
        results = [result for result in run.messages("results") if published(result) >= begun]
    counts = [sum(result["camera"] == f"c{number}" for result in results) for number in range(cameras)]
    ordered = sorted(results, key=published)
    sixth = max(1, len(ordered) // 6)
    latency = [
        round(statistics.median(result["latency_ms"]["total"] for result in part), 2)
        for part in (ordered[:sixth], ordered[-sixth:])
    ]
    return {
        "cameras": cameras,
        "frames": counts,
        "min_to_max": round(min(counts) / max(counts), 3),
        "fps_each": round(statistics.mean(counts) / arguments.seconds, 2),
        "latency_ms_first_sixth": latency[0],
        "latency_ms_last_sixth": latency[1],
        "pss_mb": [round(value, 1) for value in memory_mb],
        "dropped": max(result["frame"]["dropped"] for result in results),
    }


def published(result: dict[str, Any]) -> float:
    """When a result was published, Unix seconds."""
    from datetime import datetime

    return datetime.fromisoformat(result["published_at"].replace("Z", "+00:00")).timestamp()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet-lite0", help="a model's name or folder")
    parser.add_argument("--source", type=Path, help="a video; by default one is made of the package's photos")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="how long the paced and the fairness run are watched")
    parser.add_argument("--broker", help="host:port of an MQTT broker that the daemon publishes to as well")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgevision-bench-") as name:
        folder = Path(name)
        arguments.source = (arguments.source or make_video(folder / "photos.avi")).resolve()
        figures: dict[str, Any] = {"environment": environment(), "model": arguments.model, "threads": arguments.threads}
        for title, measure in (("start", start_times), ("paced", paced), ("fairness", fairness)):
            figures[title] = measure(folder, arguments)
            print(title, json.dumps(figures[title]), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
