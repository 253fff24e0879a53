"""A folder for each class, holding its pictures: the format of classification.

Labels are the folders' names, in the order of labels.txt where there is one, else sorted. A picture's name keeps its
folder: `cat/1.jpg`.
"""

from __future__ import annotations

from pathlib import Path

from edgevision.capture.images import IMAGE_SUFFIXES
from edgevision.errors import UsageError
from edgevision.host.dataset._collect import Collector, Place, read_label_names
from edgevision.host.dataset._format import Format, role_of_split
from edgevision.host.dataset._place import put, write_labels
from edgevision.host.dataset.base import Dataset, Sample
from edgevision.host.dataset.pictures import pictures_under

_LABELS_FILE = "labels.txt"
_OTHERS = frozenset({"images", "labels", "masks", "annotations", "jpegimages", "imagesets"})
"""Folders that other formats have, lower case."""


def _class_folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _looks_like(path: Path) -> bool:
    if not path.is_dir():
        return False
    folders = _class_folders(path)
    names = {folder.name.lower() for folder in folders}
    if names & _OTHERS or all(role_of_split(name) for name in names):
        return False
    return any(child.suffix.lower() in IMAGE_SUFFIXES for folder in folders for child in folder.iterdir())


def _read(path: Path, *, split: str | None) -> Dataset:
    if not path.is_dir():
        raise UsageError(f"{path}: is no folder with a folder for each class")
    if split is not None:
        raise UsageError(f"{path}: has no part {split!r}: it holds a folder for each class")
    collector = Collector()
    folders = {folder.name: folder for folder in _class_folders(path)}
    names_file = path / _LABELS_FILE
    labels = read_label_names(names_file, collector) if names_file.is_file() else tuple(folders)
    for name, folder in folders.items():
        if name not in labels:
            collector.fault(Place(file=str(folder)), f"{_LABELS_FILE} has no label {name!r}; its pictures are left out")
            continue
        for picture in pictures_under(folder):
            place = Place(file=str(picture))
            size = collector.size(picture, place)
            if size is not None:
                sample = Sample(
                    name=picture.relative_to(path).as_posix(),
                    path=picture,
                    width=size[0],
                    height=size[1],
                    label_id=labels.index(name),
                )
                collector.add(sample, place)
    loose = sum(child.suffix.lower() in IMAGE_SUFFIXES for child in path.iterdir())
    collector.note("pictures lie outside the class folders; they are left out", loose)
    return collector.dataset(
        source=path,
        format_name=FORMAT.name,
        task=FORMAT.task,
        labels=labels,
        labels_file=Place(file=str(names_file if names_file.is_file() else path)),
    )


def _write(dataset: Dataset, folder: Path, *, link: bool) -> list[str]:
    for label in dataset.labels:
        if label in {".", ".."} or label.startswith(".") or set(label) & set("/\\\0") or len(label.encode()) > 255:
            raise UsageError(f"{dataset.source}: the label {label!r} cannot be a folder's name; write `csv` instead")
        (folder / label).mkdir()
    taken: set[Path] = set()
    for sample in dataset.samples:
        if sample.label_id is None:
            raise UsageError(f"{sample.path}: has no label, and every picture of this format has one")
        label = dataset.labels[sample.label_id]
        inside = sample.name if sample.name.startswith(f"{label}/") else f"{label}/{sample.name}"
        if folder / inside in taken:
            raise UsageError(
                f"{sample.path}: another picture of {label!r} would have the same name; rename one of them"
            )
        taken.add(folder / inside)
        put(sample.path, folder / inside, link=link)
    write_labels(dataset, folder / _LABELS_FILE)
    return []


FORMAT = Format(
    name="folders",
    task="classification",
    signs="a folder of pictures for each class",
    looks_like=_looks_like,
    read=_read,
    write=_write,
)
