"""How sharp a camera was when it was commissioned, kept in the state folder: what `blurred` is measured against.

`{state_dir}/cameras/{camera}/baseline.json` is written after the first good minutes and never changed again by the daemon: a
lens that slips by a hair a day must not take its baseline with it. Whoever has focused the camera anew makes a new one with
`edgevision baseline`, or takes the file away; the daemon notices either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

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


Stamp: TypeAlias = tuple[int, int, int]
"""Time of change, inode, size: which file this is."""


class BaselineStore(Protocol):
    """Where a baseline is kept."""

    @property
    def path(self) -> Path:
        """Its file."""
        ...

    def stamp(self) -> Stamp | None:
        """Which file is there now; None where there is none."""
        ...

    def load(self) -> Baseline | None:
        """What it holds."""
        ...

    def save(self, baseline: Baseline) -> None:
        """Keep it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFile:
    """Where one camera's baseline is kept on the disk."""

    path: Path

    @staticmethod
    def of(state_dir: Path, camera: str) -> BaselineFile:
        """The place of a camera's baseline."""
        return BaselineFile(path=state_dir / "cameras" / camera / "baseline.json")

    def stamp(self) -> Stamp | None:
        """Which file is there now; None where there is none.

        Raises:
            StateError: it cannot be told.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise self._trouble("read", failure) from failure
        # Not of its content alone: rights that are given to us are a change, too.
        return found.st_ctime_ns, found.st_ino, found.st_size

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
            raise self._trouble("read", failure) from failure
        except ValidationError as failure:
            raise StateError(f"{self.path}: is damaged; delete it, and a new baseline is made") from failure

    def clear(self) -> bool:
        """Take the baseline away, so that the daemon makes a new one; False where there was none.

        Raises:
            StateError: it cannot be taken away.
        """
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as failure:
            raise self._trouble("deleted", failure) from failure
        return True

    def save(self, baseline: Baseline) -> None:
        """Write it whole or not at all, also where the power goes meanwhile.

        Raises:
            StateError: it cannot be written.
        """
        temporary = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # what a power cut left
                temporary.unlink()
            with temporary.open("x") as stream:
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
            raise self._trouble("written", failure) from failure

    def _trouble(self, what: str, failure: OSError) -> StateError:
        fix = "; run it as root, or as the user that the daemon runs as" if isinstance(failure, PermissionError) else ""
        return StateError(f"{self.path}: cannot be {what}: {failure.strerror or failure}{fix}")


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Root acts as the owner of `folder` (or of what is above it, where there is none yet), anybody else as himself.

    What is written in the daemon's folder is then the daemon's, and no link that lies there leads further than its own rights.
    """
    if os.geteuid() != 0:
        yield
        return
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    found = folder.stat()
    group = os.getegid()
    os.setegid(found.st_gid)
    try:
        os.seteuid(found.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
    finally:
        os.setegid(group)
