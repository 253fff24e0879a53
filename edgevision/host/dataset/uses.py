"""How often a held-out test set was looked at: each look lets a little of it leak into the choices made by its figures.

Every use is a line of `test-uses.jsonl` beside the dataset, or, where that cannot be written, in the user's state folder.
Both are counted. A line belongs to a dataset by its digest or by its name in that folder: mending one label does not start
the count anew.
"""

from __future__ import annotations

import fcntl
import json
import os
from datetime import datetime, timezone
from pathlib import Path

from edgevision.environment import default_state_dir
from edgevision.errors import StateError
from edgevision.host.dataset.base import Dataset
from edgevision.host.dataset.dataset_file import FILE_NAME, folder_of

LEDGER_NAME = "test-uses.jsonl"


def note_use(dataset: Dataset, *, model: str, figure: str, state_dir: Path | None = None) -> int:
    """Write down that a test set was used.

    Args:
        dataset: only one whose role is `test` is counted; for any other nothing is written and 0 given.
        model: name and version or digest.
        figure: what came out, such as `mAP 0.354`.
        state_dir: the user's state folder, for tests.

    Returns:
        How often it was used before.

    Raises:
        StateError: neither ledger can be written: a use that is not counted is not allowed.
    """
    if dataset.role != "test":
        return 0
    digest = dataset.digest()
    beside = _home(dataset) / LEDGER_NAME
    elsewhere = (state_dir or default_state_dir()) / "dataset-uses" / LEDGER_NAME
    before = _count(beside, digest, dataset.source.name) + _count(elsewhere, digest, None)
    line = {
        "used_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "dataset": dataset.source.name,
        "digest": digest,
        "model": model,
        "figure": figure,
    }
    content = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    try:
        _append(beside, content)
    except OSError:
        try:
            elsewhere.parent.mkdir(parents=True, exist_ok=True)
            _append(elsewhere, content)
        except OSError as failure:
            raise StateError(
                f"{elsewhere}: the use of the test set cannot be written down, nor beside it: {failure.strerror or failure}"
            ) from failure
    return before


def _home(dataset: Dataset) -> Path:
    """The dataset's own folder, also where it was reached through a data.yaml above it: there is one ledger for a set."""
    top = folder_of(dataset.source)
    for folder in dataset.samples[0].path.parents if dataset.samples else ():
        if not folder.absolute().is_relative_to(top.absolute()):
            break
        if (folder / FILE_NAME).is_file():
            return folder
    return top


def _count(ledger: Path, digest: str, name: str | None) -> int:
    """Lines about this dataset; one that is cut off (a full disk) stands for a use too."""
    try:
        lines = ledger.read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    except OSError as failure:
        raise StateError(f"{ledger}: cannot be read: {failure.strerror or failure}") from failure
    count = 0
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            count += 1 if line.strip() and name is not None else 0
            continue
        if isinstance(entry, dict):
            count += entry.get("digest") == digest or (name is not None and entry.get("dataset") == name)
    return count


def _append(ledger: Path, content: bytes) -> None:
    """Add a line under a lock, so that two evaluations at once both count."""
    with ledger.open("ab+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            if stream.read(1) != b"\n":  # the last use was cut off
                content = b"\n" + content
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
