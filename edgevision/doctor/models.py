"""Whether the models are what their manifests say, and have a file and a runtime for what the config asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgevision import assembly, model_store
from edgevision.doctor.findings import Finding, fault, ok, parted, warning
from edgevision.errors import EdgevisionError
from edgevision.model_store import ModelFolder


def check(job: dict[str, Any]) -> Iterator[Finding]:
    """One model: every file of it is read and compared with its digest."""
    section, name = job["section"], str(job["name"])
    try:
        folder = model_store.find(str(section.get("model", "")), Path(job["models_dir"]))
    except EdgevisionError as failure:
        yield fault(
            "models", name, str(failure).replace("\n", "; "), "name one of those, or `edgevision models add` it"
        )
        return
    chosen: str | None = None
    if job["named"]:
        try:
            wanted = section.get("backend")
            chosen = assembly.choose_backend(folder, wanted if isinstance(wanted, str) else None)
        except EdgevisionError as failure:
            found, fix = parted(str(failure))
            yield fault("models", name, found, fix)
            return
    used = folder.manifest.find_file(chosen) if chosen else None
    for backend, state in model_store.verify(folder).items():
        file = folder.manifest.files[backend]
        subject = f"{name} ({backend})"
        if state == "ok":
            yield ok("models", subject, f"{folder.path / file.file_name}: size and sha256 are right")
            continue
        absent = state.startswith("not here")
        found, fix = _wrong(folder, backend, state, str(section["model"]))
        if not absent or file is used:
            yield fault("models", subject, found, fix)
        elif used is None:
            yield ok("models", subject, f"its weights are not here ({fix})")
    if not folder.manifest.proved and job["named"]:
        words = "unproved: no measured accuracy stands beside it"
        yield warning("models", name, words, f"edgevision evaluate {folder.manifest.name} PICTURES")


def _wrong(folder: ModelFolder, backend: str, state: str, named: str) -> tuple[str, str]:
    """What is found of a file that is not as it should be, and the fix."""
    file = folder.manifest.files[backend]
    if state.startswith("not here"):
        found, fix = (
            f"{folder.path / file.file_name}: not here",
            f"edgevision models add FILE --like {folder.manifest.name}",
        )
    else:
        found, fix = parted(state)
        fix += ": put the right file in its place"
    return found, f"edgevision models pull {named}" if file.url else fix
