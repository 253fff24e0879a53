"""Pascal VOC: one XML file a picture. Read with expat and no more: a document type or an entity is refused, sizes are bounded.

VOC counts pixels from 1 and includes the last one: `xmin 1 xmax 500` is the whole of a 500 pixels wide picture, which is
0 to 500 as edges. Tools that count from 0 are told by `voc_origin: 0` in a dataset.yaml beside. Labels are those of
labels.txt where there is one, else the names that occur, sorted.

Source: M. Everingham, J. Winn, The PASCAL Visual Object Classes Challenge 2012 Development Kit, section 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from edgevision.errors import UsageError
from edgevision.host.dataset._collect import Collector, Place, read_label_names, read_lines
from edgevision.host.dataset._format import Format, count_lost, role_of_split
from edgevision.host.dataset._place import label_paths, put_pictures, write_labels
from edgevision.host.dataset.base import Box, Dataset, Role, Sample
from edgevision.host.dataset.dataset_file import read_dataset_file
from edgevision.host.dataset.pictures import pictures_under

MAX_BYTES = 4 << 20
_MAX_DEPTH = 16

_LABEL_FOLDERS = ("Annotations", "annotations")
_PICTURE_FOLDERS = ("JPEGImages", "images")
_NAMES_FILES = ("labels.txt", "classes.txt")
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def _label_folder(path: Path) -> Path | None:
    places = [path / name for name in _LABEL_FOLDERS] + [path]
    return next(
        (place for place in places if place.is_dir() and next(place.glob("*.xml"), None) is not None), None
    ) or next((place for place in places[:-1] if place.is_dir() and next(place.rglob("*.xml"), None) is not None), None)


def _looks_like(path: Path) -> bool:
    return path.is_dir() and _label_folder(path) is not None


@dataclass(slots=True)
class _Node:
    tag: str
    line: int
    text: str = ""
    children: list[_Node] = field(default_factory=list)

    def child(self, tag: str) -> _Node | None:
        return next((node for node in self.children if node.tag == tag), None)

    def value(self, tag: str) -> str:
        node = self.child(tag)
        return node.text.strip() if node is not None else ""


class _RefusedError(ValueError):
    """XML that no annotation needs."""


def _parse(content: bytes) -> _Node:
    """The root element; raises expat.ExpatError or _RefusedError."""
    parser = expat.ParserCreate()
    top = _Node("", 0)
    stack = [top]

    def start(tag: str, _attributes: dict[str, str]) -> None:
        if len(stack) > _MAX_DEPTH:
            raise _RefusedError(f"{parser.CurrentLineNumber}: nests deeper than {_MAX_DEPTH} elements")
        node = _Node(tag, parser.CurrentLineNumber)
        stack[-1].children.append(node)
        stack.append(node)

    def end(_tag: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def refuse(*_arguments: object) -> None:
        raise _RefusedError(f"{parser.CurrentLineNumber}: holds a document type or entity, which labels do not need")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    parser.Parse(content, True)
    return top.children[0]


def _read(path: Path, *, split: str | None) -> Dataset:
    label_folder = _label_folder(path) if path.is_dir() else None
    if label_folder is None:
        raise UsageError(f"{path}: is no Pascal VOC dataset: give a folder with {FORMAT.signs}")
    collector = Collector()
    picture_folder = next((path / name for name in _PICTURE_FOLDERS if (path / name).is_dir()), label_folder)
    pictures = {_stem(picture, picture_folder): picture for picture in pictures_under(picture_folder)}
    files = {_stem(file, label_folder): file for file in sorted(label_folder.rglob("*.xml"))}
    role = None
    if split is not None:
        files, role = _of_split(path, split, files, collector), role_of_split(split)
    elif unlabelled := len(pictures.keys() - files.keys()):
        collector.note("pictures have no label file; they are left out", unlabelled)
    names_file = next((path / name for name in _NAMES_FILES if (path / name).is_file()), None)
    labels = read_label_names(names_file, collector) if names_file is not None else None
    said = read_dataset_file(path)
    origin = 1 if said is None or said.voc_origin is None else said.voc_origin
    reader = _Reader(collector, origin, labels)
    for stem, file in files.items():
        reader.file(file, pictures.get(stem), picture_folder)
    return reader.dataset(path, Place(file=str(names_file or label_folder)), role)


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _of_split(path: Path, split: str, files: dict[str, Path], collector: Collector) -> dict[str, Path]:
    """Those that ImageSets/Main/<split>.txt lists."""
    lists = path / "ImageSets" / "Main"
    known = [file.stem for file in sorted(lists.glob("*.txt"))]
    name = next((name for name in known if name == split), None) or next(
        (name for name in known if role_of_split(name) and role_of_split(name) == role_of_split(split)), None
    )
    if name is None:
        raise UsageError(f"{path}: has no part {split!r}; ImageSets/Main lists: {', '.join(known) or 'nothing'}")
    listed = {}
    for number, line in enumerate(read_lines(lists / f"{name}.txt", collector) or [], start=1):
        stem = line.split()[0] if line.strip() else ""
        if stem in files:
            listed[stem] = files[stem]
        elif stem:
            collector.fault(Place(file=str(lists / f"{name}.txt"), line=number), f"there is no label file {stem}.xml")
    return listed


class _Reader:
    """Goes through the files; labels are numbered when all names are known."""

    def __init__(self, collector: Collector, origin: int, labels: tuple[str, ...] | None) -> None:
        self._collector = collector
        self._origin = origin
        self._labels = labels
        self._found: list[tuple[Sample, list[tuple[str, Box, Place]], Place]] = []

    def file(self, file: Path, picture: Path | None, picture_folder: Path) -> None:
        root = self._root(file)
        if root is None:
            return
        named = root.value("filename")
        if picture is None and named and (picture_folder / Path(named).name).is_file():
            picture = picture_folder / Path(named).name
        node = root.child("filename")
        place = Place(file=str(file), line=node.line if node else root.line)
        if picture is None:
            wanted = picture_folder / (Path(named).name or f"{file.stem}.*")
            self._collector.fault(place, f"{wanted}: the picture is missing; its labels are left out")
            return
        size = self._collector.size(picture, place)
        if size is None or not self._size_fits(root, size, file):
            return
        boxes = []
        for number, entry in enumerate((node for node in root.children if node.tag == "object"), start=1):
            at = Place(file=str(file), line=entry.line, what=f"object {number}")
            box = self._box(entry, size, at)
            if box is not None:
                boxes.append((entry.value("name"), box, at))
        name = picture.relative_to(picture_folder).as_posix()
        self._found.append((Sample(name=name, path=picture, width=size[0], height=size[1]), boxes, place))

    def _root(self, file: Path) -> _Node | None:
        place = Place(file=str(file))
        try:
            if file.stat().st_size > MAX_BYTES:
                self._collector.fault(place, f"is larger than {MAX_BYTES} bytes, which is the limit")
                return None
            root = _parse(file.read_bytes())
        except OSError as failure:
            self._collector.fault(place, f"cannot be read: {failure.strerror or failure}")
        except expat.ExpatError as failure:
            at = Place(file=str(file), line=failure.lineno)
            self._collector.fault(at, f"is not XML: {expat.ErrorString(failure.code)}")
        except _RefusedError as failure:
            line, _, problem = str(failure).partition(": ")
            self._collector.fault(Place(file=str(file), line=int(line)), f"{problem}; it is left out")
        except (ValueError, LookupError) as failure:  # an encoding that Python does not know
            self._collector.fault(place, f"is not XML that can be read: {failure}")
        else:
            if root.tag == "annotation":
                return root
            self._collector.fault(Place(file=str(file), line=root.line), f"is no VOC label file: <{root.tag}>")
        return None

    def _size_fits(self, root: _Node, size: tuple[int, int], file: Path) -> bool:
        node = root.child("size")
        if node is None:
            return True
        said = (node.value("width"), node.value("height"))
        if said in {(str(size[0]), str(size[1])), ("0", "0"), ("", "")}:  # zeros: a tool that did not look
            return True
        problem = f"says {said[0]}x{said[1]}, the picture is {size[0]}x{size[1]}"
        if said == (str(size[1]), str(size[0])):
            problem += ": it was labelled without its EXIF orientation"
        place = Place(file=str(file), line=node.line, what="size")
        self._collector.fault(place, f"{problem}; it is left out with its labels")
        return False

    def _box(self, entry: _Node, size: tuple[int, int], place: Place) -> Box | None:
        name, bounds = entry.value("name"), entry.child("bndbox")
        if not name or bounds is None:
            what = "name" if not name else "bndbox"
            self._collector.fault(place, f"has no <{what}>; it is left out")
            return None
        if self._labels is not None and name not in self._labels:
            self._collector.fault(place, f"unknown label {name!r}; it is left out")
            return None
        try:
            left, top, right, bottom = (float(bounds.value(edge)) for edge in _EDGES)
        except ValueError:
            found = " ".join(f"{edge}={bounds.value(edge)!r}" for edge in _EDGES)
            self._collector.fault(place, f"<bndbox> must hold four numbers: {found}; it is left out")
            return None
        hint = ""
        if self._origin == 1 and 0 in {left, top}:
            hint = ": VOC counts pixels from 1; if this file counts from 0, say `voc_origin: 0` in a dataset.yaml"
        box = Box(
            label_id=0,
            xyxy=(left - self._origin, top - self._origin, right, bottom),
            difficult=entry.value("difficult") == "1",
        )
        return self._collector.box(box, *size, place, hint=hint)

    def dataset(self, path: Path, labels_file: Place, role: Role | None) -> Dataset:
        """Number the labels and gather all."""
        labels = self._labels
        if labels is None:
            labels = tuple(sorted({name for _, boxes, _ in self._found for name, _, _ in boxes}))
        numbers = {label: index for index, label in reversed(list(enumerate(labels)))}
        for sample, boxes, place in self._found:
            numbered = tuple(
                Box(label_id=numbers[name], xyxy=box.xyxy, difficult=box.difficult) for name, box, _ in boxes
            )
            self._collector.add(
                Sample(name=sample.name, path=sample.path, width=sample.width, height=sample.height, boxes=numbered),
                place,
            )
        return self._collector.dataset(
            source=path,
            format_name=FORMAT.name,
            task=FORMAT.task,
            labels=labels,
            labels_file=labels_file,
            role=role,
            check_empty=self._labels is not None,
        )


def _write(dataset: Dataset, folder: Path, *, link: bool) -> list[str]:
    put_pictures(dataset, folder / "JPEGImages", link=link)
    write_labels(dataset, folder / "labels.txt")
    (folder / "Annotations").mkdir(exist_ok=True)
    for name, sample in zip(label_paths(dataset, ".xml"), dataset.samples, strict=True):
        file = folder / "Annotations" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_xml(dataset, sample), encoding="utf-8")
    return count_lost(dataset, holds=("difficult",))


def _xml(dataset: Dataset, sample: Sample) -> str:
    lines = [
        "<annotation>",
        f"  <filename>{escape(Path(sample.name).name)}</filename>",
        f"  <size><width>{sample.width}</width><height>{sample.height}</height><depth>3</depth></size>",
    ]
    for box in sample.boxes:
        left, top, right, bottom = box.xyxy
        edges = (left + 1, top + 1, right, bottom)
        bounds = "".join(f"<{tag}>{_digits(edge)}</{tag}>" for tag, edge in zip(_EDGES, edges, strict=True))
        lines.append(
            f"  <object><name>{escape(dataset.labels[box.label_id])}</name><difficult>{int(box.difficult)}</difficult>"
            f"<bndbox>{bounds}</bndbox></object>"
        )
    return "\n".join([*lines, "</annotation>", ""])


def _digits(edge: float) -> str:
    return f"{edge:.9f}".rstrip("0").rstrip(".")


FORMAT = Format(
    name="voc",
    task="detection",
    signs="Annotations/*.xml",
    looks_like=_looks_like,
    read=_read,
    write=_write,
)
