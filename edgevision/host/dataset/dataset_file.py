"""dataset.yaml: what a dataset's own files cannot say. What it is for, and where it comes from.

`role: test` is the mark of a held-out set: its uses are counted, and it is never split, augmented or merged into training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from edgevision import documents
from edgevision.errors import DocumentError
from edgevision.host.dataset.base import Role

FILE_NAME = "dataset.yaml"


class DatasetFile(BaseModel):
    """What may stand in a dataset.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str | None = None
    """Settles what the folder's files leave open."""
    role: Role | None = None
    voc_origin: Literal[0, 1] | None = None
    """Where a VOC file counts pixels from; the format itself says 1."""
    digest: str | None = None
    """Of the dataset when it was written; `dataset stats` says when it has changed."""
    made: dict[str, Any] | None = None
    """How: the command, its seed, and the source with its digest."""


def folder_of(path: Path) -> Path:
    """The folder whose dataset.yaml speaks for a path."""
    return path if path.is_dir() else path.parent


def read_dataset_file(path: Path) -> DatasetFile | None:
    """The dataset.yaml of a dataset's file or folder; None where there is none. Raises DocumentError with its faults."""
    file = folder_of(path) / FILE_NAME
    if not file.is_file():
        return None
    return documents.validate(documents.read(file, error=DocumentError), DatasetFile, error=DocumentError)


def write_dataset_file(folder: Path, content: DatasetFile) -> None:
    """Write it; raises OSError."""
    raw = content.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120)
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
