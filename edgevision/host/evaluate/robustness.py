"""How much a model loses on spoiled pictures: every corruption at every severity, against the pictures as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edgevision.assembly import ModelSettings
from edgevision.errors import UsageError
from edgevision.host.dataset.base import Dataset
from edgevision.host.evaluate.answers import ClassMap
from edgevision.host.evaluate.corruptions import SEVERITIES, Image, corrupt, names
from edgevision.host.evaluate.run import Evaluation, evaluate
from edgevision.pipeline import Model
from edgevision.registry import unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One corruption at one severity."""

    corruption: str
    severity: int
    figure: float | None
    """AP, top-1 or mIoU."""
    drop: float | None
    """Share of the clean figure that is lost; None where that is 0 or was not measured."""


def parse_corruptions(text: str) -> tuple[str, ...]:
    """`blur,noise` or `all`; raises UsageError."""
    wanted = names() if text.strip() == "all" else tuple(part.strip() for part in text.split(","))
    for name in wanted:
        if name not in names():
            raise UsageError(f"--corrupt: {unknown_name('corruption', name, names())}, or all")
    return tuple(dict.fromkeys(wanted))


def parse_severities(text: str) -> tuple[int, ...]:
    """`3`, `1,3,5` or `1-5`; raises UsageError."""
    wanted: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.strip() in map(str, SEVERITIES) for end in ends):
            raise UsageError(f"--severity {text!r}: must be 1 to 5, such as 3, 1,3,5 or 1-5")
        wanted += range(int(ends[0]), int(ends[1]) + 1)
    if not wanted:
        raise UsageError(f"--severity {text!r}: holds no severity; say 1-5")
    return tuple(sorted(set(wanted)))


def measure(
    model: Model,
    dataset: Dataset,
    clean: Evaluation,
    classes: ClassMap,
    *,
    settings: ModelSettings,
    corruptions: Sequence[str],
    severities: Sequence[int],
    seed: int = 0,
) -> tuple[Slice, ...]:
    """Evaluate a model again on spoiled copies of the pictures that `clean` was measured on."""
    slices = []
    for corruption in corruptions:
        for severity in severities:
            spoiled = evaluate(
                model,
                dataset,
                clean.samples,
                classes,
                settings=settings,
                spoil=partial(_spoil, corruption=corruption, severity=severity, seed=seed),
                what=f"{model.name} {corruption} {severity}",
            )
            slices.append(
                Slice(
                    corruption=corruption,
                    severity=severity,
                    figure=spoiled.figure,
                    drop=relative_drop(clean.figure, spoiled.figure),
                )
            )
    return tuple(slices)


def _spoil(image: Image, name: str, *, corruption: str, severity: int, seed: int) -> Image:
    return corrupt(image, corruption, severity, seed=seed, name=name)


def relative_drop(clean: float | None, spoiled: float | None) -> float | None:
    """Share of the clean figure that is lost; negative where the spoiled one is better."""
    return None if not clean or spoiled is None else (clean - spoiled) / clean


def mean_drop(slices: Sequence[Slice], corruption: str | None = None) -> float | None:
    """The mean relative drop of one corruption, or of all."""
    drops = [part.drop for part in slices if part.drop is not None and corruption in (None, part.corruption)]
    return sum(drops) / len(drops) if drops else None
