"""Datasets of any format: `read` looks what is there, `write` makes a new folder whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgevision.errors import ImageError, UsageError
from edgevision.host.dataset import coco, folders, labels_csv, masks, voc, yolo
from edgevision.host.dataset._format import Format, pick_split, role_of_split
from edgevision.host.dataset._place import new_folder
from edgevision.host.dataset.base import Dataset, Role
from edgevision.host.dataset.dataset_file import DatasetFile, folder_of, read_dataset_file, write_dataset_file
from edgevision.registry import unknown_name

FORMATS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT for module in (coco, yolo, voc, folders, labels_csv, masks)
}

_SHOWN_FAULTS = 20


def read(
    path: str | Path,
    format: str | None = None,  # noqa: A002 - the word of the field and of the command line
    *,
    role: Role | None = None,
    split: str | None = None,
) -> Dataset:
    """Read a dataset. What is wrong with single pictures and labels is in its `faults`, and no exception.

    Args:
        path: a folder, a COCO JSON, a YOLO data.yaml, or a labels.csv.
        format: coco, yolo, voc, folders, csv or masks; None looks what is there.
        role: what it is for, where its dataset.yaml does not say; they must not contradict each other.
        split: `train`, `val` or `test`, where there are several.

    Raises:
        UsageError: nothing is there, it is of no known format or of more than one, `split` has to be given, or `role`
            is not what the dataset file says.
        DocumentError: its dataset.yaml or data.yaml is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if format is not None and format not in FORMATS:
        raise UsageError(unknown_name("format", format, sorted(FORMATS)))
    said = read_dataset_file(path)
    if said is not None and said.format is not None and said.format not in FORMATS:
        raise UsageError(f"{path}: dataset.yaml: {unknown_name('format', said.format, sorted(FORMATS))}")
    found = _detect(path, format or (said.format if said else None))
    if found is None:
        path, split = _part(path, split, format), None
        said = read_dataset_file(path)
        found = _detect(path, format or (said.format if said else None))
        if found is None:  # a part was found, so it has a format
            raise UsageError(f"{path}: is of no known format")
    dataset = found.read(path, split=split)
    return replace(dataset, role=_role(path, dataset.role, said.role if said else None, role))


def _detect(path: Path, name: str | None) -> Format | None:
    """The one format that a path looks like, or the one that is named."""
    try:
        if name is not None:
            part_of = not FORMATS[name].looks_like(path) and path.is_dir() and _parts(path, name)
            return None if part_of else FORMATS[name]
        matching = [known for known in FORMATS.values() if known.looks_like(path)]
    except OSError as failure:
        raise UsageError(f"{path}: cannot be looked into: {failure.strerror or failure}") from failure
    if len(matching) > 1:
        names = " and ".join(f"{known.name} ({known.signs})" for known in matching)
        raise UsageError(f"{path}: looks like {names}; choose with --format")
    if not matching and not _parts(path, None):
        signs = "; ".join(f"{known.name}: {known.signs}" for known in FORMATS.values())
        raise UsageError(f"{path}: is of no known format; looked for {signs}")
    return matching[0] if matching else None


def _parts(path: Path, name: str | None) -> dict[str, Path]:
    """Folders inside named train, val, test that are datasets themselves, as `dataset split` and Roboflow write them."""
    if not path.is_dir():
        return {}
    known = [FORMATS[name]] if name is not None else list(FORMATS.values())
    return {
        child.name: child
        for child in sorted(path.iterdir())
        if child.is_dir() and role_of_split(child.name) and any(one.looks_like(child) for one in known)
    }


def _part(path: Path, split: str | None, name: str | None) -> Path:
    return pick_split(path, _parts(path, name), split)[1]


def _role(path: Path, by_format: Role | None, by_file: Role | None, asked: Role | None) -> Role | None:
    """`test` is never overruled: a held-out set must not be taken for another by a slip."""
    said = by_file or by_format
    if by_file is not None and by_format is not None and by_file != by_format:
        raise UsageError(f"{folder_of(path)}: dataset.yaml says role {by_file}, but this part is for {by_format}")
    if asked is not None and said is not None and asked != said:
        raise UsageError(f"{path}: is marked as {said}, and cannot be used as {asked}")
    return said or asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A dataset that was written."""

    folder: Path
    lost: tuple[str, ...]
    """What the format could not hold, each with its number."""


def write(
    dataset: Dataset,
    folder: str | Path,
    format: str,  # noqa: A002 - as in `read`
    *,
    link: bool = False,
    made: Mapping[str, object] | None = None,
) -> Written:
    """Write a dataset into a new folder, with a dataset.yaml; it is there whole or not at all.

    Args:
        dataset: what to write; its faults are not looked at (`refuse_faults`).
        folder: must not exist, or be empty.
        format: one of `FORMATS`, for the dataset's task.
        link: make hard links of the pictures; by default they are copied.
        made: how it was made, for the dataset.yaml.

    Raises:
        UsageError: the folder is filled, the format is not for this task, or a name cannot be stored in it.
        StateError: it cannot be written.
    """
    folder = Path(folder)
    _check_format(dataset, format)
    with new_folder(folder) as temporary:
        lost = fill(dataset, temporary, format, link=link, made=made)
    return Written(folder=folder, lost=tuple(lost))


def _check_format(dataset: Dataset, name: str) -> None:
    if name not in FORMATS:
        raise UsageError(unknown_name("format", name, sorted(FORMATS)))
    if not dataset.samples:
        raise UsageError(f"{dataset.source}: holds no picture that can be used; there is nothing to write")
    if FORMATS[name].task != dataset.task:
        fitting = ", ".join(known.name for known in FORMATS.values() if known.task == dataset.task)
        raise UsageError(
            f"{dataset.source}: holds labels for {dataset.task}, which {name} cannot store; choose {fitting}"
        )


def fill(
    dataset: Dataset,
    folder: Path,
    format_name: str,
    *,
    link: bool,
    made: Mapping[str, object] | None,
) -> list[str]:
    """Write into an empty folder that the caller puts in its place; gives what was lost, may raise OSError."""
    _check_format(dataset, format_name)
    lost = FORMATS[format_name].write(dataset, folder, link=link)
    content = DatasetFile(format=format_name, role=dataset.role, made=dict(made) if made is not None else None)
    write_dataset_file(folder, content)
    written = read(folder)
    if len(written) != len(dataset):
        raise UsageError(
            f"{dataset.source}: only {len(written)} of {len(dataset)} pictures can be read back as {format_name}; the first "
            f"fault: {written.faults[0] if written.faults else 'none'}"
        )
    write_dataset_file(folder, content.model_copy(update={"digest": written.digest()}))
    return lost


def refuse_faults(dataset: Dataset, *, skip_faulty: bool) -> None:
    """Raise ImageError with the faults of a dataset, unless its user has said to go on without what is faulty."""
    if dataset.faults and not skip_faulty:
        told = "".join(f"\n  {fault}" for fault in dataset.faults[:_SHOWN_FAULTS])
        more = len(dataset.faults) - _SHOWN_FAULTS
        told += f"\n  and {more} more" if more > 0 else ""
        raise ImageError(
            f"{dataset.source}: {len(dataset.faults)} faults; mend them, or leave them out with --skip-faulty:{told}"
        )
