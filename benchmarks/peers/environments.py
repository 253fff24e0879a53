"""A virtual environment for each set of requirements, under benchmarks/.venvs; standard library only."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from words import plain

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / ".venvs"


class Unavailable(Exception):  # noqa: N818
    """A peer that cannot be measured here, and why, in one line."""


def python_for(requirements: tuple[str, ...]) -> Path:
    """The interpreter of an isolated environment that has these; made at the first call, found again later.

    Raises:
        Unavailable: pip could not install them.
    """
    label = "-".join(name.partition("[")[0].partition("=")[0] for name in requirements)
    folder = FOLDER / f"{label}-{hashlib.sha256(' '.join(requirements).encode()).hexdigest()[:6]}"
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python
    print(f"  installing {', '.join(requirements)}", flush=True)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")
    _quietly([sys.executable, "-m", "venv", "--clear", str(folder)])
    _quietly([str(python), "-m", "pip", "install", "--disable-pip-version-check", *map(_source, requirements)])
    done.touch()
    return python


def refresh(requirements: tuple[str, ...]) -> None:
    """Install this checkout's edgevision again: its code may have changed since the environment was made."""
    python = python_for(requirements)
    _quietly(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--force-reinstall",
            "--no-deps",
            str(ROOT),
        ]
    )


def _source(requirement: str) -> str:
    return requirement.replace("edgevision", str(ROOT), 1) if requirement.startswith("edgevision") else requirement


def _quietly(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        faults = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines()
        raise Unavailable(plain("cannot be installed: " + (faults[0] if faults else f"status {run.returncode}")))
