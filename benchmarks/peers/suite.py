"""benchmarks/run: every table and plot into benchmarks/results/<host>/; needs Python and pip, and nothing else."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import quantisation
import tables
from comparison import Effort, compare
from environments import ROOT, Unavailable, python_for, refresh
from peer import EDGEVISION, REFERENCE
from turns import HERE
from words import host_name, plain

BENCHMARKS = HERE.parent


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure edgevision against its peers, each in an environment of its own that is made here.",
        epilog="A table whose model file is not given is left out, and the result says so.",
    )
    for task in REFERENCE:
        made.add_argument(f"--{task}", type=Path, metavar="FILE", help=f"the model of the {task} table")
    made.add_argument(
        "--pictures", type=Path, metavar="DIR", help="pictures to look at; by default the package's photos"
    )
    made.add_argument("--most-pictures", type=int, default=12, metavar="N", help="at most so many of them (12)")
    made.add_argument("--threads", type=_counts, default=(1, 2), metavar="N,N", help="threads of one inference (1,2)")
    made.add_argument("--blocks", type=int, metavar="N", help="rounds of the peers' turns (30; quick: 5)")
    made.add_argument("--calls", type=int, default=20, metavar="N", help="timed calls in a turn (20)")
    made.add_argument("--starts", type=int, metavar="N", help="cold starts of each peer after the first (5; quick: 2)")
    made.add_argument(
        "--seconds", type=float, metavar="S", help="how long each run of the daemon is watched (60; quick: 6)"
    )
    made.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to be quoted")
    made.add_argument("--no-overhead", action="store_true", help="leave benchmarks/overhead.py out")
    made.add_argument("--no-daemon", action="store_true", help="leave benchmarks/daemon.py out")
    made.add_argument("--quantisation", action="store_true", help="plain quantisation too (minutes)")
    made.add_argument("--calibration", type=Path, metavar="DIR", help="pictures to calibrate with")
    made.add_argument("--coco", type=Path, metavar="DIR", help="pictures and instances.json, for AP")
    made.add_argument("--host", help="name of the results folder; by default CPU and cores")
    return made


def _counts(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of thread counts such as 1,2")
    return found


def checked(made: argparse.ArgumentParser, words: list[str] | None = None) -> argparse.Namespace:
    """The arguments, or a line that says what is wrong with them."""
    asked = made.parse_args(words)
    for key, value in vars(asked).items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, Path):
            if key in ("pictures", "calibration", "coco"):
                if not value.is_dir():
                    made.error(f"{option}: {value} is no folder")
            elif not value.is_file():
                made.error(f"{option}: {value} is no file")
            setattr(asked, key, value.resolve())
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
            made.error(f"{option}: {value} must be above 0")
    if asked.quantisation and not (asked.yolox_onnx and asked.calibration and asked.coco):
        made.error("--quantisation needs --yolox-onnx, --calibration and --coco")
    if asked.coco and not (asked.coco / "instances.json").is_file():
        made.error(f"--coco: {asked.coco} holds no instances.json")
    if asked.host and plain(asked.host).replace("/", "") != asked.host:
        made.error(f"--host: {asked.host!r} must be a plain name")
    asked.blocks = asked.blocks or (5 if asked.quick else 30)
    asked.starts = asked.starts or (2 if asked.quick else 5)
    asked.seconds = asked.seconds or (6 if asked.quick else 60)
    return asked


def script(python: Path, file: Path, *arguments: object) -> str:
    """What one of our scripts prints; raises Unavailable with its last line of error."""
    run = subprocess.run([str(python), str(file), *map(str, arguments)], capture_output=True, text=True, check=False)
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        raise Unavailable(plain(f"{file.name}: {lines[-1] if lines else run.returncode}"))
    return run.stdout


def own_figures(python: Path, asked: argparse.Namespace, folder: Path, results: dict[str, Any]) -> None:
    """benchmarks/overhead.py and daemon.py, as they are."""
    if not asked.no_overhead:
        print("overhead", flush=True)
        try:
            script(
                python, BENCHMARKS / "overhead.py", "--threads", *asked.threads, "--seconds", min(asked.seconds, 20),
                "--json", folder / "overhead.json",
            )  # fmt: skip
            results["overhead"] = json.loads((folder / "overhead.json").read_text(encoding="utf-8"))["results"]
        except Unavailable as failure:
            results["left_out"].append(str(failure))
    if not asked.no_daemon:
        print("daemon", flush=True)
        try:
            script(python, BENCHMARKS / "daemon.py", "--seconds", asked.seconds, "--json", folder / "daemon.json")
            figures = json.loads((folder / "daemon.json").read_text(encoding="utf-8"))
            results["daemon"] = {key: value for key, value in figures.items() if key != "environment"}
        except Unavailable as failure:
            results["left_out"].append(str(failure))


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that was asked for."""
    effort = Effort(blocks=asked.blocks, calls=asked.calls, starts=asked.starts)
    refresh(EDGEVISION)
    python = python_for(EDGEVISION)
    frames, first = folder / "frames.npy", folder / "first.npy"
    pictures = asked.pictures or ROOT / "edgevision" / "data" / "photos"
    count = int(script(python, HERE / "frames.py", pictures, asked.most_pictures, frames, first))
    results: dict[str, Any] = {
        "host": asked.host or host_name(),
        "environment": json.loads(script(python, HERE / "facts.py")),
        "quick": asked.quick,
        "frames": count,
        "tables": [],
        "quantisation": [],
        "overhead": [],
        "daemon": None,
        "left_out": [],
    }
    for task in REFERENCE:
        model = getattr(asked, task.replace("-", "_"))
        if model is None:
            results["left_out"].append(f"{task}: no --{task} FILE was given")
            continue
        for threads in asked.threads:
            print(f"{task}, {threads} thread(s)", flush=True)
            results["tables"].append(compare(task, model, threads, frames=frames, first=first, effort=effort))
    if asked.quantisation:
        refresh(quantisation.EVALUATION)
        for threads in asked.threads[:1]:
            print("quantisation", flush=True)
            figures = quantisation.measure(
                asked.yolox_onnx, calibration=asked.calibration, coco=asked.coco, threads=threads,
                frames=frames, first=first, folder=folder, effort=effort,
            )  # fmt: skip
            results["quantisation"].append(figures)
    else:
        results["left_out"].append("plain quantisation: --quantisation was not given")
    own_figures(python, asked, folder, results)
    return results


def main() -> None:
    """Measure, then write JSON, Markdown and the plot."""
    asked = checked(parser())
    with tempfile.TemporaryDirectory(prefix="edgevision-bench-") as name:
        try:
            results = measure(asked, Path(name))
        except Unavailable as failure:
            raise SystemExit(f"benchmarks/run: {failure}") from None
    output = BENCHMARKS / "results" / results["host"]
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (output / "results.md").write_text(tables.markdown(results), encoding="utf-8")
    if results["tables"]:
        try:
            script(python_for(("matplotlib",)), HERE / "plot.py", output / "results.json", output / "peers.png")
        except Unavailable as failure:
            print(f"no plot: {failure}")
    print((output / "results.md").read_text(encoding="utf-8"))
