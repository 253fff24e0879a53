"""What exporters write into a model file: Ultralytics (ONNX and .tflite), TensorFlow Lite's metadata, MediaPipe's models.

TensorFlow Lite's metadata is a FlatBuffer of its own (tensorflow/tflite-support, metadata_schema.fbs, version 1.1.0) in the
file's `TFLITE_METADATA`; the files that it names are a zip archive behind the model. Everything is hostile until checked: sizes
are bounded, offsets are checked, nothing is evaluated.
"""

from __future__ import annotations

import ast
import io
import json
import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any

from edgevision.graphs import Graph
from edgevision.proposals.flatbuffer import Table, root

_MAX_FILES, _MAX_FILE_BYTES, _MAX_LITERAL = 32, 1 << 20, 1 << 18
_MAX_NAMES = 10_000
_NORMALIZATION, _THRESHOLDING = 1, 3
"""Of the union ProcessUnitOptions."""
_IMAGE = 2
"""Of the union ContentProperties."""
_AXIS_LABELS, _VALUE_LABELS = 2, 3
"""Of AssociatedFileType."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ultralytics:
    """What their exporter says of a network; others write `names` too."""

    theirs: bool
    """Whether their exporter wrote it: it gives their name as the author, or YOLOv5's `stride` beside `names`."""
    task: str
    names: tuple[str, ...]
    size: tuple[int, int] | None
    """Width, height."""
    stride: int | None
    description: str
    licence: str
    end_to_end: bool
    """Whether it gives finished objects."""
    keypoints: tuple[int, int] | None
    """How many keypoints an object has, and how many numbers each of them: 2 or 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNote:
    """What TensorFlow Lite's metadata says of one tensor."""

    name: str
    image: bool = False
    rgb: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    threshold: float | None = None
    labels: str | None = None
    """The name of its labels' file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """Everything that was found."""

    ultralytics: Ultralytics | None = None
    name: str = ""
    licence: str = ""
    inputs: tuple[TensorNote, ...] = ()
    outputs: tuple[TensorNote, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, tuple[str, ...]] | None:
        """The labels' file and what it holds."""
        named = [note.labels for note in self.outputs if note.labels]
        named += [name for name in self.files if "label" in name.lower()]
        for name in named:
            if name in self.files:
                text = self.files[name].decode("utf-8", "replace")
                return name, tuple(line.strip() for line in text.splitlines())
        return None


def read(graph: Graph, content: bytes) -> Notes:
    """Read what there is; what is damaged is as if it were not there."""
    files = _files(content) if graph.format == "tflite" else {}
    found = Notes(files=files)
    blob = graph.blobs.get("TFLITE_METADATA")
    if blob is not None:
        try:
            found = _tflite(blob, files)
        except (ValueError, struct.error, IndexError):
            found = Notes(files=files)
    try:
        ultralytics = _ultralytics(graph, files)
    except (ValueError, RecursionError):  # a number too long, or lists too deep, to be written as text
        ultralytics = None
    return Notes(
        ultralytics=ultralytics,
        name=found.name,
        licence=found.licence,
        inputs=found.inputs,
        outputs=found.outputs,
        files=files,
    )


def _files(content: bytes) -> dict[str, bytes]:
    """The archive behind a .tflite file."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist()[:_MAX_FILES]:
                if entry.file_size <= _MAX_FILE_BYTES and not entry.is_dir():
                    with archive.open(entry) as stream:
                        found[entry.filename] = stream.read(_MAX_FILE_BYTES)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, RuntimeError,
            NotImplementedError, ValueError, EOFError):  # fmt: skip
        return found
    return found


def _ultralytics(graph: Graph, files: dict[str, bytes]) -> Ultralytics | None:
    """From ONNX's metadata_props, or the text or JSON file in a .tflite's archive."""
    given: dict[str, Any] = dict(graph.metadata)
    for name in ("metadata.json", "temp_meta.txt"):
        if name in files and len(files[name]) <= _MAX_LITERAL:
            read_as = _literal(files[name].decode("utf-8", "replace"))
            given |= {str(key): value for key, value in read_as.items()} if isinstance(read_as, dict) else {}
    names = given.get("names")
    names = _literal(names) if isinstance(names, str) else names
    if isinstance(names, dict):
        known = {int(key): str(value) for key, value in names.items() if _is_number(str(key))}
        most = max(known, default=-1) + 1
        names = [known.get(number, f"class {number}") for number in range(most)] if most <= _MAX_NAMES else None
    if not isinstance(names, list) or not names or len(names) > _MAX_NAMES:
        return None
    size = given.get("imgsz")
    size = _literal(size) if isinstance(size, str) else size
    sides = [side for side in size if isinstance(side, int) and 0 < side <= 8192] if isinstance(size, list) else []
    stride = str(given.get("stride", ""))
    stride_read = int(stride) if _is_number(stride) else None
    return Ultralytics(
        theirs=given.get("author") == "Ultralytics" or stride_read is not None,
        task=str(given.get("task", "")),
        names=tuple(str(name) for name in names),
        size=(sides[1], sides[0]) if len(sides) == 2 else None,  # they write height, width
        stride=stride_read,
        description=str(given.get("description", ""))[:200],
        licence=str(given.get("license", ""))[:200],
        end_to_end=str(given.get("end2end", "")) == "True",
        keypoints=_keypoints(given.get("kpt_shape")),
    )


def _is_number(text: str) -> bool:
    """Of up to five digits; `²` is a digit too, and no number."""
    return text.isascii() and text.isdigit() and len(text) < 6


def _keypoints(told: Any) -> tuple[int, int] | None:
    shape = _literal(told) if isinstance(told, str) else told
    if not isinstance(shape, list | tuple) or len(shape) != 2 or not all(type(number) is int for number in shape):
        return None
    return (shape[0], shape[1]) if 1 <= shape[0] <= 1000 and shape[1] in (2, 3) else None


def _literal(text: str) -> Any:
    """A value written as JSON or as Python writes it; None for anything else. Nothing is run."""
    if len(text) > _MAX_LITERAL:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _tflite(blob: bytes, files: dict[str, bytes]) -> Notes:
    model = root(blob, b"M001")
    subgraphs = model.tables(3)
    if not subgraphs:
        return Notes(name=model.text(0), licence=model.text(5), files=files)
    return Notes(
        name=model.text(0),
        licence=model.text(5),
        inputs=tuple(_tensor(table) for table in subgraphs[0].tables(2)),
        outputs=tuple(_tensor(table) for table in subgraphs[0].tables(3)),
        files=files,
    )


def _tensor(table: Table) -> TensorNote:
    content = table.table(3)
    image = content is not None and content.number(0, "B") == _IMAGE
    properties = content.table(1) if content is not None and image else None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    threshold = None
    for unit in table.tables(4):
        options = unit.table(1)
        if options is None:
            continue
        kind = unit.number(0, "B")
        if kind == _NORMALIZATION:
            mean, std = options.floats(0), options.floats(1)
        elif kind == _THRESHOLDING:
            threshold = options.number(0, "f")
    labels = next(
        (part.text(0) for part in table.tables(6) if part.number(2, "b") in (_AXIS_LABELS, _VALUE_LABELS)), None
    )
    return TensorNote(
        name=table.text(0),
        image=image,
        rgb=properties is not None and properties.number(0, "b") == 1,
        mean=mean,
        std=std,
        threshold=threshold,
        labels=labels,
    )
