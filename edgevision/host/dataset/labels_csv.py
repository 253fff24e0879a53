"""labels.csv beside pictures: columns `file` and `class_index`, others are passed over. For classification.

labels.txt beside it names the classes; without one a class is called by its number.
"""

from __future__ import annotations

import csv
from pathlib import Path

from edgevision.errors import UsageError
from edgevision.host.dataset._collect import Collector, Place, read_label_names, read_lines, safe_name
from edgevision.host.dataset._format import Format
from edgevision.host.dataset._place import put_pictures, write_labels
from edgevision.host.dataset.base import Dataset, Sample
from edgevision.host.dataset.pictures import pictures_under

_CSV_FILE = "labels.csv"
_LABELS_FILE = "labels.txt"
_COLUMNS = ("file", "class_index")
_MAX_CLASSES = 1_000_000


def _csv_of(path: Path) -> Path | None:
    file = path if path.suffix.lower() == ".csv" else path / _CSV_FILE
    return file if file.is_file() else None


def _read(path: Path, *, split: str | None) -> Dataset:
    file = _csv_of(path)
    if file is None:
        raise UsageError(f"{path}: holds no {_CSV_FILE}")
    if split is not None:
        raise UsageError(f"{path}: has no part {split!r}: it holds one {_CSV_FILE}")
    collector = Collector()
    beside = file.parent
    folder = beside / "images" if (beside / "images").is_dir() else beside
    names_file = beside / _LABELS_FILE
    names = read_label_names(names_file, collector) if names_file.is_file() else None
    reader = csv.DictReader(read_lines(file, collector) or [], strict=True)
    highest, listed = -1, set()
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(f"{file}:1: has no column {' and no '.join(missing)}; it needs {', '.join(_COLUMNS)}")
        for row in reader:
            place = Place(file=str(file), line=reader.line_num)
            listed.add(str(row["file"]))
            sample = _sample(row, folder, names, place, collector)
            if sample is not None and sample.label_id is not None:
                collector.add(sample, place)
                highest = max(highest, sample.label_id)
    except csv.Error as failure:
        raise UsageError(f"{file}:{reader.line_num}: is not CSV: {failure}") from failure
    unlisted = sum(picture.relative_to(folder).as_posix() not in listed for picture in pictures_under(folder))
    collector.note(f"pictures are not in {_CSV_FILE}; they are left out", unlisted)
    return collector.dataset(
        source=path,
        format_name=FORMAT.name,
        task=FORMAT.task,
        labels=names if names is not None else tuple(str(number) for number in range(highest + 1)),
        labels_file=Place(file=str(names_file)),
        check_empty=names is not None,
    )


def _sample(
    row: dict[str, str], folder: Path, names: tuple[str, ...] | None, place: Place, collector: Collector
) -> Sample | None:
    if None in row or None in row.values():  # csv's words for too many and too few
        collector.fault(place, "has not as many columns as the first line names; it is left out")
        return None
    name, number = row["file"], row["class_index"].strip()
    known = len(names) if names is not None else _MAX_CLASSES
    if not safe_name(name):
        collector.fault(place, f"file {name!r} must stay within the picture folder; it is left out")
        return None
    if not number.isdecimal() or int(number[:9]) >= known or len(number) > 9:
        what = f"0 to {known - 1}" if names is not None else "a whole number from 0"
        collector.fault(place, f"there is no class {number!r} (must be {what}); it is left out")
        return None
    size = collector.size(folder / name, place)
    if size is None:
        return None
    return Sample(name=name, path=folder / name, width=size[0], height=size[1], label_id=int(number))


def _write(dataset: Dataset, folder: Path, *, link: bool) -> list[str]:
    put_pictures(dataset, folder / "images", link=link)
    write_labels(dataset, folder / _LABELS_FILE)
    with (folder / _CSV_FILE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for sample in dataset.samples:
            if sample.label_id is None:
                raise UsageError(f"{sample.path}: has no label, and every picture of this format has one")
            writer.writerow((sample.name, sample.label_id))
    return []


FORMAT = Format(
    name="csv",
    task="classification",
    signs=_CSV_FILE,
    looks_like=lambda path: _csv_of(path) is not None,
    read=_read,
    write=_write,
)
