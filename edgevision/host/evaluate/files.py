"""Results reach the disk whole or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from edgevision.errors import StateError


def write_whole(target: Path, content: bytes) -> None:
    """Write a file; whatever interrupts, either the old one stays or the new one is there.

    Raises:
        StateError: it cannot be written.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        temporary.chmod(0o644)
        temporary.replace(target)
        temporary = None
    except OSError as failure:
        raise StateError(f"{target}: cannot be written: {failure.strerror or failure}") from failure
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(target: Path) -> None:
    """Tell before hours of work that a result could not be written after it; raises StateError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as failure:
        raise StateError(f"{target}: cannot be written: {failure.strerror or failure}") from failure
    if target.is_dir():
        raise StateError(f"{target}: cannot be written: is a folder; name a file")


def write_json(target: Path, document: Any) -> None:
    """Write a JSON document for people and programs; NaN is a bug and refused."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(target, (text + "\n").encode())
