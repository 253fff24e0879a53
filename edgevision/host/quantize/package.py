"""The model folder that the daemon loads: weights, labels, model.yaml with lineage and proof, README. Whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from edgevision.errors import StateError, UsageError
from edgevision.host.quantize.report import calibrated, lost, verdict_line
from edgevision.host.quantize.search import Bench, Tried
from edgevision.manifest import MANIFEST_NAME, Manifest, load_manifest

_README = "README.md"


def check_target(folder: Path) -> None:
    """Tell before the work that the model could not be written after it.

    Raises:
        UsageError: there is something of this name already.
        StateError: the folder cannot be written.
    """
    if folder.exists():
        raise UsageError(f"{folder}: is there already; choose another name with --name, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".quantizing-", dir=folder.parent):
            pass
    except OSError as failure:
        raise StateError(f"{folder}: cannot be written: {failure.strerror or failure}") from failure


def write_package(folder: Path, bench: Bench, chosen: Tried, found: dict[str, Any]) -> Manifest:
    """Write the folder beside its place and rename it.

    Args:
        folder: that must not be there.
        bench: source and target.
        chosen: the candidate.
        found: the report's document.

    Raises:
        StateError: it cannot be written; nothing half-written stays.
    """
    parent, described = bench.source.manifest, chosen.loaded_manifest
    manifest = described.model_copy(
        update={
            "name": bench.name,
            "metrics": _metrics(found),
            "lineage": lineage(found, chosen),
            "source": f"quantised from {parent.name} {parent.version} ({parent.source})",
        }
    )
    file = manifest.files[bench.target.backend].file_name
    try:
        with tempfile.TemporaryDirectory(prefix=".quantizing-", dir=folder.parent) as temporary:
            made = Path(temporary) / bench.name
            made.mkdir()
            (made / file).write_bytes(chosen.content)
            if bench.source.labels_file is not None and manifest.labels is not None:
                shutil.copyfile(bench.source.labels_file, made / manifest.labels)
            raw = manifest.model_dump(mode="json", exclude_unset=True)
            text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120)
            (made / MANIFEST_NAME).write_text(text, encoding="utf-8")
            (made / _README).write_text(_readme(manifest, found), encoding="utf-8")
            load_manifest(made)  # what we wrote is what a daemon will read
            made.rename(folder)
    except OSError as failure:
        raise StateError(f"{folder}: the model cannot be written: {failure.strerror or failure}") from failure
    return manifest


def _metrics(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The proof: each figure beside the float model's on the same pictures."""
    environment = found["environment"]
    host = f"{environment['cpu']}, {', '.join(environment['features'])}"
    common = {"dataset": found["dataset"]["source"], "images": found["dataset"]["looked_at"]}
    backend = found["target"]["backend"]
    metrics = [
        {**common, "metric": one["figure"], "backend": backend, "value": round(one["int8"], 4), "float": round(one["float"], 4),
         "host": host}
        for one in found["compared"]["figures"]
        if one["int8"] is not None and one["float"] is not None
    ]  # fmt: skip
    difference = found["compared"]["difference"]
    if metrics and difference is not None and difference["low"] is not None:
        metrics[0]["interval"] = [round(difference["low"], 4), round(difference["high"], 4)]
    return metrics


def lineage(found: dict[str, Any], chosen: Tried) -> dict[str, Any]:
    """What the model was made from, how, and under which budget."""
    row = next(row for row in found["frontier"] if row["packaged"])
    latency = row["latency"]
    return {
        "from": found["source"],
        "target": found["target"]["name"],
        "recipe": {"name": chosen.name, **chosen.attempt.parameters, "spared": list(chosen.attempt.spared)},
        "calibration": found["calibration"],
        "evaluation": {
            "dataset": found["dataset"]["source"],
            "digest": found["dataset"]["digest"],
            "images": found["dataset"]["looked_at"],
            "settings": found["settings"],
        },
        "budget": {
            "max_drop_points": found["gate"]["max_drop"],
            "drop_points": None if chosen.drop is None else round(chosen.drop, 3),
            "allowed_over_budget": found["verdict"]["allowed"],
        },
        "integer_convolutions": None
        if row["integers"] is None
        else {"convolutions": row["integers"]["convolutions"], "of": row["integers"]["of"]},
        "latency_ratio": None
        if latency is None
        else {"ratio": latency["ratio"], "low": latency["low"], "high": latency["high"], "here": found["target"]["here"],
              "threads": latency["threads"]},
        "remarks": found["verdict"]["remarks"],
        "tools": found["tools"],
        "made": found["made_at"][:10],
    }  # fmt: skip


def _readme(manifest: Manifest, found: dict[str, Any]) -> str:
    row = next(row for row in found["frontier"] if row["packaged"])
    source, dataset = found["source"], found["dataset"]
    lines = [
        f"# {manifest.name}",
        "",
        f"{source['name']} {source['version']} in 8 bits for {found['target']['what']}. Licence: {manifest.licence}.",
        "",
        f"{verdict_line(found)}.",
        "",
        *(f"- {remark}" for remark in found["verdict"]["remarks"]),
        "",
        "| | float | 8 bits |",
        "|---|---|---|",
        *(
            f"| {one['figure']} | {one['float']:.4f} | {one['int8']:.4f} |"
            for one in found["compared"]["figures"]
            if one["float"] is not None and one["int8"] is not None
        ),
        "",
        f"On {dataset['looked_at']} pictures of {dataset['source']} (sha256 `{dataset['digest'][:16]}`):",
        f"{lost(row['drop_points'])}. Calibrated with: {calibrated(found)}.",
        "`model.yaml` holds the whole lineage; `edgevision evaluate` measures the figures again.",
    ]
    return "\n".join(lines) + "\n"
