"""Which pictures a model is calibrated with, and how they reach it: through the preprocessor that the device itself uses.

A range that was measured on other pixels than the device will see is a range of something else. So the pictures go through
the float model's own preprocessor, one at a time, however many there are; and which ones they were is recorded by a digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.capture.images import read_image
from edgevision.clock import SYSTEM_CLOCK
from edgevision.errors import ImageError, UsageError
from edgevision.host.dataset.pictures import pictures_under
from edgevision.host.progress import track
from edgevision.preprocess.base import Preprocessor
from edgevision.types import Frame

DEFAULT_PICTURES = 128
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """A recorded choice of pictures."""

    folder: Path
    pictures: tuple[Path, ...]
    """In the order of the draw, so that the first few are a fair choice too."""
    available: int
    """Pictures in the folder."""
    seed: int
    left_out: int
    """Pictures of the choice that cannot be read."""
    digests: frozenset[str]
    """sha256 of each picture, to tell whether one of them is also evaluated on."""
    digest: str
    """sha256 over names and contents, in hex."""

    def document(self) -> dict[str, Any]:
        """For the lineage: no path, which means nothing on another machine."""
        return {
            "folder": self.folder.name,
            "pictures": len(self.pictures),
            "of": self.available,
            "seed": self.seed,
            "left_out": self.left_out,
            "digest": self.digest,
        }


def choose_pictures(
    folder: Path, *, limit: int, seed: int, skip_faulty: bool, warn: Callable[[str], None]
) -> CalibrationSet:
    """Draw pictures from a folder and read each of them once, so that no fault turns up halfway through the work.

    Args:
        folder: pictures, in folders inside it too; labels are not needed and not looked at.
        limit: pictures at most.
        seed: of the draw.
        skip_faulty: leave out pictures that cannot be read.
        warn: is told each of them.

    Raises:
        UsageError: the folder is not there or holds no picture.
        ImageError: a picture cannot be read, and such are not to be left out.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "is not there"
        raise UsageError(f"--calibration {folder}: {found}; name a folder of pictures such as the camera will see")
    available = pictures_under(folder)
    if not available:
        raise UsageError(f"--calibration {folder}: holds no picture (.jpg, .png, .bmp, .tif, .webp)")
    order = np.random.default_rng(seed).permutation(len(available))[:limit]
    drawn = [available[number] for number in order]
    faults, good, total, digests = [], [], hashlib.sha256(), set()
    for path in track("reading calibration pictures", drawn):
        try:
            read_image(path)
        except ImageError as failure:
            faults.append(str(failure))
            continue
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digests.add(content)
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
        good.append(path)
    if faults and not skip_faulty:
        told = "".join(f"\n  {fault}" for fault in faults[:_SHOWN])
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ImageError(
            f"--calibration {folder}: {len(faults)} of {len(drawn)} pictures cannot be read; mend them, or leave them out "
            f"with --skip-faulty:{told}{more}"
        )
    for fault in faults:
        warn(f"left out: {fault}")
    if not good:
        raise ImageError(f"--calibration {folder}: none of the {len(drawn)} pictures that were drawn can be read")
    return CalibrationSet(
        folder=folder,
        pictures=tuple(good),
        available=len(available),
        seed=seed,
        left_out=len(faults),
        digests=frozenset(digests),
        digest=total.hexdigest(),
    )


def refuse_overlap(chosen: CalibrationSet, evaluated: Collection[Path], source: Path) -> None:
    """Ranges fitted to the pictures that judge them prove nothing.

    Raises:
        UsageError: a picture is in both.
    """
    shared = [path for path in evaluated if hashlib.sha256(path.read_bytes()).hexdigest() in chosen.digests]
    if shared:
        raise UsageError(
            f"{source}: {len(shared)} of its pictures are also calibrated with ({shared[0].name} is one), so it proves "
            "nothing; keep the two apart, for example with `edgevision dataset split`"
        )


def calibration_inputs(
    pictures: Sequence[Path], preprocessor: Preprocessor
) -> Callable[[], Iterator[Mapping[str, NDArray[Any]]]]:
    """What gives a fresh pass over the model's inputs each time it is called, one picture at a time.

    Each tensor is the caller's own; only as many are held as the caller keeps.
    """

    def one_pass() -> Iterator[Mapping[str, NDArray[Any]]]:
        for path in track("calibrating", pictures):
            frame = Frame(
                image=read_image(path),
                camera=path.name,
                sequence=0,
                captured_at_ns=SYSTEM_CLOCK.time_ns(),
                captured_mono_ns=SYSTEM_CLOCK.monotonic_ns(),
            )
            yield {name: np.array(tensor) for name, tensor in preprocessor(frame).tensors.items()}

    return one_pass
