"""`edgevision benchmark`: how fast models are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from edgevision.host.benchmark.session import Session

app = new_app()


@app.command()
def benchmark(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="A model's name or folder, or an .onnx or .tflite file.")
    ],
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="onnxrt, litert, openvino; several with commas; `all`: every one that a file here is made for."
        ),
    ] = None,
    threads: Annotated[str, typer.Option(help="Threads of one inference; several with commas: 1,2,4.")] = "1",
    input_size: Annotated[str, typer.Option(metavar="WxH", help="The camera's frame in pixels.")] = "1280x720",
    paced: Annotated[
        float | None,
        typer.Option(min=0.01, max=1000, metavar="FPS", help="Also at this frame rate, as a camera paces it."),
    ] = None,
    duration: Annotated[
        float,
        typer.Option(min=0.1, max=86400, help="Seconds of timed blocks; all together takes about four times as long."),
    ] = 10.0,
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Fresh processes that the latency run is spread over; each starts cold.")
    ] = 6,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="F", help="Keep everything here; a second run goes on from it.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="F", help="Write the report as Markdown.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="F", help="Draw latencies: .png, .svg or .pdf.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Operator by operator, by the runtime's own profiler.")
    ] = False,
    bare: Annotated[bool, typer.Option("--bare/--no-bare", help="Time the bare runtime beside it.")] = True,
    like: Annotated[str | None, typer.Option(help="For a bare model file: a model that is built alike.")] = None,
    providers: Annotated[
        str | None, typer.Option(help="ONNX Runtime's execution providers, by preference: cuda,cpu.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what --json holds already.")] = False,
) -> None:
    """Measure latency, cold start, memory and CPU of models, from camera frame to message.

    Each measurement runs in a process of its own. Close other programs; what the machine did beside is in the result.

    \b
    Examples:
      edgevision benchmark efficientnet-lite0
      edgevision benchmark efficientnet-lite0 --backend all --threads 1,2 --json bench.json --plot bench.png
      edgevision benchmark yolox_nano.onnx --like yolox-nano --paced 10 --profile --markdown bench.md
    """
    from edgevision import logs
    from edgevision.errors import UsageError
    from edgevision.host.benchmark import document, frames, session, settings, table
    from edgevision.host.benchmark import plot as plotting

    logs.configure(level="warning")
    chosen = settings.Settings(
        size=frames.parse_size(input_size),
        duration_s=duration,
        repeats=repeats,
        paced_fps=paced,
        bare=bare,
        profile=profile,
        providers=_checked_providers(providers),
    )
    if fresh and json_file is None:
        raise UsageError("--fresh starts the file of --json over; without --json nothing is kept anyway")
    if plot is not None:
        plotting.check(plot)
    backends = [name.strip() for entry in backend or [] for name in entry.split(",") if name.strip()]
    todo = settings.candidates(models, backends=backends, threads=_parse_threads(threads), like=like)
    done = session.run(
        todo, chosen, file=json_file, fresh=fresh, on_message=lambda text: typer.echo(f"edgevision: {text}", err=True)
    )
    _show(done)
    if markdown is not None:
        document.write_bytes(markdown, table.markdown(done.document).encode())
    if plot is not None:
        plotting.draw(done.document, plot)
    if done.failures:
        candidate, failure = done.failures[0]
        raise type(failure)(f"{len(done.failures)} of {len(todo)} candidates failed, the first: {candidate}: {failure}")


def _parse_threads(text: str) -> list[int]:
    from edgevision.errors import UsageError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 256 for part in parts):
        raise UsageError(f"--threads: found {text!r}; write numbers of 1 to 256 with commas between them, as 1,2,4")
    return sorted({int(part) for part in parts})


def _checked_providers(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    from pydantic import ValidationError

    from edgevision.errors import UsageError
    from edgevision.inference.onnxrt import Options

    names = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        Options.model_validate({"providers": names})
    except ValidationError as failure:
        raise UsageError(f"--providers: {failure.errors()[0]['msg'].removeprefix('Value error, ')}") from failure
    return names


def _show(done: Session) -> None:
    from rich.table import Table

    from edgevision.host.benchmark import table

    if not done.document["results"]:
        return
    columns = ("model", "backend", "threads", "p50 ms", "p90 ms", "p99 ms", "bare p50 ms", "edgevision / bare",
               "cold start ms", "peak memory MB", "CPU % of a core")  # fmt: skip
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        shown.add_column(name, justify="left" if name in {"model", "backend"} else "right", overflow="fold")
    for row in table.rows(done.document):
        by_name = dict(zip(table.HEADER, row, strict=True))
        shown.add_row(*(by_name[name] for name in columns))
    console().print(shown)
    for result in done.document["results"]:
        typer.echo(f"\n{table.title(result)}")
        for line in table.details(result):
            typer.echo(f"  {line}")
        for one in result["profile"].get("operators", []):
            typer.echo(f"    {one['operator']:28} {one['count']:4} nodes {one['mean_us']:10.0f} us {one['share']:7.1%}")
