"""How sharp a camera was when it was commissioned, kept in the state folder: what `blurred` is measured against.

`{state_dir}/cameras/{camera}/baseline.json` is written after the first good minutes and never changed again: a lens that
slips by a hair a day must not take its baseline with it. Whoever has focused the camera anew deletes the file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgevision.errors import StateError

_MAX_BYTES = 64 << 10


class Baseline(BaseModel):
    """One camera's picture at its best."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: int = Field(1, ge=1, le=1)
    sharpness: float = Field(gt=0)
    """`picture.sharpness`, the median of the first good minutes."""
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    """Pixels: sharpness of another size is another number."""
    made_at: str
    """RFC 3339, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFile:
    """Where one camera's baseline is kept."""

    path: Path

    def load(self) -> Baseline | None:
        """The baseline; None where there is none yet.

        Raises:
            StateError: it cannot be read, or is damaged.
        """
        try:
            with self.path.open("rb") as stream:
                return Baseline.model_validate_json(stream.read(_MAX_BYTES))
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise StateError(f"{self.path}: cannot be read: {failure.strerror or failure}") from failure
        except ValidationError as failure:
            raise StateError(f"{self.path}: is damaged; delete it, and a new baseline is made") from failure

    def save(self, baseline: Baseline) -> None:
        """Write it whole or not at all, also where the power goes meanwhile.

        Raises:
            StateError: it cannot be written.
        """
        temporary = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w") as stream:
                json.dump(baseline.model_dump(), stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as failure:
            raise StateError(f"{self.path}: cannot be written: {failure.strerror or failure}") from failure
