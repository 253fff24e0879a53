"""`models pull`: the files that a model.yaml names and that are not here yet, from their own addresses or from a mirror.

A model that the package ships is never written to: it gets a folder of the user's own with the same model.yaml, which appears
as a whole when its files have arrived, and comes before the shipped one from then on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.environment import user_models_dir
from edgevision.errors import ModelError, StateError, UsageError
from edgevision.fetch import SILENCE_S, Wanted, fetch
from edgevision.manifest import FileSection, check_weights
from edgevision.model_store import ModelFolder, find, open_folder
from edgevision.retry import Backoff

PARTS = ".pulling"
"""The folder of half-arrived files, beside the models; the name begins with a dot, so it is no model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What became of one file."""

    backend: str
    file: str
    state: str
    """`here`, `pulled`, or why it was not."""


def pull(
    name: str,
    *,
    backends: Iterable[str] | None = None,
    mirror: str | None = None,
    models_dir: Path | None = None,
    on_progress: Callable[[str, int, int], None] = lambda _file, _done, _size: None,
    clock: Clock = SYSTEM_CLOCK,
    backoff: Callable[[], Backoff] = lambda: Backoff(first_s=1.0, max_s=15.0),
    silence_s: float = SILENCE_S,
) -> tuple[ModelFolder, list[Pulled]]:
    """Bring every file of a model that is not here.

    Args:
        name: of the model.
        backends: only the files of these; None: of all.
        mirror: a folder, or an address, that holds `{model}/{file}`; nothing else is asked then.
        models_dir: the user's models folder.
        on_progress: is told file, bytes that are there, and bytes in all.
        clock: waits between tries.
        backoff: makes what says how long.
        silence_s: when a line that says nothing is given up.

    Returns:
        The model's folder, which may be another than before; and what became of each file.

    Raises:
        UsageError: no such model or backend, or the mirror is none.
        ModelError: it is a pattern; or a file cannot be had, or is not what model.yaml says.
        StateError: it cannot be written.
    """
    folder = find(name, models_dir)
    folder.manifest.refuse_pattern()
    sections = _sections(folder, backends)
    if mirror is not None:
        _check_mirror(mirror)
    root = models_dir or user_models_dir()
    home = root if folder.shipped else folder.path.parent
    results: list[Pulled] = []
    arrived: dict[str, Path] = {}
    for backend, section in sections.items():
        file = section.file_name
        path = folder.path / file
        if file in arrived or _is_good(path, section):
            results.append(Pulled(backend=backend, file=file, state="here"))
            continue
        source = _source(folder, section, mirror)
        if source is None:
            results.append(Pulled(backend=backend, file=file, state="model.yaml names no address; give --mirror"))
            continue
        _make_folder(home / PARTS)  # only now: who has everything needs no folder that can be written
        part = home / PARTS / f"{section.sha256}.part"
        ready = part.with_suffix(".whole") if folder.shipped else path
        if not _is_good(ready, section):
            wanted = Wanted(size=section.size, sha256=section.sha256)
            fetch(
                source,
                wanted,
                ready,
                part=part,
                on_progress=lambda done, file=file, size=section.size: on_progress(file, done, size),  # type: ignore[misc]
                clock=clock,
                backoff=backoff(),
                silence_s=silence_s,
            )
        arrived[file] = ready
        results.append(Pulled(backend=backend, file=file, state="pulled"))
    if folder.shipped and arrived:
        folder = _own_copy(folder, root, arrived)
    _tidy(home / PARTS)
    return folder, results


def _sections(folder: ModelFolder, backends: Iterable[str] | None) -> dict[str, FileSection]:
    files = folder.manifest.files
    if backends is None:
        return dict(files)
    chosen = {}
    for backend in backends:
        if backend not in files:
            raise UsageError(
                f"{folder.manifest.name} names no file for {backend}; it names some for {', '.join(files)}"
            )
        chosen[backend] = files[backend]
    return chosen


def _is_good(path: Path, section: FileSection) -> bool:
    """Whether the file is here and is what model.yaml says; one that is not is pulled anew."""
    try:
        with path.open("rb") as stream:
            check_weights(stream.read(section.size + 1), section, path)
    except (OSError, ModelError):
        return False
    return True


def _check_mirror(mirror: str) -> None:
    try:
        scheme = urlsplit(mirror).scheme.lower()
    except ValueError as failure:
        raise UsageError(f"--mirror: {mirror}: is no address: {failure}") from failure
    if "://" not in mirror and scheme != "file":
        if not Path(mirror).is_dir():
            raise UsageError(
                f"--mirror: {mirror}: no such folder; give a folder with MODEL/FILE in it, or an address of one"
            )
    elif scheme not in {"http", "https", "file"}:
        raise UsageError(f"--mirror: {mirror}: must be a folder, or begin with https:, http: or file:")


def _source(folder: ModelFolder, section: FileSection, mirror: str | None) -> str | None:
    if mirror is None:
        return section.url
    if urlsplit(mirror).scheme.lower() in {"http", "https", "file"}:
        return f"{mirror.rstrip('/')}/{quote(folder.manifest.name)}/{quote(section.file_name)}"
    return str(Path(mirror) / folder.manifest.name / section.file_name)


def _own_copy(folder: ModelFolder, root: Path, arrived: dict[str, Path]) -> ModelFolder:
    """The shipped folder with the files that arrived, as one of the user's own; all at once."""
    target = root / folder.path.name
    try:
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=root) as temporary:
            made = Path(temporary) / target.name
            shutil.copytree(folder.path, made, ignore=shutil.ignore_patterns("__pycache__"))
            for file, ready in arrived.items():
                ready.replace(made / file)
            made.rename(target)
    except OSError as failure:
        raise StateError(f"{target}: cannot be written: {failure.strerror or failure}") from failure
    return open_folder(target)


def _make_folder(parts: Path) -> None:
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise StateError(f"{parts.parent}: cannot be written: {failure.strerror or failure}") from failure


def _tidy(parts: Path) -> None:
    """The folder of parts goes when nothing is in it."""
    if parts.is_dir() and not any(parts.iterdir()):
        parts.rmdir()
