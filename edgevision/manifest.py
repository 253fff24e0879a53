"""model.yaml: what a model is, which file each runtime takes, and how its pixels and outputs are meant.

A model is a folder with this file in it. Loading checks size and sha256 of the weights before any runtime sees a byte, and
hands on the very bytes that were checked; a mismatch is an error and never a warning.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from edgevision import documents, registry
from edgevision.errors import ManifestError, ModelError

MANIFEST_NAME = "model.yaml"
MAX_MODEL_BYTES = 2 << 30
"""2 GiB: the most that a flatbuffer or a protobuf can hold."""

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
FileName = Annotated[str, StringConstraints(pattern=rf"^{_FILE_NAME.pattern}$")]
"""A file inside the model's own folder: never a path that leads out of it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_Numbers = Annotated[list[float], Field(min_length=1, max_length=64)]
ConstantInput = float | _Numbers | Annotated[list[_Numbers], Field(min_length=1, max_length=64)]
"""A number, a row of numbers, or rows of them."""


class InputSection(_Part):
    """How the model wants its picture."""

    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]]
    """Width, height in pixels."""
    color: Literal["RGB", "BGR"] = "RGB"
    resize: str
    """The preprocessor: a file in edgevision/preprocess."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The preprocessor's options."""
    mean: tuple[float, float, float] | None = None
    """real = (pixel - mean) / std in the order of `color`; both absent: the raw pixel, 0-255."""
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = (
        None
    )
    constants: Annotated[dict[str, ConstantInput], Field(max_length=8)] = Field(default_factory=dict)
    """What the model's other inputs are given with every picture, by input name: `orig_target_sizes: [[640, 640]]`."""


class InputOverride(_Part):
    """What differs from `input` for one file; a key that is absent stays, `null` takes it away."""

    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]] | None = None
    color: Literal["RGB", "BGR"] | None = None
    resize: str | None = None
    options: dict[str, Any] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = (
        None
    )


class FileSection(_Part):
    """The weights for one backend."""

    path: FileName | None = None
    """The file's name in the model's folder; without it, the last part of `url`."""
    url: str | None = None
    """Where it can be had when it is not in the folder."""
    sha256: Sha256
    size: Annotated[int, Field(ge=1, le=MAX_MODEL_BYTES)]
    """Bytes."""
    input: InputOverride | None = None
    outputs: dict[str, str] | None = None

    @model_validator(mode="after")
    def _needs_a_place(self) -> FileSection:
        if self.path is None and self.url is None:
            raise ValueError("needs `path` (a file beside model.yaml) or `url`")
        if self.url is not None:
            if urlsplit(self.url).scheme.lower() not in {"https", "http", "file"}:
                raise ValueError(f"`url` must begin with https:, http: or file:; found {self.url[:100]!r}")
            if self.path is None and not _FILE_NAME.fullmatch(self.file_name):
                raise ValueError(f"`url` ends in no file name; give `path` as well; found {self.url[:100]!r}")
        return self

    @property
    def file_name(self) -> str:
        """The file's name in the model's folder."""
        return self.path or unquote(urlsplit(self.url or "").path).rpartition("/")[2]


class Thresholds(_Part):
    """What the model is used with unless the config says otherwise."""

    confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    iou: Annotated[float, Field(ge=0, le=1)] = 0.45
    class_agnostic: bool = False
    """Boxes that overlap more than `iou` are one object whatever their classes: one part, one label."""
    max_detections: Annotated[int, Field(ge=1, le=10_000)] = 100
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5


class Manifest(_Part):
    """A whole model.yaml."""

    name: ModelName
    version: str
    task: Literal["classification", "detection", "segmentation", "embedding"]
    family: str
    """The decoder: a file in edgevision/decode."""
    files: dict[str, FileSection]
    """By backend: a file in edgevision/inference. The first is preferred. A backend without an entry takes the first file of
    another that is in a format it reads: what `onnxrt` runs, `openvino` runs too. Empty in a pattern, which describes files
    that users bring."""
    input: InputSection
    outputs: Annotated[dict[str, str], Field(min_length=1)]
    """Role to tensor name: nothing is guessed from shapes."""
    decoder: dict[str, Any] = Field(default_factory=dict)
    """The decoder's options."""
    labels: FileName | None = None
    """A file with one label a line; the line's number from 0 is the class id."""
    thresholds: Thresholds = Thresholds()
    activation: Literal["softmax", "sigmoid", "none"] = "none"
    """What the decoder must still apply to the scores."""
    licence: str
    source: str
    metrics: list[dict[str, Any]] = Field(default_factory=list)
    """What was measured: dataset, images, metric, backend, value, host. A figure without a backend was not measured on these
    files; with none that has one, the model is unproved."""
    lineage: dict[str, Any] = Field(default_factory=dict)

    @property
    def pattern(self) -> bool:
        """Whether it only describes files that users bring."""
        return not self.files

    def find_file(self, backend: str) -> FileSection | None:
        """The file that `backend` reads: its own, else the first of another backend in a format it reads, else None."""
        own = self.files.get(backend)
        if own is not None:
            return own
        suffixes = registry.reads(backend)
        return next((file for file in self.files.values() if Path(file.file_name).suffix.lower() in suffixes), None)

    def file_for(self, backend: str) -> FileSection:
        """The file that `backend` reads; raises ModelError where there is none."""
        file = self.find_file(backend)
        if file is None and self.pattern:
            raise ModelError(
                f"{self.name} is a pattern without a file; add yours: edgevision models add FILE --like {self.name}"
            )
        if file is None:
            raise ModelError(f"{self.name} has no file for {backend}; it has {', '.join(self.files)}")
        return file

    def refuse_pattern(self) -> None:
        """Refuse to be asked for files where none can be; raises ModelError, which says how to add one."""
        if self.pattern:
            self.file_for("any backend")

    def input_for(self, backend: str) -> InputSection:
        """The input as the file for `backend` wants it."""
        override = self.file_for(backend).input
        if override is None:
            return self.input
        changed = {key: getattr(override, key) for key in override.model_fields_set}
        return self.input.model_copy(update=changed)

    def outputs_for(self, backend: str) -> dict[str, str]:
        """Role to tensor name, as the file for `backend` names them."""
        return self.file_for(backend).outputs or self.outputs

    @property
    def proved(self) -> bool:
        """Whether an accuracy that was measured stands beside the weights."""
        return any("value" in metric and "backend" in metric for metric in self.metrics)


def load_manifest(folder: Path) -> Manifest:
    """Read a model folder's model.yaml.

    Raises:
        ManifestError: every fault of it, with file and line.
    """
    document = documents.read(folder / MANIFEST_NAME, error=ManifestError)
    return documents.validate(document, Manifest, error=ManifestError)


def load_labels(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """The labels by class id; empty where the model has none.

    Raises:
        ModelError: the file that the manifest names cannot be read.
    """
    if manifest.labels is None:
        return ()
    return read_label_file(folder / manifest.labels)


def read_label_file(path: Path) -> tuple[str, ...]:
    """One label a line; raises ModelError where the file cannot be read."""
    try:
        if path.stat().st_size > documents.MAX_BYTES:
            raise ModelError(f"{path}: labels: is larger than {documents.MAX_BYTES} bytes, which is the limit")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        raise ModelError(f"{path}: labels: cannot be read: {failure}") from failure
    return tuple(line.strip() for line in text.splitlines())


def read_weights(folder: Path, manifest: Manifest, backend: str) -> bytes:
    """The weights for `backend`, checked.

    Raises:
        ModelError: there is no file for this backend, or it is missing, truncated or altered.
    """
    section = file_section(manifest, backend, folder)
    path = folder / section.file_name
    if not path.is_file():
        fix = (
            f"fetch it: edgevision models pull {manifest.name}"
            if section.url
            else f"add your copy: edgevision models add FILE --like {manifest.name}"
        )
        raise ModelError(f"{path}: the weights of {manifest.name} for {backend} are not there; {fix}")
    try:
        with path.open("rb") as stream:
            content = stream.read(section.size + 1)
    except OSError as failure:
        raise ModelError(f"{path}: cannot be read: {failure.strerror or failure}") from failure
    check_weights(content, section, path)
    return content


def file_section(manifest: Manifest, backend: str, folder: Path) -> FileSection:
    """The file that a backend reads, or an error that names those there are."""
    try:
        return manifest.file_for(backend)
    except ModelError as failure:
        raise ModelError(f"{folder / MANIFEST_NAME}: files: {failure}") from failure


def check_weights(content: bytes, section: FileSection, path: Path) -> None:
    """Compare bytes with what the manifest says of them; raises ModelError where they differ."""
    if len(content) != section.size:
        found = f"more than {section.size}" if len(content) > section.size else str(len(content))
        raise ModelError(
            f"{path}: size: model.yaml says {section.size} bytes, found {found}: the file is truncated or altered"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != section.sha256:
        raise ModelError(f"{path}: sha256: model.yaml says {section.sha256}, found {digest}: the file was altered")
