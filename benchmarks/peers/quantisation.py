"""Plain quantisation, for accuracy: what a user gets from ONNX Runtime's and NNCF's defaults; standard library only."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from comparison import Effort
from environments import Unavailable, python_for
from peer import EDGEVISION, ONNXRT
from turns import HERE, Job, Worker, ratio, rounds
from words import plain

RECIPES = {
    "quantize_onnxrt_defaults": ("onnxruntime", "onnx", "sympy", "opencv-python-headless"),
    "quantize_nncf": ("nncf", "onnx", "onnxruntime", "opencv-python-headless"),
}
EVALUATION = (*EDGEVISION, "pycocotools")


def measure(
    model: Path, *, calibration: Path, coco: Path, threads: int, frames: Path, first: Path, folder: Path, effort: Effort
) -> dict[str, Any]:
    """AP of the float model and of each quantised one, and the bare loop's time as a ratio to float."""
    files = {"float": model}
    rows: list[dict[str, Any]] = [{"recipe": "float"}]
    for recipe, requirements in RECIPES.items():
        print(f"  {recipe}", flush=True)
        row: dict[str, Any] = {"recipe": recipe}
        rows.append(row)
        try:
            _script(python_for(requirements), recipe, model, calibration, folder / f"{recipe}.onnx")
            files[recipe] = folder / f"{recipe}.onnx"
        except Unavailable as failure:
            row["unavailable"] = str(failure)
    count = sum(file.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp"} for file in calibration.iterdir())
    workers: dict[str, Worker] = {}
    try:
        for row in rows:
            recipe = row["recipe"]
            if recipe not in files:
                continue
            try:
                row["ap"] = json.loads(_script(python_for(EVALUATION), "average_precision", files[recipe], coco))["ap"]
                workers[recipe] = Worker(
                    Job(
                        peer="bare_onnxrt", python=python_for(ONNXRT), task="yolox-onnx", model=files[recipe],
                        threads=threads, frames=frames, first=first,
                    ),
                    name=recipe,
                )  # fmt: skip
            except Unavailable as failure:
                row["unavailable"] = str(failure)
        spent, left = rounds(list(workers.values()), effort.blocks, effort.calls)
    finally:
        for worker in workers.values():
            worker.close()
    for row in rows:
        if row["recipe"] in spent and "float" in spent:
            row["median_ms"] = round(statistics.median(spent[row["recipe"]]), 3)
            row.update(ratio(spent[row["recipe"]], spent["float"]))
        elif row["recipe"] in left:
            row["unavailable"] = left[row["recipe"]]
    return {
        "model": model.name,
        "threads": threads,
        "blocks": effort.blocks,
        "calibration_pictures": count,
        "recipes": rows,
    }


def _script(python: Path, name: str, *arguments: Path) -> str:
    """The last line that one of the scripts beside this one prints."""
    command = [str(python), str(HERE / f"{name}.py"), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        raise Unavailable(plain(lines[-1] if lines else f"exit status {run.returncode}"))
    return run.stdout.splitlines()[-1] if run.stdout.strip() else ""
