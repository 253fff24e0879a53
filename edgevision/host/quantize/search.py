"""The search: every recipe is made, loaded as the daemon would, evaluated, counted and timed; then layers are spared.

Recipes are tried in full first. Only when none of them keeps the budget are layers left in higher precision, those that do
the most damage first, twice as many each time, as long as enough of the model stays integer. A recipe that fails is told in
the frontier and is not the end of the search; a disk that is full is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgevision.assembly import ModelSettings
from edgevision.errors import InferenceError, ModelError, PluginError, StateError
from edgevision.host.dataset.base import Dataset, Sample
from edgevision.host.evaluate import run
from edgevision.host.evaluate.answers import ClassMap
from edgevision.host.evaluate.run import Evaluation
from edgevision.host.quantize.latency import Latency, compare_latency
from edgevision.host.quantize.source import SUFFIXES, Source, load_candidate
from edgevision.host.quantize.store import Store
from edgevision.host.quantize.targets import Target
from edgevision.host.quantize.workshop import Attempt, IntegerShare, Kind, LayerNoise, Workshop
from edgevision.manifest import Manifest
from edgevision.pipeline import Model

_POINTS = 100
"""A point is a hundredth of AP, top-1 or mIoU."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tried:
    """One attempt and what became of it."""

    attempt: Attempt
    seconds: float
    """To make it; 0 where it was found finished."""
    failure: str | None = None
    """Why there is no candidate."""
    content: bytes = b""
    manifest: Manifest | None = None
    """As it was loaded."""
    evaluation: Evaluation | None = None
    drop: float | None = None
    """Points that it lost against float; below 0 it gained."""
    integers: IntegerShare | None = None
    noise: tuple[LayerNoise, ...] = ()
    """The worst layer first."""
    latency: Latency | None = None

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.attempt.name

    @property
    def kind(self) -> Kind:
        """Of the recipe."""
        return self.attempt.kind

    @property
    def loaded_manifest(self) -> Manifest:
        """The manifest of a candidate that was made; raises ValueError for one that was not, which is a bug."""
        if self.manifest is None:
            raise ValueError(f"{self.name} was never loaded")
        return self.manifest

    @property
    def figure(self) -> float | None:
        """AP, top-1 or mIoU."""
        return None if self.evaluation is None else self.evaluation.figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a candidate must hold to be packaged."""

    max_drop: float
    """Points."""
    least_share: float
    """Of its convolutions that run as integers; 0 where the target does not need it."""

    def problems(self, tried: Tried) -> list[str]:
        """Why it may not be packaged; empty where it may."""
        if tried.failure is not None or tried.drop is None:
            return [tried.failure or "its accuracy could not be measured"]
        found = []
        if tried.drop > self.max_drop + 1e-9:
            found.append(f"loses {tried.drop:.2f} points, {self.max_drop:g} are allowed")
        if tried.integers is not None and tried.integers.share < self.least_share:
            found.append(
                f"only {tried.integers.integer} of {tried.integers.total} convolutions run as integers, "
                f"{self.least_share:.0%} are asked for"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """What every candidate is held against."""

    source: Source
    target: Target
    dataset: Dataset
    samples: tuple[Sample, ...]
    classes: ClassMap
    settings: ModelSettings
    """For the evaluation."""
    latency_threads: int
    latency_s: float
    store: Store
    name: str
    """Of the model that is made."""

    def file_name(self, attempt: Attempt) -> str:
        """Of a candidate's weights."""
        return f"{self.name}{SUFFIXES[self.target.format]}" if attempt.kind != "float" else self.source.file_name


class Search:
    """Tries attempts, one after the other."""

    def __init__(self, bench: Bench, workshop: Workshop, say: Callable[[str], None]) -> None:
        """`say` is told what is being done."""
        self._bench = bench
        self._workshop = workshop
        self._say = say
        self.float = self._measured(
            Attempt(name="float", kind="float", parameters={}, make=lambda: bench.source.content),
            bench.source.content,
            seconds=0.0,
        )

    def recipes(self) -> list[Tried]:
        """Every recipe of the target."""
        found: list[Tried] = []
        attempts = self._workshop.attempts()
        for number, attempt in enumerate(attempts, 1):
            tried = self.attempt(attempt, known=found, place=f" ({number} of {len(attempts)})")
            if tried is not None:
                found.append(tried)
        return found

    def spare_layers(self, best: Tried, gate: Gate) -> list[Tried]:
        """Leave the most harmful layers in float until the budget is kept or too few are left as integers.

        Args:
            best: the attempt that came nearest.
            gate: what is to be held.
        """
        total = 0 if best.integers is None else best.integers.total
        whole = total if best.integers is None else best.integers.integer
        room = whole - math.ceil(gate.least_share * total) if total else None
        if room is not None and room < 1:
            self._say(f"no recipe keeps the budget, and of {total} convolutions none may be spared")
            return []
        self._say(f"no recipe keeps the budget: ranking the layers of {best.name} by the damage they do")
        ranked = self._workshop.sparing(best.attempt)
        most = len(ranked) if room is None else min(len(ranked), room)
        found: list[Tried] = []
        count = 1
        while count <= most:
            tried = self.attempt(self._workshop.spare(best.attempt, ranked[:count]), known=found)
            if tried is None:
                break  # what is left in float does not change the model any more
            found.append(tried)
            if not gate.problems(tried):
                break
            count = most if count < most < 2 * count else 2 * count
        return found

    def attempt(self, attempt: Attempt, *, known: Sequence[Tried] = (), place: str = "") -> Tried | None:
        """Make one candidate, or take the finished one, and measure it.

        Args:
            attempt: how.
            known: candidates that were measured already.
            place: among the recipes, for whoever waits.

        Returns:
            What became of it; None where it is one of the known ones, byte for byte.

        Raises:
            StateError: the disk is full or cannot be written.
        """
        recipe = {"name": attempt.name, "kind": attempt.kind, **attempt.parameters, "spared": list(attempt.spared)}
        began_s = time.monotonic()
        try:
            content = self._bench.store.get(recipe)
            if content is None:
                self._say(f"making {attempt.name}{place}")
                content = attempt.make()
                self._bench.store.put(recipe, content)
            else:
                self._say(f"{attempt.name}: found finished")
                began_s = time.monotonic()
            same = next((one for one in known if one.content == content), None)
            if same is not None:
                self._say(f"{attempt.name}: makes the same model as {same.name}")
                return None
            return self._measured(attempt, content, seconds=time.monotonic() - began_s)
        except (ModelError, PluginError, InferenceError) as failure:
            self._say(f"{attempt.name}: {failure}")
            return Tried(attempt=attempt, seconds=time.monotonic() - began_s, failure=str(failure))
        except OSError as failure:
            where = failure.filename or self._bench.store.folder
            raise StateError(f"{where}: cannot be written: {failure.strerror or failure}") from failure

    def _measured(self, attempt: Attempt, content: bytes, *, seconds: float) -> Tried:
        bench = self._bench
        model = self._load(attempt, content, bench.settings)
        try:
            evaluation = run.evaluate(
                model, bench.dataset, bench.samples, bench.classes, settings=bench.settings, what=attempt.name
            )
        finally:
            model.close()
        if attempt.kind == "float":
            return Tried(
                attempt=attempt,
                seconds=seconds,
                content=content,
                manifest=model.manifest,
                evaluation=evaluation,
                drop=0.0,
            )
        before, after = self.float.figure, evaluation.figure
        integers, noise = self._workshop.inspect(attempt, content)
        return Tried(
            attempt=attempt,
            seconds=seconds,
            content=content,
            manifest=model.manifest,
            evaluation=evaluation,
            drop=None if before is None or after is None else (before - after) * _POINTS,
            integers=integers,
            noise=tuple(noise),
            latency=self._latency(attempt, content),
        )

    def _latency(self, attempt: Attempt, content: bytes) -> Latency:
        settings = replace(self._bench.settings, threads=self._bench.latency_threads)
        reference = self._load(self.float.attempt, self.float.content, settings)
        try:
            candidate = self._load(attempt, content, settings)
            try:
                return compare_latency(reference, candidate, seconds=self._bench.latency_s)
            finally:
                candidate.close()
        finally:
            reference.close()

    def _load(self, attempt: Attempt, content: bytes, settings: ModelSettings) -> Model:
        bench = self._bench
        return load_candidate(
            bench.source,
            content,
            backend=bench.target.backend,
            name=attempt.name,
            file=bench.file_name(attempt),
            settings=settings,
        )


def nearest(tried: Sequence[Tried], gate: Gate) -> Tried | None:
    """The integer candidate that lost the least among those that run as integers; None where none could be made."""
    made = [one for one in tried if one.kind == "int8" and one.drop is not None]
    running = [one for one in made if one.integers is None or one.integers.share >= gate.least_share]
    return min(running or made, key=lambda one: one.drop if one.drop is not None else float("inf"), default=None)
