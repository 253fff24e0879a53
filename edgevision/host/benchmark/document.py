"""The result as a file: written whole or not at all, read with suspicion, taken up again by a second run."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from edgevision.errors import StateError, UsageError
from edgevision.host.benchmark.settings import Candidate, Settings

SCHEMA = "edgevision/benchmark/1"
MAX_BYTES = 512 * 1024 * 1024
_NUMBERS = re.compile(r"\[\s+((?:-?[\d.e+-]+,\s+)*-?[\d.e+-]+)\s+\]")
_SAME_MACHINE = ("cpu", "architecture", "cores", "usable_cores", "governor", "python", "packages", "edgevision")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside and rename it: nobody ever sees half of it, and Ctrl-C leaves nothing.

    Raises:
        StateError: it cannot be written.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        temporary = None
    except OSError as failure:
        raise StateError(f"{path}: cannot be written: {failure.strerror or failure}") from failure
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a result; lists of numbers stand on one line."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    text = _NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", "", found[1]) + "]", text)
    write_bytes(path, text.encode() + b"\n")


def read(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        UsageError: it is missing, no JSON, or no benchmark's result.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: is larger than {MAX_BYTES} bytes; no result of `edgevision benchmark` is")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as failure:
        raise UsageError(f"{path}: cannot be read: {failure.strerror or failure}") from failure
    except (ValueError, RecursionError) as failure:
        raise UsageError(f"{path}: is no JSON: {failure}") from failure
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise UsageError(f"{path}: is no result of `edgevision benchmark`: schema is {found!r}, should be {SCHEMA!r}")
    if not (isinstance(content.get("results"), list) and isinstance(content.get("environment"), dict)):
        raise UsageError(f"{path}: is no whole result: `results` or `environment` is missing; measure again")
    return content


def new(environment: dict[str, Any]) -> dict[str, Any]:
    """A result without figures yet."""
    return {"schema": SCHEMA, "environment": environment, "results": [], "failures": []}


def resumed(path: Path, environment: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run left in `path`, to go on with; a new result where there is none.

    Raises:
        UsageError: it is no result, or was measured on another machine or with other versions.
    """
    if not path.exists():
        return new(environment)
    earlier = read(path)
    changed = [key for key in _SAME_MACHINE if earlier["environment"].get(key) != environment.get(key)]
    if changed:
        told = "; ".join(
            f"{key}: {earlier['environment'].get(key)} there, {environment.get(key)} here" for key in changed
        )
        raise UsageError(f"{path}: was measured elsewhere ({told}); give --fresh to start over, or another file")
    return {**earlier, "environment": environment, "failures": []}


def finished(document: dict[str, Any], candidate: Candidate, settings: Settings) -> bool:
    """Whether the same weights were measured already, in the same way."""
    return any(_same(result, candidate) and result["settings"] == settings.document() for result in document["results"])


def put(document: dict[str, Any], candidate: Candidate, result: dict[str, Any]) -> None:
    """Add a result, in place of an earlier one of the same candidate."""
    document["results"] = [one for one in document["results"] if not _same(one, candidate)] + [result]


def _same(result: dict[str, Any], candidate: Candidate) -> bool:
    mine = (candidate.given, candidate.like, candidate.sha256, candidate.backend, candidate.threads)
    model = result["model"]
    return mine == (model["given"], model["like"], model["sha256"], result["backend"], result["threads"])
