"""A whole evaluation: one model, or two side by side, on a dataset or a part of it, with or without spoiled pictures.

What `edgevision evaluate` does apart from saying it, and what other tools call when they need a model's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevision import registry
from edgevision.assembly import ModelSettings
from edgevision.errors import ImageError
from edgevision.host.dataset.base import Dataset
from edgevision.host.dataset.uses import note_use
from edgevision.host.evaluate import report, run
from edgevision.host.evaluate.against import Comparison, compare
from edgevision.host.evaluate.report import DatasetFacts
from edgevision.host.evaluate.robustness import Slice, measure
from edgevision.host.evaluate.run import Evaluation, figure_name
from edgevision.host.evaluate.sampling import choose
from edgevision.pipeline import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What of the dataset is looked at, and how."""

    limit: int | None = None
    """Pictures at most: a seeded stratified choice."""
    seed: int = 0
    by_index: bool = False
    """Match classes by number instead of name."""
    index_offset: int = 0
    """Then: the model's class of the dataset's class 0."""
    skip_faulty: bool = False
    """Leave out what is faulty and go on."""
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """One model's part of the outcome."""

    model: Model
    evaluation: Evaluation
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """All that was measured."""

    facts: DatasetFacts
    models: tuple[Measured, ...]
    """The model that was asked for and, after it, the one it is compared with."""
    comparison: Comparison | None

    def document(self) -> dict[str, Any]:
        """As one JSON document."""
        entries = [(part.model, part.evaluation, part.slices) for part in self.models]
        return report.document(self.facts, entries, self.comparison)


def evaluate_models(
    models: Sequence[Model],
    dataset: Dataset,
    choices: Choices,
    *,
    settings: ModelSettings,
    warn: Callable[[str], None],
    state_dir: Path | None = None,
) -> Outcome:
    """Evaluate one model, or two on the same pictures.

    Args:
        models: one or two, loaded with `settings` (see `run.settings_for`).
        dataset: labelled pictures.
        choices: what is looked at.
        settings: for the report.
        warn: is told each thing that is left out.
        state_dir: where uses of a held-out test set are counted if it cannot be done beside it; for tests.

    Raises:
        ImageError: pictures or labels are faulty and are not to be left out.
        UsageError: model and dataset do not fit.
        PluginError: the package that makes the figures is not installed.
        InferenceError: a runtime failed.
    """
    _require_metrics(dataset)
    samples = dataset.samples if choices.limit is None else choose(dataset, choices.limit, choices.seed)
    chosen = len(samples)
    samples, unreadable = run.usable(dataset, samples, skip_faulty=choices.skip_faulty, warn=warn)
    there = that_is_there(dataset) if choices.skip_faulty else dataset
    digest = digest_of(there)
    maps = []
    for model in models:
        classes, samples, said = run.known_to(
            model,
            dataset,
            samples,
            offset=choices.index_offset if choices.by_index else None,
            skip_faulty=choices.skip_faulty,
        )
        maps.append(classes)
        if said is not None:
            warn(said)
    measured = []
    for model, classes in zip(models, maps, strict=True):
        evaluation = run.evaluate(model, dataset, samples, classes, settings=settings)
        slices = measure(
            model,
            dataset,
            evaluation,
            classes,
            settings=settings,
            corruptions=choices.corruptions,
            severities=choices.severities,
            seed=choices.seed,
        )
        measured.append(Measured(model=model, evaluation=evaluation, slices=slices))
    uses = [_note_use(there, part, state_dir) for part in measured]
    two = len(measured) == 2
    return Outcome(
        facts=report.dataset_facts(
            dataset,
            digest=digest,
            limit=choices.limit,
            seed=choices.seed,
            looked_at=len(samples),
            unreadable=unreadable,
            unknown=chosen - unreadable - len(samples),
            test_uses_before=uses[0] if dataset.role == "test" else None,
        ),
        models=tuple(measured),
        comparison=compare(measured[0].evaluation, measured[1].evaluation, seed=choices.seed) if two else None,
    )


def _require_metrics(dataset: Dataset) -> None:
    """A missing package is told before the work, not after it."""
    modules = {"detection": "pycocotools.cocoeval", "classification": "sklearn.metrics"}
    if dataset.task in modules:
        registry.require(modules[dataset.task], package="edgevision[host]", purpose=f"{dataset.task} metrics")


def that_is_there(dataset: Dataset) -> Dataset:
    """Without pictures that have gone: the digest and the count of uses are of all that can be read."""
    return replace(dataset, samples=tuple(sample for sample in dataset.samples if sample.path.is_file()))


def digest_of(dataset: Dataset) -> str:
    """The whole dataset's digest, also of the pictures that are not looked at."""
    try:
        return dataset.digest()
    except OSError as failure:
        raise ImageError(f"{failure.filename}: cannot be read: {failure.strerror or failure}") from failure


def _note_use(dataset: Dataset, part: Measured, state_dir: Path | None) -> int:
    """Count that a test set was used for a model; gives how often it was before."""
    value = part.evaluation.figure
    return note_use(
        dataset,
        model=f"{part.model.name} {part.model.manifest.version} sha256 {part.model.sha256}",
        figure=f"{figure_name(part.evaluation.result)} {'none' if value is None else format(value, '.4f')}",
        state_dir=state_dir,
    )
