"""A whole quantisation: from a float model and two sets of pictures to a proved model folder and a report, or to a refusal.

What `edgevision quantize` does apart from saying it. Everything that can be wrong with the user's input is looked at before
the first minute of work, and the report is written whatever comes out.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevision.errors import ModelError, StateError, UsageError
from edgevision.host.benchmark.machine import environment
from edgevision.host.dataset.base import Dataset
from edgevision.host.dataset.uses import note_use
from edgevision.host.evaluate import report as evaluation_report
from edgevision.host.evaluate import run
from edgevision.host.evaluate.against import Comparison, compare
from edgevision.host.evaluate.files import write_json, write_whole
from edgevision.host.evaluate.job import digest_of, that_is_there
from edgevision.host.evaluate.remarks import remarks
from edgevision.host.evaluate.run import Evaluation
from edgevision.host.evaluate.sampling import choose
from edgevision.host.quantize.calibration import CalibrationSet, calibration_inputs, choose_pictures, refuse_overlap
from edgevision.host.quantize.document import document
from edgevision.host.quantize.package import check_target, write_package
from edgevision.host.quantize.pictures import draw_frontier, draw_worst
from edgevision.host.quantize.report import PICTURES, PLOT, markdown
from edgevision.host.quantize.search import Bench, Gate, Search, Tried, nearest
from edgevision.host.quantize.source import Source, converted, load_candidate, open_source
from edgevision.host.quantize.store import Store
from edgevision.host.quantize.targets import LEAST_SHARE, TARGETS, Target, choose_target
from edgevision.host.quantize.tflite.convert import convert_onnx
from edgevision.host.quantize.verdict import judge
from edgevision.host.quantize.workshop import Attempt
from edgevision.host.quantize.workshops import given_attempt, open_workshop, refuse_quantized

_CANDIDATES = ".candidates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for."""

    model: str
    like: str | None = None
    calibration: Path | None
    """A folder of pictures; None only where `prove` is given."""
    target: str
    max_drop: float
    """Points of AP, top-1 or mIoU."""
    out: Path
    name: str | None = None
    """Of the new model; the float model's and the target's by default."""
    calibration_pictures: int
    seed: int = 0
    prove: Path | None = None
    """A finished candidate: no recipe is tried, only this file is held against the budget."""
    allow_drop: bool = False
    allow_float: bool = False
    """Package a model of which too little runs as integers."""
    limit: int | None = None
    """Of the pictures to evaluate on."""
    iou: float | None = None
    threads: int = 1
    """Of the latency figures."""
    latency_s: float
    by_index: bool = False
    index_offset: int = 0
    skip_faulty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What came out."""

    document: dict[str, Any]
    report: Path
    """The folder."""
    folder: Path | None
    """Of the model; None where it was refused."""


def quantize(request: Request, dataset: Dataset, *, say: Callable[[str], None], warn: Callable[[str], None]) -> Outcome:
    """Do it.

    Args:
        request: what is asked for.
        dataset: labelled pictures to evaluate on.
        say: is told what is being done.
        warn: is told what is left out or doubtful.

    Raises:
        UsageError: an unknown target, model or label; calibration and evaluation share pictures; the name is taken.
        ModelError: the model cannot be read, or is 8-bit already.
        ImageError: pictures are faulty and are not to be left out.
        StateError: a folder cannot be written, or the disk is full; nothing half-written stays.
        PluginError: a tool or runtime is not installed.
    """
    began_s = time.monotonic()
    source, target = _source_for(request, say)
    refuse_quantized(source)
    finished = None if request.prove is None else given_attempt(request.prove, target)
    name = request.name or f"{source.manifest.name}-int8-{target.name}"
    folder, report_folder = request.out / name, request.out / f"{name}-report"
    check_target(folder)
    calibration = None
    if request.calibration is not None:
        calibration = choose_pictures(
            request.calibration,
            limit=request.calibration_pictures,
            seed=request.seed,
            skip_faulty=request.skip_faulty,
            warn=warn,
        )
    if dataset.role == "test":
        warn(
            f"{dataset.source}: is a held-out test set; choosing a recipe by it uses it up, better choose by another part"
        )
    bench, facts = _bench(
        request, source=source, target=target, dataset=dataset, calibration=calibration, name=name, warn=warn
    )
    gate = Gate(
        max_drop=request.max_drop,
        least_share=LEAST_SHARE if target.needs_integers and not request.allow_float else 0.0,
    )
    machine = environment()
    here = target.is_here(machine["features"], machine["architecture"])
    reference, tried = _search(bench, gate, calibration, finished=finished, say=say, warn=warn)
    caveats = target.caveats(machine["features"])
    verdict = judge(tried, gate, target, here=here, allow_drop=request.allow_drop, caveats=caveats)
    shown = verdict.chosen or nearest(tried, gate)
    evaluations = [one.evaluation for one in (reference, shown) if one is not None and one.evaluation is not None]
    comparison = compare(evaluations[0], evaluations[1], seed=request.seed) if len(evaluations) == 2 else None
    found = document(
        bench=bench,
        gate=gate,
        facts=facts,
        calibration=calibration,
        reference=reference,
        tried=tried,
        verdict=verdict,
        here=here,
        comparison=comparison,
        compared=shown,
        began_s=began_s,
    )
    _write_report(report_folder, found, bench.classes.names, evaluations, comparison)
    if verdict.chosen is None:
        return Outcome(document=found, report=report_folder, folder=None)
    write_package(folder, bench, verdict.chosen, found)
    _note_use(dataset, verdict.chosen)
    return Outcome(document=found, report=report_folder, folder=folder)


def _source_for(request: Request, say: Callable[[str], None]) -> tuple[Source, Target]:
    """The float model in the target's format."""
    wanted = TARGETS[request.target].format if request.target in TARGETS else None
    source = open_source(request.model, like=request.like, wanted=wanted)
    target = choose_target(request.target, Path(source.file_name).suffix.lower())
    if target.format == source.format:
        return source, target
    if target.format == "onnx":
        raise UsageError(
            f"--target {target.name}: takes an .onnx file, and {request.model} is a .tflite file; there is no way back from "
            "it: give the .onnx file, or --target litert"
        )
    say(f"{request.model}: converting to .tflite")
    return converted(source, convert_onnx(source.content, name=source.given).content), target


def _bench(
    request: Request,
    *,
    source: Source,
    target: Target,
    dataset: Dataset,
    calibration: CalibrationSet | None,
    name: str,
    warn: Callable[[str], None],
) -> tuple[Bench, evaluation_report.DatasetFacts]:
    """Look at everything that can be wrong before the work begins."""
    settings = run.settings_for(dataset.task, backend=target.backend, threads=2, iou=request.iou)
    samples = dataset.samples if request.limit is None else choose(dataset, request.limit, request.seed)
    chosen = len(samples)
    samples, unreadable = run.usable(dataset, samples, skip_faulty=request.skip_faulty, warn=warn)
    model = load_candidate(
        source, source.content, backend=target.backend, name=source.given, file=source.file_name, settings=settings
    )
    try:
        classes, samples, said = run.known_to(
            model,
            dataset,
            samples,
            offset=request.index_offset if request.by_index else None,
            skip_faulty=request.skip_faulty,
        )
    finally:
        model.close()
    if said is not None:
        warn(said)
    if calibration is not None:
        refuse_overlap(calibration, [sample.path for sample in samples], dataset.source)
    facts = evaluation_report.dataset_facts(
        dataset,
        digest=digest_of(that_is_there(dataset)),
        limit=request.limit,
        seed=request.seed,
        looked_at=len(samples),
        unreadable=unreadable,
        unknown=chosen - unreadable - len(samples),
        test_uses_before=None,
    )
    common = {
        "source": source.sha256,
        "target": target.name,
        "calibration": None if calibration is None else calibration.digest,
        "input": source.manifest.input_for(source.backend).model_dump(mode="json"),
    }
    bench = Bench(
        source=source,
        target=target,
        dataset=dataset,
        samples=samples,
        classes=classes,
        settings=settings,
        latency_threads=request.threads,
        latency_s=request.latency_s,
        store=Store(request.out / _CANDIDATES, common),
        name=name,
    )
    return bench, facts


def _search(
    bench: Bench,
    gate: Gate,
    calibration: CalibrationSet | None,
    *,
    finished: Attempt | None,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> tuple[Tried, list[Tried]]:
    reference = load_candidate(
        bench.source,
        bench.source.content,
        backend=bench.target.backend,
        name=bench.source.given,
        file=bench.source.file_name,
        settings=bench.settings,
    )
    try:
        pictures = () if calibration is None else calibration.pictures
        workshop = open_workshop(
            bench.source, bench.target, calibration_inputs(pictures, reference.preprocessor), pictures=len(pictures)
        )
        search = Search(bench, workshop, say)
        if search.float.evaluation is not None:
            for remark in remarks(search.float.evaluation):
                warn(remark)
        if finished is not None:
            proved = search.attempt(finished)
            return search.float, [] if proved is None else [proved]
        tried = search.recipes()
        best = nearest(tried, gate)
        if best is not None and all(gate.problems(one) for one in tried if one.kind == "int8"):
            tried += search.spare_layers(best, gate)
        return search.float, tried
    finally:
        reference.close()


def _write_report(
    folder: Path,
    found: dict[str, Any],
    labels: tuple[str, ...],
    evaluations: Sequence[Evaluation],
    compared: Comparison | None,
) -> None:
    """Write the report's folder beside its place; an older report of this name gives way to it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            drawn: list[tuple[str, str]] = []
            if compared is not None:
                drawn = draw_worst(made / PICTURES, evaluations[0], evaluations[1], compared, labels)
            plotted = draw_frontier(made / PLOT, found)
            write_json(made / "report.json", found)
            write_whole(made / "report.md", markdown(found, pictures=drawn, plot=plotted).encode())
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
    except OSError as failure:
        raise StateError(f"{folder}: the report cannot be written: {failure.strerror or failure}") from failure


def _note_use(dataset: Dataset, chosen: Tried) -> None:
    manifest = chosen.loaded_manifest
    figure = "none" if chosen.figure is None else format(chosen.figure, ".4f")
    note_use(dataset, model=f"{manifest.name} {manifest.version}, quantised by it", figure=figure, state_dir=None)


def refusal(outcome: Outcome) -> ModelError:
    """What the command ends with where nothing may be packaged."""
    problems = outcome.document["verdict"]["problems"]
    told = "".join(f"\n  {problem}" for problem in problems)
    return ModelError(
        f"{outcome.document['name']}: no 8-bit model holds what is asked for, and none is packaged; the report says why: "
        f"{outcome.report / 'report.md'}; more calibration pictures, a larger --max-drop or --allow-drop are what can be "
        f"changed:{told}"
    )
