"""SIGKILL at random moments of a daemon at work, readers in processes and all: what is lost, damaged, or left behind?

Three of four die within two seconds of the first frame, the others in their start; at three of ten the broker is away, so that
the journal fills. After each kill: is a reader or a shared picture left, is the journal whole, and which messages were on the
disk? All of these must come out of `edgevision consume`, once; and in each topic and boot what came must have no hole.

    python benchmarks/kills.py --kills 200 --json kills.json

Ends with status 1 where anything was lost, doubled, damaged or left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "tests")]

from soaking.judging import keys_of  # noqa: E402
from soaking.watching import shared_memory  # noqa: E402
from soaking.world import DEVICE, MODEL, Consumer  # noqa: E402
from support_brokers import Mosquitto  # type: ignore[import-not-found]  # noqa: E402
from support_mqtt_tap import Key  # type: ignore[import-not-found]  # noqa: E402

MOST_LIFE_S = 2.0
GONE_WITHIN_S = 5.0
PATIENCE_S = 120.0


def write_config(folder: Path, port: int) -> Path:
    """One camera that is read in a process, every result durable."""
    config = {
        "device": DEVICE,
        "state_dir": str(folder / "state"),
        "mqtt": {"host": "127.0.0.1", "port": port, "results": {"qos": 1, "durable": True, "expires_s": None}},
        "models": {"m": {"model": MODEL}},
        "cameras": [
            {
                "name": name,
                "model": "m",
                "fps": 20,
                "source": {"type": "synthetic", "live": True, "width": 320, "height": 240},
            }
            for name in ("hall", "dock")
        ],
        # Here somebody kills it; a part that is killed while it loads would be left out at the fourth start.
        "supervision": {"safe_mode_after": 0},
    }
    file = folder / "edgevision.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return file


class Victim:
    """The daemon, and the readers that it has."""

    def __init__(self, folder: Path, port: int) -> None:
        """Starts nothing."""
        self._command = [sys.executable, "-m", "edgevision", "run", "-c", str(write_config(folder, port))]
        self._log = folder / "daemon.log"
        self._log.touch()
        self._from_byte = 0
        self._process: Any = None

    def start(self) -> None:
        """Start it; returns at once."""
        self._from_byte = self._log.stat().st_size
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log)

    def wait_for_frames(self) -> None:
        """Wait until a camera is live."""
        end_s = time.monotonic() + PATIENCE_S
        while b"state=live" not in self._log.read_bytes()[self._from_byte :]:
            if time.monotonic() > end_s:
                raise TimeoutError("the daemon gave no frame")
            time.sleep(0.01)

    def kill(self) -> int:
        """SIGKILL; how many of its readers live on."""
        if self._process is None or self._process.poll() is not None:
            return 0
        readers = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        return len(psutil.wait_procs(readers, timeout=GONE_WITHIN_S)[1])

    def end(self) -> int:
        """SIGTERM; its exit status."""
        self._process.terminate()
        return int(self._process.wait(60))


def saved_in(journal: Path, scratch: Path) -> tuple[set[Key], str]:
    """The messages in a dead daemon's journal, and what SQLite thinks of the file; looked at in a copy."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    if not journal.exists():
        return set(), "ok"
    for suffix in ("", "-wal"):
        if Path(f"{journal}{suffix}").exists():
            shutil.copy(f"{journal}{suffix}", scratch)
    db = sqlite3.connect(scratch / journal.name)
    try:
        verdict = str(db.execute("PRAGMA integrity_check").fetchone()[0])
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE name = 'messages'")]
        rows = db.execute("SELECT CAST(topic AS TEXT), payload FROM messages").fetchall() if tables else []
    finally:
        db.close()
    contents = [(topic, json.loads(payload)) for topic, payload in rows]
    return {(topic, content["boot_id"], content["seq"]) for topic, content in contents}, verdict


def holes(arrived: Iterable[Key]) -> list[str]:
    """Topics and boots of which something is missing before something that came."""
    streams: dict[tuple[str, str], set[int]] = defaultdict(set)
    for topic, boot, seq in arrived:
        if seq:  # 0 is the last will
            streams[topic, boot].add(seq)
    return [f"{topic} {boot}" for (topic, boot), seqs in streams.items() if seqs != set(range(1, max(seqs) + 1))]


def run(folder: Path, *, kills: int, seed: int, binary: str) -> dict[str, Any]:
    """Kill it so often; gives what was found."""
    chance = random.Random(seed)
    (folder / "broker").mkdir()
    segments = shared_memory()
    settings = ("allow_anonymous true", "max_queued_messages 0", "max_queued_bytes 0")
    found: dict[str, Any] = {"kills": kills, "left_processes": 0, "left_segments": 0, "not_whole": []}
    saved: set[Key] = set()
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(binary, folder / "broker", settings=settings, persistent=True))
        consumer = Consumer(broker.port, folder)
        stack.callback(consumer.kill)
        daemon = Victim(folder, broker.port)
        stack.callback(daemon.kill)
        for number in range(kills):
            if number % 10 == 3:
                broker.stop()
            if number % 10 == 6:
                broker.start()
            daemon.start()
            if number % 4:
                daemon.wait_for_frames()
            time.sleep(chance.uniform(0, MOST_LIFE_S))  # the moment is the point
            found["left_processes"] += daemon.kill()
            found["left_segments"] += len(shared_memory() - segments)
            on_disk, verdict = saved_in(folder / "state" / "spool.sqlite", folder / "scratch")
            saved |= on_disk
            if verdict != "ok":
                found["not_whole"].append({"kill": number, "sqlite": verdict})
        if number % 10 in {3, 4, 5}:
            broker.start()
        boots = boots_in(consumer.output)
        daemon.start()
        missing = wait_for(saved, consumer.output, beside=boots)
        found["exit_status"] = daemon.end()
        consumer.end()
    arrived = keys_of(consumer.output)
    return found | {
        "saved": len(saved),
        "arrived": len(arrived),
        "saved_and_lost": len(missing),
        "first_lost": sorted(map(list, missing))[:5],
        "arrived_twice": sum(count > 1 for key, count in arrived.items() if key[2]),
        "streams_with_holes": holes(arrived),
        "boots": len({boot for _, boot, _ in arrived}),
        "damaged_journals": len(list((folder / "state").glob("*damaged*"))),
    }


def boots_in(output: Path) -> set[str]:
    """The starts of the daemon of which something has come."""
    return {boot for _, boot, _ in keys_of(output)} if output.exists() else set()


def wait_for(saved: set[Key], output: Path, *, beside: set[str]) -> set[Key]:
    """Wait until all of it has come, and something of a start `beside` those known; gives what did not."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        if output.exists() and saved <= keys_of(output).keys() and boots_in(output) - beside:
            return set()
        time.sleep(0.5)
    return saved - keys_of(output).keys()


def problems(found: dict[str, Any]) -> list[str]:
    """What should not be, in words."""
    bad = ("left_processes", "left_segments", "not_whole", "saved_and_lost", "arrived_twice", "streams_with_holes")
    return [f"{key}: {found[key]}" for key in (*bad, "damaged_journals") if found[key]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise SystemExit("needs mosquitto: apt-get install mosquitto")
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), kills=arguments.kills, seed=arguments.seed, binary=binary)
    print(json.dumps(found, indent=1))
    if arguments.json is not None:
        from edgevision.host.benchmark.machine import environment

        arguments.json.write_text(json.dumps({"environment": environment(), **found}, indent=1) + "\n")
    if bad := problems(found):
        raise SystemExit("; ".join(bad))


if __name__ == "__main__":
    main()
