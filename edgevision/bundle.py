"""A model in one file, to carry to a machine without a network: `models export`, `models import`.

A bundle is a ZIP whose members are stored, not compressed: weights hardly shrink, equal models give equal bytes with every
zlib, and what comes out is never more than what lies there. `bundle.json`, its first member, holds size and sha256 of every
other. A bundle is hostile until checked: its directory is bounded before it is read; its members are those that model.yaml
names and a README, a licence, a notice, and no paths; nothing is written before all that is known, and the model's folder
appears as a whole.

ZIP: PKWARE APPNOTE 6.3.10, 4.3.16 (end of central directory).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edgevision import documents
from edgevision.environment import user_models_dir
from edgevision.errors import ManifestError, ModelError, StateError, UsageError
from edgevision.manifest import MANIFEST_NAME, MAX_MODEL_BYTES, FileName, Manifest, ModelName, Sha256, load_manifest
from edgevision.model_store import ModelFolder, check_free_name, open_folder, put_in_place

INDEX = "bundle.json"
COMPANIONS = ("README.md", "LICENSE", "LICENSE.txt", "NOTICE")
"""What goes along where it is there."""
MAX_MEMBERS = 32
MAX_INDEX_BYTES = 64 << 10
MAX_BYTES = (4 << 30) - (1 << 20)
"""Of a bundle: beyond 4 GiB a ZIP needs a second kind of directory."""
_CHUNK = 1 << 20
_END = struct.Struct("<4s4H2IH")
_DATE = (1980, 1, 1, 0, 0, 0)


class _Member(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=MAX_MODEL_BYTES)]


class _Index(BaseModel):
    """`bundle.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Annotated[Literal["edgevision/bundle/1"], Field(alias="schema")] = "edgevision/bundle/1"
    name: ModelName
    version: Annotated[str, StringConstraints(max_length=200)]
    members: Annotated[dict[FileName, _Member], Field(min_length=1, max_length=MAX_MEMBERS - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A bundle that was written."""

    sha256: str
    missing: tuple[str, ...]
    """Weights files that model.yaml names and that are not here; the bundle has the others."""


def export_bundle(folder: ModelFolder, target: Path, *, replace: bool = False) -> Exported:
    """Write a model as one file; equal models give equal bytes.

    Args:
        folder: the model.
        target: the file.
        replace: whether one that is there may be written over.

    Raises:
        UsageError: the file is there already.
        ModelError: it is a pattern; or no weights are here, or they are not what model.yaml says.
        StateError: it cannot be written.
    """
    if target.exists() and not replace:
        raise UsageError(f"{target}: is there already; choose another name, or say --replace")
    manifest = folder.manifest
    manifest.refuse_pattern()
    weights = {section.file_name: section for section in manifest.files.values()}
    missing = [name for name in weights if not (folder.path / name).is_file()]
    if len(missing) == len(weights):
        raise ModelError(
            f"{manifest.name}: none of its weights are here ({', '.join(missing)}): pull or add them first"
        )
    chosen = [MANIFEST_NAME, *([manifest.labels] if manifest.labels else []), *COMPANIONS, *weights]
    names = sorted({name for name in chosen if (folder.path / name).is_file()})
    temporary = target.with_name(f".{target.name}.part")
    try:
        members = {name: _measured(folder.path / name) for name in names}
        for name, section in weights.items():
            found = members.get(name)
            if found is not None and (found.size, found.sha256) != (section.size, section.sha256):
                raise ModelError(
                    f"{folder.path / name}: is not what model.yaml says: edgevision models verify {manifest.name}"
                )
        if sum(member.size for member in members.values()) > MAX_BYTES:
            raise ModelError(f"{manifest.name}: is larger than a bundle's {MAX_BYTES} bytes")
        index = _Index(name=manifest.name, version=manifest.version, members=members)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_entry(INDEX), _json(index))
            for name in names:
                with (folder.path / name).open("rb") as source, archive.open(_entry(name), "w") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        sha256 = _measured(temporary).sha256
        temporary.replace(target)
    except OSError as failure:
        raise StateError(f"{target}: cannot be written: {failure.strerror or failure}") from failure
    finally:
        with contextlib.suppress(OSError):  # it has its name, or what went wrong is on its way
            temporary.unlink()
    return Exported(sha256=sha256, missing=tuple(missing))


def _json(index: _Index) -> bytes:
    return (json.dumps(index.model_dump(by_alias=True), indent=1, sort_keys=True) + "\n").encode()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    return entry


def _measured(path: Path) -> _Member:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
            size += len(block)
    return _Member(sha256=digest.hexdigest(), size=size)


def import_bundle(
    bundle: Path, *, name: str | None = None, replace: bool = False, models_dir: Path | None = None
) -> ModelFolder:
    """Take a model out of a bundle, as one of the user's own.

    Args:
        bundle: the file.
        name: the model's name here; its own by default.
        replace: whether a model of this name that is there gives way.
        models_dir: the user's models folder.

    Raises:
        UsageError: the name is taken, or is none.
        ModelError: the file is no bundle, is damaged, or holds what does not belong there; nothing of it is kept.
        StateError: it cannot be read, or the model cannot be written.
    """
    root = models_dir or user_models_dir()
    try:
        stream = bundle.open("rb")
    except OSError as failure:
        raise StateError(f"{bundle}: cannot be read: {failure.strerror or failure}") from failure
    with stream, _opened(bundle, stream) as archive:
        index = _read_index(bundle, archive)
        manifest, text = _read_manifest(bundle, archive, index)
        chosen = manifest.name if name is None else _checked_name(name)
        target = root / chosen
        if not replace:
            check_free_name(target, fix="choose another with --name, or say --replace")
        try:
            root.mkdir(parents=True, exist_ok=True)
            size = sum(member.size for member in index.members.values())
            if shutil.disk_usage(root).free < size:
                raise StateError(f"{root}: has no room for the model's {size} bytes")
            with tempfile.TemporaryDirectory(prefix=".adding-", dir=root) as temporary:
                made = Path(temporary) / chosen
                made.mkdir()
                for member, wanted in index.members.items():
                    _extract(bundle, archive, member, wanted, made / member)
                if chosen != manifest.name:
                    (made / MANIFEST_NAME).write_text(_renamed(text, chosen), encoding="utf-8")
                load_manifest(made)  # what was written is what a daemon will read
                put_in_place(made, target)
        except OSError as failure:
            raise StateError(f"{target}: the model cannot be written: {failure.strerror or failure}") from failure
    return open_folder(target)


@contextlib.contextmanager
def _opened(bundle: Path, stream: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """The archive, its directory bounded before `zipfile` reads it; raises ModelError."""
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise ModelError(f"{bundle}: has {size} bytes; a bundle has at most {MAX_BYTES}")
    stream.seek(max(0, size - _END.size - 20))
    tail = stream.read()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06":
        raise ModelError(f"{bundle}: is no bundle, or is cut off: it does not end as one that `models export` wrote")
    _, disk, first_disk, here, entries, directory_bytes, _, comment = _END.unpack(tail[-_END.size :])
    if disk or first_disk or comment or here != entries or tail[:4] == b"PK\x06\x07":
        raise ModelError(f"{bundle}: is a ZIP of a kind that `models export` does not write")
    if entries > MAX_MEMBERS or directory_bytes > MAX_INDEX_BYTES:
        raise ModelError(f"{bundle}: holds {entries} files; a bundle holds at most {MAX_MEMBERS}")
    try:
        with zipfile.ZipFile(stream) as archive:
            _check_entries(bundle, archive, size)
            yield archive
    # zipfile tells damage by all of these.
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        EOFError,
        RuntimeError,
        struct.error,
        OSError,
    ) as failure:
        raise ModelError(f"{bundle}: is damaged: {failure}") from failure


def _check_entries(bundle: Path, archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise ModelError(f"{bundle}: holds a file twice")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise ModelError(
                f"{bundle}: {entry.filename[:100]!r} is compressed or encrypted; members of a bundle are stored"
            )
    if sum(entry.file_size for entry in entries) > size:  # members that lie over each other
        raise ModelError(f"{bundle}: its members are larger than the file")


def _read_index(bundle: Path, archive: zipfile.ZipFile) -> _Index:
    content = _read_member(bundle, archive, INDEX, MAX_INDEX_BYTES)
    try:
        index = _Index.model_validate_json(content)
    except (ValidationError, RecursionError) as failure:
        first = (
            failure.errors()[0] if isinstance(failure, ValidationError) else {"loc": (), "msg": "is nested too deeply"}
        )
        where = ".".join(str(part)[:100].encode("unicode_escape").decode() for part in first["loc"])
        raise ModelError(f"{bundle}: {INDEX}: {where}: {first['msg']}") from failure
    listed, there = {*index.members, INDEX}, {entry.filename for entry in archive.infolist()}
    if listed != there:
        strange = min(listed ^ there)
        word = "does not list" if strange in there else "lists, and it does not hold,"
        raise ModelError(f"{bundle}: {INDEX} {word} {strange[:100]!r}")
    for name, member in index.members.items():
        if archive.getinfo(name).file_size != member.size:
            raise ModelError(
                f"{bundle}: {name}: has {archive.getinfo(name).file_size} bytes, {INDEX} says {member.size}"
            )
    return index


def _read_manifest(bundle: Path, archive: zipfile.ZipFile, index: _Index) -> tuple[Manifest, str]:
    content = _read_member(bundle, archive, MANIFEST_NAME, documents.MAX_BYTES)
    if hashlib.sha256(content).hexdigest() != index.members[MANIFEST_NAME].sha256:
        raise ModelError(f"{bundle}: {MANIFEST_NAME}: was altered: its sha256 is not that of {INDEX}")
    where = f"{bundle}: {MANIFEST_NAME}"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as failure:
        raise ModelError(f"{where}: is not UTF-8 text") from failure
    manifest = documents.validate(documents.parse(text, file=where, error=ManifestError), Manifest, error=ManifestError)
    weights = {section.file_name: section for section in manifest.files.values()}
    known = {MANIFEST_NAME, *COMPANIONS, *weights, *([manifest.labels] if manifest.labels else [])}
    for name, member in index.members.items():
        if name not in known:
            raise ModelError(f"{bundle}: holds {name!r}, which its {MANIFEST_NAME} does not name")
        section = weights.get(name)
        if section is not None and (member.sha256, member.size) != (section.sha256, section.size):
            raise ModelError(f"{bundle}: {name}: {INDEX} and {MANIFEST_NAME} say different sizes or sha256s")
    return manifest, text


def _read_member(bundle: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    try:
        entry = archive.getinfo(name)
    except KeyError as failure:
        raise ModelError(f"{bundle}: is no bundle: it holds no {name}") from failure
    if entry.file_size > limit:
        raise ModelError(f"{bundle}: {name} has {entry.file_size} bytes, {limit} is the limit")
    return archive.read(entry)


def _extract(bundle: Path, archive: zipfile.ZipFile, name: str, wanted: _Member, to: Path) -> None:
    digest = hashlib.sha256()
    with to.open("xb") as sink:
        for block in _blocks(bundle, archive, name):
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    if digest.hexdigest() != wanted.sha256:
        raise ModelError(f"{bundle}: {name}: was altered: its sha256 is not that of {INDEX}; nothing of it is kept")


def _blocks(bundle: Path, archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """A member's bytes; what the disk says to reading is not to be taken for what it says to writing."""
    try:
        with archive.open(name) as source:
            while block := source.read(_CHUNK):
                yield block
    except OSError as failure:
        raise ModelError(f"{bundle}: {name}: cannot be read: {failure.strerror or failure}") from failure


def _checked_name(name: str) -> str:
    try:
        return _Named(name=name).name
    except ValidationError as failure:
        raise UsageError(
            f"--name: {name!r} is no name for a model: 1 to 64 lower-case letters, digits, `.`, `_` or `-`"
        ) from failure


class _Named(BaseModel):
    name: ModelName


def _renamed(text: str, name: str) -> str:
    raw: Mapping[str, object] = documents.parse(text, file=MANIFEST_NAME, error=ManifestError).data
    return yaml.safe_dump({**raw, "name": name}, sort_keys=False, allow_unicode=True, width=120)
