"""COCO JSON: one file with pictures, categories and boxes. The reader keeps the place of every entry for its messages.

Only boxes are read; outlines and keypoints are counted in the notes. Categories are put in the order of their ids, and
written with the ids 1 to n. `difficult` is written as an extra key, which other readers pass over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from edgevision.errors import UsageError
from edgevision.host.dataset._collect import Collector, Place, safe_name
from edgevision.host.dataset._entries import Entry, EntryText
from edgevision.host.dataset._format import Format, count_lost, pick_split, role_of_split
from edgevision.host.dataset._place import put_pictures
from edgevision.host.dataset.base import Box, Dataset, Role, Sample

MAX_BYTES = 1 << 30
"""instances_train2017.json, the largest in common use, has 450 MB."""

_SNIFF_BYTES = 1 << 16
_SECTIONS = ("images", "categories", "annotations")


def _looks_like(path: Path) -> bool:
    return bool(_candidates(path))


def _candidates(path: Path) -> dict[str, Path]:
    """The COCO files at a path by the part they stand for; `instances_*` come before keypoints and captions."""
    if path.is_file():
        return {path.stem: path} if path.suffix.lower() == ".json" and _sniff(path) else {}
    found = [file for folder in (path, path / "annotations") for file in sorted(folder.glob("*.json")) if _sniff(file)]
    found = [file for file in found if file.name.startswith("instances")] or found
    parts: dict[str, Path] = {}
    for file in found:
        words = [word for word in re.split(r"[^a-z]+", file.stem.lower()) if role_of_split(word)]
        name = words[0] if len(words) == 1 and words[0] not in parts else file.stem
        parts[name if name not in parts else str(file.relative_to(path))] = file
    return parts


def _sniff(file: Path) -> bool:
    """Whether a JSON file looks like COCO's: an object that names its sections near its beginning or end."""
    try:
        with file.open("rb") as stream:
            ends = stream.read(_SNIFF_BYTES)
            if not ends.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return False
            stream.seek(max(0, file.stat().st_size - _SNIFF_BYTES))
            ends += stream.read(_SNIFF_BYTES)
    except OSError:
        return False  # the reader, asked for this file, says why
    return sum(f'"{section}"'.encode() in ends for section in _SECTIONS) >= 2


def _read(path: Path, *, split: str | None) -> Dataset:
    candidates = _candidates(path)
    if not candidates:
        raise UsageError(f"{path}: is no COCO JSON: it must hold `images`, `categories` and `annotations`")
    part, file = pick_split(path, candidates, split) if path.is_dir() else ("", path)
    text = _load(file)
    try:
        sections = text.lists(_SECTIONS)
    except json.JSONDecodeError as failure:
        raise UsageError(
            f"{file}:{failure.lineno}: is not COCO JSON: {failure.msg} (column {failure.colno})"
        ) from failure
    except (ValueError, RecursionError) as failure:
        raise UsageError(f"{file}: is not COCO JSON: {str(failure).splitlines()[0]}") from failure
    missing = [name for name in _SECTIONS if name not in sections]
    if missing:
        raise UsageError(f"{file}: is no COCO JSON with boxes: it has no {' and no '.join(missing)}")
    role = role_of_split(part) if path.is_dir() and len(candidates) > 1 else None
    reader = _Reader(file, text)
    reader.categories(sections["categories"])
    reader.images(sections["images"])
    reader.annotations(sections["annotations"])
    return reader.dataset(role)


def _load(file: Path) -> EntryText:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"{file}: is larger than {MAX_BYTES} bytes, which is the limit")
        return EntryText(file.read_bytes().decode("utf-8-sig"), str(file))
    except OSError as failure:
        raise UsageError(f"{file}: cannot be read: {failure.strerror or failure}") from failure
    except UnicodeDecodeError as failure:
        raise UsageError(f"{file}: is not UTF-8 text: byte 0x{failure.object[failure.start]:02x}") from failure


@dataclass(slots=True, kw_only=True)
class _Image:
    name: str
    path: Path
    size: tuple[int, int] | None
    offset: int
    boxes: list[Box]


class _Reader:
    """Goes through the three lists in order."""

    def __init__(self, file: Path, text: EntryText) -> None:
        self._file = file
        self._text = text
        self._collector = Collector()
        self._labels: list[str] = []
        self._label_ids: dict[int, int] = {}
        self._images: dict[int, _Image] = {}

    def categories(self, entries: list[Entry]) -> None:
        named: dict[int, str] = {}
        for entry in entries:
            number, name = entry.value.get("id"), entry.value.get("name")
            place = self._text.at(entry.offset)
            if not _whole(number) or not isinstance(name, str) or not name:
                self._collector.fault(place, f"a category needs a whole `id` and a `name`: {entry.value}")
            elif number in named:
                self._collector.fault(place, f"category {number} stands twice; the first is kept")
            else:
                named[number] = name
        for number in sorted(named):
            self._label_ids[number] = len(self._labels)
            self._labels.append(named[number])

    def images(self, entries: list[Entry]) -> None:
        good: list[tuple[int, str, Entry]] = []
        seen: set[int] = set()
        for entry in entries:
            number, name = entry.value.get("id"), entry.value.get("file_name")
            place = self._text.at(entry.offset)
            if not _whole(number) or not isinstance(name, str):
                self._collector.fault(place, "an image needs a whole `id` and a `file_name`; it is left out")
            elif number in seen:
                self._collector.fault(place, f"image {number} stands twice; the first is kept")
            elif not safe_name(name):
                self._collector.fault(place, f"image {number}: file_name {name!r} must stay within the picture folder")
            else:
                good.append((number, name, entry))
            if _whole(number):
                seen.add(number)
        folder = self._picture_folder([name for _, name, _ in good])
        for number, name, entry in good:
            size = self._size(folder / name, number, entry)
            self._images[number] = _Image(name=name, path=folder / name, size=size, offset=entry.offset, boxes=[])

    def _picture_folder(self, names: list[str]) -> Path:
        """Of the places where tools put COCO's pictures, the one that holds most of them."""
        beside = self._file.absolute().parent
        part = self._file.stem.partition("_")[2] or self._file.stem
        places = (
            beside,
            beside / "images",
            beside.parent / "images",
            beside.parent / part,
            beside.parent / "images" / part,
        )
        return max(places, key=lambda place: sum((place / name).is_file() for name in names))

    def _size(self, path: Path, number: int, entry: Entry) -> tuple[int, int] | None:
        place = self._text.at(entry.offset, f"image {number}")
        size = self._collector.size(path, place)
        said = (entry.value.get("width"), entry.value.get("height"))
        if size is None or said in {size, (None, None)}:
            return size
        problem = f"says {said[0]}x{said[1]}, the picture is {size[0]}x{size[1]}"
        if said == size[::-1]:
            problem += ": it was labelled without its EXIF orientation"
        self._collector.fault(place, f"{problem}; it is left out with its labels")
        return None

    def annotations(self, entries: list[Entry]) -> None:
        seen: set[Any] = set()
        for entry in entries:
            value = entry.value
            number = value.get("id")
            image = self._images.get(value["image_id"]) if _whole(value.get("image_id")) else None
            label_id = self._label_ids.get(value["category_id"]) if _whole(value.get("category_id")) else None
            problem = None
            if _whole(number) and number in seen:
                problem = "the id stands twice; the first is kept"
            elif image is None:
                problem = f"there is no image {value.get('image_id')!r}; it is left out"
            elif label_id is None:
                problem = f"there is no category {value.get('category_id')!r}; it is left out"
            if _whole(number):
                seen.add(number)
            if problem is not None:
                self._collector.fault(self._text.at(entry.offset, f"annotation {number}"), problem)
            elif image is not None and label_id is not None:
                self._annotation(value, image, label_id, entry.offset)

    def _annotation(self, value: dict[str, Any], image: _Image, label_id: int, offset: int) -> None:
        if image.size is None:  # the picture's own fault is told already
            self._collector.note("boxes of pictures that cannot be used are left out")
            return
        if value.get("segmentation"):
            self._collector.note("outlines (segmentation) are not read")
        if value.get("keypoints"):
            self._collector.note("sets of keypoints are not read")
        place = self._text.at(offset, f"annotation {value.get('id')}")
        bbox = value.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(_number(edge) for edge in bbox):
            self._collector.fault(place, f"bbox must be four numbers [x, y, width, height]: {bbox!r}; it is left out")
            return
        left, top, width, height = (float(edge) for edge in bbox)
        area = value.get("area")
        known = float(area) if _number(area) and math.isfinite(area) and area > 0 else None
        box = Box(
            label_id=label_id,
            xyxy=(left, top, left + width, top + height),
            crowd=bool(value.get("iscrowd")),
            difficult=bool(value.get("difficult")),
            area_px=None if known is None or math.isclose(known, width * height, rel_tol=1e-6) else known,
        )
        kept = self._collector.box(box, *image.size, place)
        if kept is not None:
            image.boxes.append(kept)

    def dataset(self, role: Role | None) -> Dataset:
        for number, image in self._images.items():
            if image.size is None:
                continue
            self._collector.add(
                Sample(
                    name=image.name,
                    path=image.path,
                    width=image.size[0],
                    height=image.size[1],
                    boxes=tuple(image.boxes),
                ),
                self._text.at(image.offset, f"image {number}"),
            )
        return self._collector.dataset(
            source=self._file,
            format_name=FORMAT.name,
            task=FORMAT.task,
            labels=tuple(self._labels),
            labels_file=Place(file=str(self._file), what="categories"),
            role=role,
        )


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _write(dataset: Dataset, folder: Path, *, link: bool) -> list[str]:
    put_pictures(dataset, folder / "images", link=link)
    with (folder / "instances.json").open("w", encoding="utf-8") as stream:
        stream.write('{\n"info": {"description": "written by edgevision"},\n')
        categories = ({"id": index, "name": label} for index, label in enumerate(dataset.labels, start=1))
        images = (
            {"id": index, "file_name": sample.name, "width": sample.width, "height": sample.height}
            for index, sample in enumerate(dataset.samples, start=1)
        )
        for name, entries in (("categories", categories), ("images", images), ("annotations", _annotations(dataset))):
            lines = (json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries)
            stream.write(f'"{name}": [\n' + ",\n".join(lines) + ("\n]\n" if name == "annotations" else "\n],\n"))
        stream.write("}\n")
    return count_lost(dataset, holds=("crowd", "difficult", "area"))


def _annotations(dataset: Dataset) -> Iterator[dict[str, Any]]:
    number = 0
    for image_id, sample in enumerate(dataset.samples, start=1):
        for box in sample.boxes:
            number += 1
            left, top, right, bottom = box.xyxy
            width, height = right - left, bottom - top
            entry: dict[str, Any] = {
                "id": number,
                "image_id": image_id,
                "category_id": box.label_id + 1,
                "bbox": [round(edge, 9) for edge in (left, top, width, height)],
                "area": round(width * height, 9) if box.area_px is None else box.area_px,
                "iscrowd": int(box.crowd),
            }
            yield {**entry, "difficult": 1} if box.difficult else entry


FORMAT = Format(
    name="coco",
    task="detection",
    signs="a COCO *.json (in the folder or in annotations/)",
    looks_like=_looks_like,
    read=_read,
    write=_write,
)
