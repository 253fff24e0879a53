"""`edgevision compare`: whether a model became slower, for a CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from edgevision.host.benchmark.noise import Ratio
    from edgevision.host.compare import Comparison

app = new_app()


@app.command()
def compare(
    before: Annotated[
        Path, typer.Argument(metavar="A.json", help="The older result of `edgevision benchmark --json`.")
    ],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="The newer one.")],
    fail_on: Annotated[str, typer.Option(metavar="PERCENT", help="How much slower is a regression.")] = "5%",
    metric: Annotated[str, typer.Option(help="p50, mean, p90, p95 or p99 of the closed loop's latency.")] = "p50",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="F", help="Write the comparison here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare though machine, model or settings differ.")] = False,
) -> None:
    """Compare two results; exit status 1 where a model became slower by more than the limit, for sure.

    For sure: the whole 95 % interval of the ratio lies above the limit. Exit status 2 where the files cannot be compared.

    \b
    Example:
      edgevision compare main.json branch.json --fail-on 5%
    """
    from edgevision.errors import EdgevisionError
    from edgevision.host import compare as comparing
    from edgevision.host.benchmark import document

    found = comparing.compare_files(before, after, limit=comparing.parse_percent(fail_on), metric=metric, force=force)
    if json_file is not None:
        document.write_bytes(json_file, json.dumps(found.document(), indent=2, ensure_ascii=False).encode() + b"\n")
    _show(found)
    if found.regressions:
        slower = ", ".join(line.candidate for line in found.regressions)
        raise EdgevisionError(f"slower by more than {found.limit * 100:g} % ({found.metric}): {slower}")


def _show(found: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("candidate", f"{found.metric} A ms", "B ms", "B / A", "B / A beside bare runtime", "verdict"):
        shown.add_column(name, justify="left" if name in {"candidate", "verdict"} else "right", overflow="fold")
    for line in found.lines:
        shown.add_row(
            Text(line.candidate), f"{line.before_ms:.3f}", f"{line.after_ms:.3f}", _text(line.raw),
            _text(line.beside), line.verdict,
        )  # fmt: skip
    console().print(shown)
    for line in found.lines:
        for note in line.notes:
            typer.echo(f"{line.candidate}: {note}")
    for difference in found.differences:
        typer.echo(f"differs: {difference}")
    for name in found.only_in_one:
        typer.echo(f"only in one file, not compared: {name}")


def _text(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.ratio:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"
