"""YOLO text labels: one file a picture, `class cx cy width height` a line, in shares of the picture's sides.

Two ways to say which pictures: a data.yaml with `names` and `train`, `val`, `test`; or bare folders images/ and labels/
with a classes.txt. The labels of `images/a/b.jpg` are in `labels/a/b.txt`. A picture without a label file shows nothing:
that is how the format says "background".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgevision import documents
from edgevision.errors import DocumentError, UsageError
from edgevision.host.dataset._collect import Collector, Place, read_label_names, read_lines
from edgevision.host.dataset._format import Format, count_lost, pick_split, role_of_split
from edgevision.host.dataset._place import label_paths, put_pictures
from edgevision.host.dataset.base import Box, Dataset, Role, Sample
from edgevision.host.dataset.pictures import pictures_under

_NAMES_FILES = ("classes.txt", "labels/classes.txt", "labels.txt")
_YAML_FILES = ("data.yaml", "data.yml")
_PARTS = ("train", "val", "valid", "test")


def _looks_like(path: Path) -> bool:
    return _yaml_of(path) is not None or _names_of(path) is not None


def _yaml_of(path: Path) -> Path | None:
    files = [path] if path.is_file() else [path / name for name in _YAML_FILES]
    for file in files:
        if file.suffix.lower() in {".yaml", ".yml"} and file.is_file():
            try:
                data = documents.read(file, error=DocumentError).data
            except DocumentError:
                return file if file.name in _YAML_FILES else None  # the reader says what is wrong with it
            if isinstance(data, dict) and "names" in data and any(part in data for part in _PARTS):
                return file
    return None


def _names_of(path: Path) -> Path | None:
    if not (path / "images").is_dir() or not (path / "labels").is_dir():
        return None
    return next((path / name for name in _NAMES_FILES if (path / name).is_file()), None)


@dataclass(slots=True)
class _Job:
    """What is read: pictures with the folder that their names are relative to."""

    labels: tuple[str, ...] = ()
    pictures: list[tuple[Path, Path]] = field(default_factory=list)
    labels_file: Path = Path()
    role: Role | None = None


def _read(path: Path, *, split: str | None) -> Dataset:
    collector = Collector()
    file = _yaml_of(path)
    names = _names_of(path) if file is None else None
    if file is not None:
        job = _from_yaml(file, split, collector)
    elif names is not None:
        if split is not None:
            raise UsageError(f"{path}: has no part {split!r}: it holds images/ and labels/ only, and no data.yaml")
        folder = path / "images"
        job = _Job(read_label_names(names, collector), [(picture, folder) for picture in pictures_under(folder)], names)
    else:
        raise UsageError(f"{path}: is no YOLO dataset: give a data.yaml, or a folder with {FORMAT.signs}")
    for picture, folder in job.pictures:
        _add(picture, folder, job.labels, collector)
    _lone_labels(job, collector)
    return collector.dataset(
        source=file or path,
        format_name=FORMAT.name,
        task=FORMAT.task,
        labels=job.labels,
        labels_file=Place(file=str(job.labels_file)),
        role=job.role,
    )


def _from_yaml(file: Path, split: str | None, collector: Collector) -> _Job:
    document = documents.read(file, error=DocumentError)
    data: Mapping[str, Any] = document.data if isinstance(document.data, dict) else {}
    place = Place(file=str(file), line=document.line(("names",)), what="names")
    labels = _labels(file, data.get("names"), document)
    count = data.get("nc")
    if count is not None and count != len(labels):
        collector.fault(place, f"holds {len(labels)} labels, but nc says {count}")
    root = _root(file, data.get("path"))
    parts: dict[str, list[Path]] = {}
    for part in _PARTS:
        value = data.get(part)
        entries = [value] if isinstance(value, str) else value
        if value is None:
            continue
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise UsageError(
                f"{file}:{document.line((part,))}: {part}: must be a folder, a list file, or a list of them"
            )
        parts[part] = [_resolve(root, entry) for entry in entries]
    if not parts:
        raise UsageError(f"{file}: names no pictures: give one of {', '.join(_PARTS)}")
    same = len({tuple(paths) for paths in parts.values()}) == 1  # as `train` and `val` of a dataset that was not split
    if same and split is None and len(parts) > 1:
        part, role = next(iter(parts)), None
    else:
        part = pick_split(file, parts, split)[0]
        role = role_of_split(part)
    place = Place(file=str(file), line=document.line((part,)), what=part)
    pictures = [found for entry in parts[part] for found in _listed(entry, place, collector)]
    return _Job(labels, pictures, file, role)


def _labels(file: Path, names: Any, document: documents.Document) -> tuple[str, ...]:
    """`names` as a list, or as a mapping from number to name."""
    where = f"{file}:{document.line(('names',))}: names"
    if isinstance(names, dict):
        wanted = [str(number) for number in range(len(names))]
        if sorted(names) != sorted(wanted):
            raise UsageError(
                f"{where}: must be numbered 0 to {len(names) - 1} without gaps; found {', '.join(names)[:80]}"
            )
        names = [names[number] for number in wanted]
    if not isinstance(names, list) or not names:
        raise UsageError(f"{where}: must be a list of labels, or labels by number")
    for index, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise UsageError(f"{where}: label {index} reads as {name!r}; write it in quotes")
    return tuple(str(name) for name in names)


def _root(file: Path, said: Any) -> Path:
    """`path`, relative to the data.yaml; where it leads nowhere (it was written on another machine), the data.yaml's folder."""
    beside = file.absolute().parent
    if not isinstance(said, str) or not said:
        return beside
    return beside / said if (beside / said).is_dir() else beside


def _resolve(root: Path, entry: str) -> Path:
    """A part's pictures. Roboflow writes `../train/images` for what lies beside the data.yaml, and readers go along."""
    path = root / entry
    if not path.exists() and entry.startswith("../") and (root / entry[3:]).exists():
        path = root / entry[3:]
    return Path(os.path.normpath(path))


def _listed(entry: Path, place: Place, collector: Collector) -> list[tuple[Path, Path]]:
    """Pictures of a folder, or those that a list file names, each with the folder that its name is relative to."""
    if entry.is_dir():
        pictures = pictures_under(entry)
        if not pictures:
            collector.fault(place, f"{entry}: holds no picture")
        return [(picture, entry) for picture in pictures]
    if entry.suffix.lower() != ".txt" or not entry.is_file():
        raise UsageError(f"{place.file}:{place.line}: {place.what}: {entry}: no such folder or list of pictures (.txt)")
    found = []
    for number, line in enumerate(read_lines(entry, collector) or [], start=1):
        if line.strip():
            picture = Path(os.path.normpath(entry.parent / line.strip()))
            folder = next((up for up in picture.parents if up.name == "images"), picture.parent)
            if picture.is_file():
                found.append((picture, folder))
            else:
                collector.fault(
                    Place(file=str(entry), line=number), f"{picture}: the picture is missing; it is left out"
                )
    return found


def _label_file(picture: Path) -> Path:
    """The format's rule: the last folder `images` becomes `labels`; without one, the labels lie beside the picture."""
    parts = list(picture.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _add(picture: Path, folder: Path, labels: tuple[str, ...], collector: Collector) -> None:
    label_file = _label_file(picture)
    here = Place(file=str(picture))
    size = collector.size(picture, here)
    if size is None:
        return
    boxes: list[Box] = []
    if label_file.is_file():
        for number, line in enumerate(read_lines(label_file, collector) or [], start=1):
            if line.strip():
                box = _box(line.split(), labels, size, Place(file=str(label_file), line=number), collector)
                boxes += [box] if box else []
    else:
        collector.note("pictures have no label file; they count as showing nothing")
    name = picture.relative_to(folder).as_posix()
    collector.add(Sample(name=name, path=picture, width=size[0], height=size[1], boxes=tuple(boxes)), here)


def _box(
    columns: list[str], labels: tuple[str, ...], size: tuple[int, int], place: Place, collector: Collector
) -> Box | None:
    if len(columns) != 5:
        seems = ""
        if len(columns) > 5:
            seems = (
                " (a confidence: these are predictions)" if len(columns) == 6 else " (an outline: only boxes are read)"
            )
        collector.fault(
            place, f"has {len(columns)} columns, 5 make a box: class cx cy width height{seems}; it is left out"
        )
        return None
    try:
        number, (cx, cy, width, height) = float(columns[0]), (float(column) for column in columns[1:])
    except ValueError:
        collector.fault(place, f"must hold numbers: {' '.join(columns)[:80]!r}; it is left out")
        return None
    if number not in range(len(labels)):
        known = f"0 to {len(labels) - 1}" if labels else "none"
        collector.fault(place, f"there is no class {columns[0]} (known: {known}); it is left out")
        return None
    edges = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    in_pixels = any(abs(edge) > 2 for edge in edges)
    hint = "; YOLO's numbers are shares from 0 to 1, these look like pixels" if in_pixels else ""
    left, top, right, bottom = (edge * side for edge, side in zip(edges, (*size, *size), strict=True))
    return collector.box(Box(label_id=int(number), xyxy=(left, top, right, bottom)), *size, place, hint=hint)


def _lone_labels(job: _Job, collector: Collector) -> None:
    """Label files whose picture is not there, and pictures that share one label file."""
    seen: dict[Path, Path] = {}
    folders = set()
    for picture, folder in job.pictures:
        label_file = _label_file(picture)
        if label_file in seen:
            first = seen[label_file].name
            collector.fault(Place(file=str(label_file)), f"is shared by {first} and {picture.name}; rename one of them")
        seen.setdefault(label_file, picture)
        folders.add((_label_file(folder / "any.jpg").parent, folder))
    for label_folder, folder in sorted(folders):
        if label_folder == folder or not label_folder.is_dir():
            continue
        for label_file in sorted(label_folder.rglob("*.txt")):
            if label_file not in seen and label_file.name != "classes.txt":
                missing = folder / label_file.relative_to(label_folder).with_suffix("")
                collector.fault(
                    Place(file=str(label_file)), f"its picture {missing}.* is missing; its labels are left out"
                )


def _write(dataset: Dataset, folder: Path, *, link: bool) -> list[str]:
    put_pictures(dataset, folder / "images", link=link)
    (folder / "labels").mkdir(exist_ok=True)
    for name, sample in zip(label_paths(dataset, ".txt"), dataset.samples, strict=True):
        lines = [_line(box, sample) for box in sample.boxes]
        file = folder / "labels" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), encoding="utf-8")
    # Training tools want both `train` and `val`; a dataset of unknown use is both, a test set is neither.
    parts = {"train": ["train"], "validation": ["val"], "test": ["test"]}.get(dataset.role or "", ["train", "val"])
    content = {"path": ".", **dict.fromkeys(parts, "images"), "nc": len(dataset.labels), "names": list(dataset.labels)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return count_lost(dataset)


def _line(box: Box, sample: Sample) -> str:
    left, top, right, bottom = box.xyxy
    shares = (
        (left + right) / 2 / sample.width,
        (top + bottom) / 2 / sample.height,
        (right - left) / sample.width,
        (bottom - top) / sample.height,
    )
    return f"{box.label_id} " + " ".join(f"{share:.12f}".rstrip("0").rstrip(".") for share in shares) + "\n"


FORMAT = Format(
    name="yolo",
    task="detection",
    signs="a data.yaml, or images/ and labels/ with classes.txt",
    looks_like=_looks_like,
    read=_read,
    write=_write,
)
