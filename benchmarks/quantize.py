"""One table of several quantisations, from the reports that `edgevision quantize` wrote: what 8 bits cost and gain.

edgevision quantize yolox_nano.onnx --like yolox-nano --calibration C --evaluate V --iou 0.65 --target openvino -o made/
python benchmarks/quantize.py made/*-report/report.json --output benchmarks/results/my-machine/quantize
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HEADER = (
    "model",
    "target",
    "recipe",
    "figure",
    "float",
    "8 bits",
    "loss",
    "time / float",
    "integer",
    "pictures",
    "made in, memory",
)


def row(report: dict[str, Any]) -> list[str]:
    """One report's line: the candidate that was packaged, or a refusal."""
    name, target = report["source"]["name"], report["target"]["name"]
    chosen = [one for one in report["frontier"] if one["packaged"]]
    reference = report["frontier"][0]
    pictures = f"{report['dataset']['looked_at']}"
    took = report["took"]
    made = f"{took['wall_s'] / 60:.1f} min, {took['peak_rss_bytes'] / 1e9:.2f} GB"
    if not chosen:
        return [name, target, "refused", report["figure"], f"{reference['figure']:.4f}", "", "", "", "", pictures, made]
    (one,) = chosen
    latency, integers = one["latency"], one["integers"]
    here = "" if report["target"]["here"] else " (not such a device)"
    return [
        name,
        target,
        one["name"],
        report["figure"],
        f"{reference['figure']:.4f}",
        f"{one['figure']:.4f}",
        f"{one['drop_points']:+.2f}",
        f"{latency['ratio']:.2f} ({latency['low']:.2f}-{latency['high']:.2f}){here}",
        "" if integers is None else f"{integers['convolutions']} of {integers['of']}",
        pictures,
        made,
    ]


def main() -> None:
    """Write the table, and the reports beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT.json")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for quantize.md and the reports")
    arguments = parser.parse_args()
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.reports]
    rows = sorted(row(report) for report in reports)
    environment = reports[0]["environment"]
    lines = ["# INT8: what it costs and gains", ""]
    lines += [
        f"{environment['cpu']} ({', '.join(environment['features'])}), {environment['usable_cores']} cores, shared.",
        "",
    ]
    lines += ["| " + " | ".join(cells) + " |" for cells in (HEADER, ["---"] * len(HEADER), *rows)]
    arguments.output.mkdir(parents=True, exist_ok=True)
    for report in reports:
        (arguments.output / f"{report['name']}.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    (arguments.output / "quantize.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
