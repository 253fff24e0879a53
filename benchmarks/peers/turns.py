"""Peers that take turns, each in a process of its own; standard library only.

A shared machine's speed wanders by more than what is measured, so the peers run in short blocks, one after the other, and each
round gives each peer's ratio to the bare loop of the same round. While one has its turn the others are stopped (SIGSTOP):
a runtime's threads go on spinning for a while after a call, and would run beside the next peer.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from environments import Unavailable
from words import plain

ANSWER_S = 300.0
"""How long an answer may take."""

_EXCEPTION = re.compile(r"[\w.]*(Error|error|Exception|Exit)\b")

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One peer on one model file."""

    peer: str
    python: Path
    task: str
    model: Path
    threads: int
    frames: Path
    first: Path


class Worker:
    """One running peer. Stopped whenever it is not asked."""

    def __init__(self, job: Job, *, name: str | None = None) -> None:
        """Start it and wait for its first result; `name` tells it from others of the same peer.

        Raises:
            Unavailable: it failed.
        """
        self.job = job
        self.name = name or job.peer
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        begun = time.perf_counter()
        self._process = subprocess.Popen(
            [
                str(job.python), str(HERE / "worker.py"), job.peer, job.task, str(job.model), str(job.threads),
                str(job.frames), str(job.first),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        try:
            self.start: dict[str, float] = self._answer()
        except BaseException:
            self.close()
            raise
        self.start["start_s"] = time.perf_counter() - begun
        self._stop()

    def ask(self, **command: Any) -> dict[str, Any]:
        """One command's answer; raises Unavailable if the peer fails."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Unavailable(self._why()) from None
        answer = self._answer()
        self._stop()
        return answer

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        # All its threads stand still when this returns; an end is left for `_why` to collect.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        if not ready:
            raise Unavailable(f"no answer within {ANSWER_S:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(self._why())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _why(self) -> str:
        try:
            status: int | str = self._process.wait(10)
        except subprocess.TimeoutExpired:
            status = "unknown: it closed its output and runs on"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        # An exception's own line, which its message may go on below: `package.module.SomeError: words`.
        told = [number for number, line in enumerate(lines) if _EXCEPTION.match(line)]
        return plain(" ".join(lines[told[-1] :]) if told else f"exit status {status}")

    def close(self) -> None:
        """End it."""
        self._process.kill()  # reaches a stopped process too
        self._process.communicate()
        self._errors.close()


def cold_starts(jobs: list[Job], repeats: int) -> dict[str, dict[str, float]]:
    """By peer: seconds from process start to first result and peak memory, one process at a time, in turns.

    The first start of each also fills the system's file cache and is left out.
    """
    seen: dict[str, list[dict[str, float]]] = {job.peer: [] for job in jobs}
    for _ in range(repeats + 1):
        for job in jobs:
            worker = Worker(job)
            worker.close()
            seen[job.peer].append(worker.start)
    return {
        peer: {key: round(statistics.median(start[key] for start in starts[1:]), 4) for key in starts[0]}
        for peer, starts in seen.items()
    }


def rounds(workers: list[Worker], blocks: int, calls: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """By name: the median milliseconds of each round's block; and why a peer left. The first round is the warm-up."""
    spent: dict[str, list[float]] = {worker.name: [] for worker in workers}
    left: dict[str, str] = {}
    for number in range(blocks + 1):
        shift = number % len(workers)  # the order turns, so that none always follows the same one
        for worker in workers[shift:] + workers[:shift]:
            if worker.name in left:
                continue
            try:
                spent[worker.name].append(statistics.median(worker.ask(block=calls)["ms"]))
            except Unavailable as failure:
                left[worker.name] = str(failure)
    return {peer: values[1:] for peer, values in spent.items() if peer not in left}, left


def ratio(ours: list[float], bare: list[float], *, seed: int = 0, draws: int = 2000) -> dict[str, float]:
    """The median over rounds of the ratio within a round, and its 95 % interval: a bootstrap over rounds."""
    each = [our / their for our, their in zip(ours, bare, strict=True)]
    dice = random.Random(seed)
    drawn = sorted(statistics.median(dice.choices(each, k=len(each))) for _ in range(draws))
    return {
        "ratio": round(statistics.median(each), 4),
        "low": round(drawn[int(0.025 * draws)], 4),
        "high": round(drawn[int(0.975 * draws)], 4),
    }
