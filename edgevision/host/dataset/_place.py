"""Datasets reach the disk whole or not at all: a folder under another name beside its place, then one rename.

Pictures are copied. A hard link would save the space, but a tool that edits a picture in place (stripping EXIF data, say)
would then change the other dataset too, a held-out test set among them; so linking has to be asked for.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unicodedata import category

from edgevision.errors import StateError, UsageError
from edgevision.host.dataset._collect import safe_name
from edgevision.host.dataset.base import Dataset

_UMASK = 0o022


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it takes its place when the block ends well, and is gone when it does not.

    Raises:
        UsageError: something is there already.
        StateError: it cannot be written.
    """
    _refuse_filled(target)
    temporary: Path | None = None
    try:
        parent = target.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
        temporary.chmod(0o777 & ~_UMASK)
        yield temporary
        temporary.rename(target)  # an empty folder in the place is taken over
        temporary = None
    except OSError as failure:
        if failure.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise UsageError(f"{target}: was filled by somebody else meanwhile; choose another folder") from failure
        raise StateError(f"{target}: cannot be written: {failure.strerror or failure}") from failure
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _refuse_filled(target: Path) -> None:
    try:
        if target.is_dir():
            if any(target.iterdir()):
                raise UsageError(f"{target}: is not empty; choose a new folder")
        elif target.exists() or target.is_symlink():
            raise UsageError(f"{target}: is there already and is no folder; choose a new folder")
    except OSError as failure:
        raise StateError(f"{target}: cannot be looked into: {failure.strerror or failure}") from failure


def put(source: Path, target: Path, *, link: bool) -> None:
    """Copy or hard-link a file, making the folders on the way; raises OSError, and StateError where linking cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as failure:
        raise StateError(
            f"{source}: cannot be hard-linked ({failure.strerror}): the new dataset must lie on the same file system; "
            f"leave --link out to copy"
        ) from failure


def put_pictures(dataset: Dataset, folder: Path, *, link: bool) -> None:
    """Every picture of a dataset under its name into a folder."""
    for sample in dataset.samples:
        if not safe_name(sample.name):
            raise UsageError(f"{sample.path}: the name {sample.name!r} leads out of the new folder; rename the picture")
        put(sample.path, folder / sample.name, link=link)


def label_paths(dataset: Dataset, suffix: str) -> list[str]:
    """Each picture's name with another suffix, for formats that keep one label file a picture.

    Raises:
        UsageError: two pictures would share one.
    """
    taken: dict[str, str] = {}
    for sample in dataset.samples:
        name = str(Path(sample.name).with_suffix(suffix))
        if name in taken:
            raise UsageError(
                f"{dataset.source}: {taken[name]} and {sample.name} would share the label file {name}; rename one of them"
            )
        taken[name] = sample.name
    return list(taken)


def write_labels(dataset: Dataset, path: Path) -> None:
    """One label a line.

    Raises:
        UsageError: a label cannot be a line.
    """
    for label in dataset.labels:
        if (
            label != label.strip()
            or len(label.splitlines()) != 1
            or any(category(char) in {"Cc", "Cs"} for char in label)
        ):
            raise UsageError(f"{dataset.source}: the label {label!r} cannot stand on a line of its own; rename it")
    path.write_text("".join(f"{label}\n" for label in dataset.labels), encoding="utf-8")
