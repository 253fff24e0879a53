"""One peer in a process and an environment of its own; it answers JSON lines.

    python worker.py PEER TASK MODEL THREADS FRAMES FIRST

FRAMES is a .npy file of (n, H, W, 3) uint8 BGR, FIRST one of (H, W, 3). The first line comes after the first result, so that
the coordinator can take the time from the process's start. Then each line on stdin is a command:

    {"block": 20}      that many calls in turn over the frames -> {"ms": [...]}
    {"predict": true}  every frame once -> {"predictions": [...]}
    {"versions": [...]} of these packages, where installed -> {"versions": {...}}
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SETTLING = 3
"""Calls before a block's timed ones: the process was stopped while the others had their turn."""


def peak_mb() -> float:
    """The most memory that this process has had resident so far, MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no VmHWM")


def main() -> None:
    """Load, look once, then do as told until stdin ends."""
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers)

    name, task, model, threads, frames_file, first_file = sys.argv[1:]
    begun = time.perf_counter()
    looker = importlib.import_module(name).make(task, Path(model), int(threads))
    loaded_s = time.perf_counter() - begun
    import numpy as np

    image = np.load(first_file)
    begun = time.perf_counter()
    looker.look(image)
    first_ms = (time.perf_counter() - begun) * 1e3
    answer({"load_s": loaded_s, "first_ms": first_ms, "peak_mb": peak_mb()})
    frames = None
    turn = 0
    for line in sys.stdin:
        command = json.loads(line)
        if frames is None:
            frames = np.load(frames_file)
        if "block" in command:
            spent: list[float] = []
            for number in range(SETTLING + command["block"]):
                frame = frames[(turn + number) % len(frames)]
                begun_ns = time.perf_counter_ns()
                looker.look(frame)
                spent.append((time.perf_counter_ns() - begun_ns) / 1e6)
            turn += command["block"]
            answer({"ms": spent[SETTLING:]})
        elif "predict" in command:
            told = looker.tell
            answer({"predictions": None if told is None else [told(looker.look(frame)) for frame in frames]})
        elif "versions" in command:
            from importlib import metadata

            found = {
                entry.metadata["Name"].lower().replace("_", "-"): entry.version for entry in metadata.distributions()
            }
            answer({"versions": {package: found[package] for package in command["versions"] if package in found}})


if __name__ == "__main__":
    main()
