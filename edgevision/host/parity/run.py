"""Both models see the same pictures, each through its own preprocessor; then the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgevision._version import __version__
from edgevision.assembly import ModelSettings
from edgevision.capture.images import image_files, read_image
from edgevision.clock import SYSTEM_CLOCK
from edgevision.errors import ImageError, UsageError
from edgevision.host.evaluate.report import host
from edgevision.host.parity.outputs import Difference, OutputDifference, lowest_sqnr, pair_outputs, raw_outputs
from edgevision.host.parity.predictions import SLACK, Agreement, PredictionDifference, compare, summarise
from edgevision.host.progress import track
from edgevision.manifest import Manifest
from edgevision.pipeline import Model
from edgevision.types import Frame

SCHEMA = "edgevision/parity/1"

DEFAULT_TOLERANCE = 0.05
"""Share of the predictions that may differ: what a good float16 export stays far below, and an 8-bit one may need more."""
DEFAULT_SQNR_DB = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Above these the models are not the same."""

    disagreement: float = DEFAULT_TOLERANCE
    """Share of the predictions that may differ."""
    sqnr_db: float = DEFAULT_SQNR_DB
    """The least of any output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """All that was measured."""

    pictures: int
    left_out: int
    outputs: tuple[OutputDifference, ...]
    alone: tuple[str, ...]
    """Outputs without a partner, in words."""
    predictions: PredictionDifference
    thresholds: tuple[float, float]
    """The models' own."""
    limits: Limits
    problems: tuple[str, ...]
    """Why the models are not the same; empty where they are."""

    @property
    def same(self) -> bool:
        """The verdict."""
        return not self.problems

    def verdict(self) -> str:
        """One line."""
        if self.problems:
            return f"the models differ: {'; '.join(self.problems)}"
        found = self.predictions.agreement
        agreed = "neither finds anything in these pictures" if found is None else f"{found:.1%} of predictions agree"
        lowest = lowest_sqnr(self.outputs)
        outputs = "outputs are equal" if lowest is None else f"outputs agree to {lowest:.1f} dB SQNR"
        if not any(single.comparable for single in self.outputs):
            outputs = "outputs could not be compared"
        return f"the models are the same within tolerance: {outputs}, {agreed} ({self.pictures} pictures)"


def settings_for(manifest: Manifest, *, backend: str | None, threads: int) -> ModelSettings:
    """A model as the daemon runs it, but for detections down to half its threshold and classes of any confidence."""
    confidence: float | None = None
    if manifest.task == "detection":
        confidence = manifest.thresholds.confidence * SLACK
    elif manifest.task == "classification":
        confidence = 0.0
    return ModelSettings(backend=backend, threads=threads, confidence=confidence)


def find_pictures(paths: Sequence[Path], limit: int | None) -> list[Path]:
    """Pictures and folders of pictures, evenly chosen down to `limit`.

    Raises:
        UsageError: a path is not there, or there is no picture at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        found += image_files(path) if path.is_dir() else [path]
    if not found:
        raise UsageError(f"{paths[0]}: holds no picture")
    if limit is None or limit >= len(found):
        return found
    return [found[number * len(found) // limit] for number in range(limit)]


def check(
    first: Model,
    second: Model,
    pictures: Sequence[Path],
    limits: Limits,
    *,
    warn: Callable[[str], None],
) -> Parity:
    """Show both models every picture.

    Args:
        first: the source; loaded with `settings_for`.
        second: what was exported from it.
        pictures: picture files; one that cannot be read is told and left out.
        limits: when they count as the same.
        warn: is told what is left out.

    Raises:
        UsageError: the models have different tasks.
        ImageError: no picture can be read.
        InferenceError: a runtime failed.
    """
    if first.manifest.task != second.manifest.task:
        raise UsageError(
            f"{first.name} is a model for {first.manifest.task} and {second.name} for {second.manifest.task}"
        )
    thresholds = (first.manifest.thresholds.confidence, second.manifest.thresholds.confidence)
    pairing = pair_outputs(first, second)
    differences = [Difference(pair) for pair in pairing.pairs]
    agreements: list[Agreement] = []
    for path in track(f"{first.name} against {second.name}", pictures):
        try:
            frame = _frame(path)
        except ImageError as failure:
            warn(f"left out: {failure}")
            continue
        left, right = raw_outputs(first, frame), raw_outputs(second, frame)
        for pair, difference in zip(pairing.pairs, differences, strict=True):
            difference.add(left[pair.first.name], right[pair.second.name])
        agreements.append(compare(first.run(frame)[0], second.run(frame)[0], thresholds))
    if not agreements:
        raise ImageError(f"none of the {len(pictures)} pictures can be read")
    outputs = tuple(difference.result() for difference in differences)
    predictions = summarise(agreements, boxes=first.manifest.task in {"detection", "segmentation"})
    return Parity(
        pictures=len(agreements),
        left_out=len(pictures) - len(agreements),
        outputs=outputs,
        alone=pairing.alone,
        predictions=predictions,
        thresholds=thresholds,
        limits=limits,
        problems=tuple(_problems(outputs, predictions, limits)),
    )


def _frame(path: Path) -> Frame:
    return Frame(
        image=read_image(path),
        camera=str(path),
        sequence=0,
        captured_at_ns=SYSTEM_CLOCK.time_ns(),
        captured_mono_ns=SYSTEM_CLOCK.monotonic_ns(),
    )


def _problems(outputs: Sequence[OutputDifference], predictions: PredictionDifference, limits: Limits) -> list[str]:
    found = [
        f"output {single.second!r} has {single.not_finite} values that are NaN or infinite in one only"
        for single in outputs
        if single.not_finite
    ]
    worst = lowest_sqnr(outputs)
    if worst is not None and worst < limits.sqnr_db:
        found.append(f"SQNR {worst:.1f} dB (at least {limits.sqnr_db:g} is asked for)")
    agreement = predictions.agreement
    if agreement is not None and 1 - agreement > limits.disagreement:
        found.append(f"{agreement:.0%} of predictions agree (at least {1 - limits.disagreement:.0%} is asked for)")
    if agreement is None and not any(single.comparable for single in outputs):
        found.append("nothing could be compared: no outputs of one shape, and no predictions in these pictures")
    return found


def document(first: Model, second: Model, parity: Parity) -> dict[str, Any]:
    """As one JSON document; infinities are written as null beside `max_error`."""
    outputs = []
    for single in parity.outputs:
        entry = asdict(single)
        if entry["sqnr_db"] is not None and abs(entry["sqnr_db"]) == float("inf"):
            entry["sqnr_db"] = None
        outputs.append(entry)
    return {
        "schema": SCHEMA,
        "edgevision": __version__,
        "models": [_model(first), _model(second)],
        "pictures": parity.pictures,
        "left_out": parity.left_out,
        "outputs": outputs,
        "outputs_alone": list(parity.alone),
        "predictions": asdict(parity.predictions),
        "thresholds": list(parity.thresholds),
        "limits": asdict(parity.limits),
        "same": parity.same,
        "verdict": parity.verdict(),
        "host": host(),
    }


def _model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.manifest.version,
        "backend": model.backend_name,
        "sha256": model.sha256,
    }
