"""One table: every peer of a task on one model file; standard library only."""

from __future__ import annotations

import importlib
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agreement import agreement
from environments import Unavailable, python_for
from peer import PACKAGES, PEERS, REFERENCE
from turns import Job, Worker, cold_starts, ratio, rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to look."""

    blocks: int
    calls: int
    starts: int


def compare(task: str, model: Path, threads: int, *, frames: Path, first: Path, effort: Effort) -> dict[str, Any]:
    """All peers of one task, with the same threads and frames; a peer that fails says why and the rest runs on."""
    limit, careful = REFERENCE[task]
    rows: dict[str, dict[str, Any]] = {}
    workers: list[Worker] = []
    told: dict[str, Any] = {}
    try:
        for peer in PEERS:
            module = importlib.import_module(peer)
            if task not in module.TASKS:
                continue
            row = rows[peer] = {"peer": peer, "note": module.NOTE}
            print(f"  {peer}", flush=True)
            try:
                python = python_for(module.REQUIREMENTS)
                job = Job(peer=peer, python=python, task=task, model=model, threads=threads, frames=frames, first=first)
                worker = Worker(job)
                try:
                    told[peer] = worker.ask(predict=True)["predictions"]
                    row["versions"] = worker.ask(versions=PACKAGES)["versions"]
                finally:
                    worker.close()
                row.update(cold_starts([job], effort.starts)[peer])
                workers.append(Worker(job))
            except Unavailable as failure:
                row["unavailable"] = str(failure)
                print(f"    {failure}", flush=True)
        spent, left = rounds(workers, effort.blocks, effort.calls) if workers else ({}, {})
    finally:
        for worker in workers:
            worker.close()
    for peer, reason in left.items():
        rows[peer]["unavailable"] = reason
    for peer, values in spent.items():
        rows[peer]["median_ms"] = round(statistics.median(values), 3)
        if limit in spent:
            rows[peer].update(ratio(values, spent[limit]))
        if told.get(peer) is not None and told.get(careful) is not None:
            rows[peer]["agreement"] = agreement(told[peer], told[careful])
    return {
        "task": task,
        "model": model.name,
        "threads": threads,
        "limit": limit,
        "compared_with": careful,
        "blocks": effort.blocks,
        "calls": effort.calls,
        "starts": effort.starts,
        "peers": list(rows.values()),
    }
