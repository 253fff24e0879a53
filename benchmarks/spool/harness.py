"""What the spool's benchmarks and chaos tests share: a publisher to kill, a consumer, and the sums over what arrived."""

from __future__ import annotations

import atexit
import json
import statistics
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options

PUBLISHER = Path(__file__).with_name("publisher.py")
_started: list[subprocess.Popen[str]] = []


@atexit.register
def _end_all() -> None:
    """Nothing of a benchmark that fails outlives it."""
    for process in _started:
        if process.poll() is None:
            process.kill()
            process.wait()


def quantiles(values: list[float]) -> dict[str, float]:
    """The middle, the worst of a hundred, and the worst."""
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3), "max": round(max(values), 3)}


def make_sink(port: int, state_dir: Path, **options: Any) -> MqttSink:
    """The daemon's own sink, on a broker of this machine."""
    return MqttSink(
        options=Options(host="127.0.0.1", port=port, **options), context=SinkContext(device="b", state_dir=state_dir)
    )


class Publisher:
    """A publisher process, and what it has said."""

    def __init__(self, port: int, state_dir: Path, *arguments: str) -> None:
        """Start it."""
        self.boot_id = ""
        self.accepted = self.published = 0
        command = [sys.executable, str(PUBLISHER), "--port", str(port), "--state-dir", str(state_dir), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        _started.append(self._process)
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break  # cut by the kill
            first, second = line.split()
            with self._changed:
                if first == "boot":
                    self.boot_id = second
                else:
                    self.accepted, self.published = int(first), int(second)
                self._changed.notify_all()

    def wait_accepted(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until so many events are safe."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.accepted >= count, timeout_s):
                raise TimeoutError(f"{self.accepted} of {count} events accepted")

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._end()

    def end(self) -> None:
        """Let it end in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._end()

    def wait(self, timeout_s: float = 900.0) -> None:
        """Wait until it has ended by itself."""
        self._end(timeout_s)

    def _end(self, timeout_s: float = 120.0) -> None:
        self._process.wait(timeout_s)
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class Consume:
    """`edgevision consume` into a file."""

    def __init__(self, port: int, folder: Path) -> None:
        """Start it."""
        self.output = folder / "events.jsonl"
        self._command = [sys.executable, "-m", "edgevision", "consume", "--port", str(port), "-t", "t/#"]
        self._command += [
            "--client-id",
            "watcher",
            "--state",
            str(folder / "seen.sqlite"),
            "--output",
            str(self.output),
        ]
        self.said = ""
        self.start()

    def start(self) -> None:
        """Start (again); returns when it is subscribed."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        _started.append(self._process)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "connected to" in line:
                return
        raise RuntimeError("edgevision consume did not connect")

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        """SIGTERM."""
        self._process.terminate()
        self.said = self._process.communicate(timeout=60)[1]

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        if not self.output.exists():
            return []
        text = self.output.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def by_boot(lines: Iterable[dict[str, Any]]) -> dict[str, list[int]]:
    """`seq` of every event, in the order of arrival; by boot, in the order of their first events."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        if "payload" in line and line["topic"].endswith("/events"):
            found[line["payload"]["boot_id"]].append(line["payload"]["seq"])
    return dict(found)


def faults(found: dict[str, list[int]], publishers: Iterable[Publisher]) -> list[str]:
    """What is wrong with what arrived: events missing that were accepted, doubled, out of order."""
    problems = []
    for publisher in publishers:
        seqs = found.get(publisher.boot_id, [])
        if seqs != sorted(set(seqs)):
            problems.append(f"{publisher.boot_id}: doubled or out of order")
        missing = set(range(1, publisher.accepted + 1)) - set(seqs)
        if missing:
            problems.append(f"{publisher.boot_id}: {len(missing)} accepted events missing, first {min(missing)}")
        if seqs and seqs[-1] != len(set(seqs)):
            problems.append(f"{publisher.boot_id}: a gap")
    return problems
