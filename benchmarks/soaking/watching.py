"""What is watched in a soak: the daemon's own account of itself, and its processes from outside."""

from __future__ import annotations

import json
import threading
import time
from array import array
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from soaking.world import World


def seconds_of(text: str) -> float:
    """Unix seconds of a message's timestamp."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A status message: of a camera, or of the device (`camera` None)."""

    time_s: float
    camera: str | None
    state: str
    reason: str
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A telemetry message."""

    time_s: float
    connected: bool
    queued: int
    waiting: int
    """Spooled messages."""
    unsaved: int
    spool: str
    sent: int
    """Acknowledged by the broker; telemetry, which is not, counts when it is written."""
    dropped: int
    kept_back: int
    """Lines that the account itself could not write."""


class Account:
    """Reads what the daemon writes to its file sink, as it grows."""

    def __init__(self, path: Path) -> None:
        """Begins at once."""
        self.told: list[Told] = []
        self.counts: list[Count] = []
        self.results: dict[str, array[float]] = defaultdict(lambda: array("d"))
        """When each camera's pictures were taken of which a result came."""
        self.trusted: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self._path = path
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Read what is left, and end."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._path.exists() and not self._ending.wait(0.1):
            pass
        with self._path.open("rb") as file:
            rest = b""
            while True:
                ending = self._ending.is_set()
                while content := file.read(2**20):
                    *lines, rest = (rest + content).split(b"\n")
                    for line in lines:
                        self._note(json.loads(line))
                if ending:
                    return
                self._ending.wait(0.2)

    def _note(self, line: dict[str, Any]) -> None:
        kind, content = line["topic"].rpartition("/")[2], line["payload"]
        if kind == "results":
            taken_s = seconds_of(content["captured_at"])
            self.results[content["camera"]].append(taken_s)
            if content["trusted"]:
                self.trusted[content["camera"]].append(taken_s)
        elif kind == "status":
            self.told.append(
                Told(
                    time_s=seconds_of(content["published_at"]),
                    camera=content["camera"],
                    state=content["camera_state"] or content["state"],
                    reason=content["reason"],
                    alarms=tuple(content.get("alarms", ())),
                )
            )
        elif kind == "telemetry":
            mqtt, own = content["sinks"]["mqtt"], content["sinks"]["jsonl-1"]
            self.counts.append(
                Count(
                    time_s=seconds_of(content["published_at"]),
                    connected=mqtt["connected"],
                    queued=mqtt["queued"],
                    waiting=mqtt["spool"]["waiting"],
                    unsaved=mqtt["spool"]["unsaved"],
                    spool=mqtt["spool"]["state"],
                    sent=mqtt["sent"],
                    dropped=mqtt["dropped"],
                    kept_back=own["dropped"],
                )
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The daemon and its readers from outside, at one moment."""

    time_s: float
    pss_mb: float
    """Of all its processes: what is shared is shared out, so it changes with whoever else runs the same programs."""
    own_mb: float
    """Of all its processes, without the pages of program files: what can leak."""
    daemon_own_mb: float
    processes: int
    threads: int
    files: int
    daemon_threads: int
    daemon_files: int
    segments: int
    """Shared pictures that the daemon has mapped, and segments with a name."""


def shared_memory() -> set[str]:
    """Shared memory and semaphores with a name (shm_open(3)); a folder there is none."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.is_file()}


def memory_of(pid: int) -> tuple[float, float]:
    """PSS, and its anonymous and shared-memory parts alone, in MB (proc(5), smaps_rollup)."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        found[name.rstrip(":")] = int(value) / 1024
    return found["Pss"], found["Pss_Anon"] + found["Pss_Shmem"]


def sample(pid: int) -> Sample:
    """Look now."""
    main = psutil.Process(pid)
    seen = []
    for process in (main, *main.children(recursive=True)):
        try:
            seen.append((*memory_of(process.pid), process.num_threads(), process.num_fds()))
        except (psutil.Error, OSError, KeyError):
            continue  # it has just ended
    maps = Path(f"/proc/{pid}/maps").read_text()
    return Sample(
        time_s=time.time(),
        pss_mb=sum(pss for pss, *_ in seen),
        own_mb=sum(own for _, own, *_ in seen),
        daemon_own_mb=seen[0][1],
        processes=len(seen),
        threads=sum(threads for *_, threads, _ in seen),
        files=sum(files for *_, files in seen),
        daemon_threads=seen[0][2],
        daemon_files=seen[0][3],
        segments=maps.count("edgevision-frames") + len(shared_memory()),
    )


class Sampler:
    """Samples now and then, in a thread; also into a file, so that a soak that ends early has them."""

    def __init__(self, world: World, *, every_s: float) -> None:
        """Begins at once."""
        self.samples: list[Sample] = []
        self._pid = world.daemon.pid
        self._file = world.folder / "samples.jsonl"
        self._every_s = every_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Take no more."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        with self._file.open("w", encoding="utf-8") as file:
            while not self._ending.wait(self._every_s):
                try:
                    taken = sample(self._pid)
                except (psutil.Error, OSError, IndexError):
                    return  # the daemon has ended
                self.samples.append(taken)
                file.write(json.dumps(asdict(taken)) + "\n")
                file.flush()
