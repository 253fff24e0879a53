"""Whether the folders that the daemon writes to can be written to, by whoever runs this: really tried."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgevision.doctor.findings import Finding, fault, ok


def check(job: dict[str, Any]) -> Iterator[Finding]:
    """The state folder, the models' folder, and every cache that a model's options name."""
    yield _writable("state_dir", Path(job["state_dir"]))
    if Path(job["models_dir"]) != Path(job["state_dir"]) / "models":
        yield _writable("models", Path(job["models_dir"]))
    for name, section in job["models"].items():
        for key, folder in _caches(section.get("options")):
            yield _writable(f"models.{name}.options.{key}", Path(folder))


def _caches(options: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every value under a key that names a cache, however deep."""
    entries = options.items() if isinstance(options, dict) else enumerate(options) if isinstance(options, list) else ()
    for key, value in entries:
        place = f"{at}.{key}" if at else str(key)
        if isinstance(value, str) and isinstance(key, str) and ("cache_dir" in key or "cache_path" in key):
            yield place, value
        yield from _caches(value, place)


def _writable(subject: str, folder: Path) -> Finding:
    who = _user()
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    fix = f"install -d -o {who} {folder}, or name another folder; the service runs as its own user: edgevision install"
    if not place.is_dir():
        return fault("folders", subject, f"{place} is not a folder", "name another folder, or take that file away")
    try:
        # A name of its own, so that nothing of anybody's is written over.
        with tempfile.NamedTemporaryFile(prefix=".edgevision-doctor-", dir=place) as probe:
            probe.write(b"edgevision doctor\n")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as failure:
        return fault("folders", subject, f"{place} cannot be written to by {who}: {failure.strerror}", fix)
    if place != folder:
        return ok("folders", subject, f"{folder} is not there yet and can be made by {who}")
    return ok("folders", subject, f"{folder} can be written to by {who}")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user needs no name
        return str(os.geteuid())
