"""`edgevision demo`: the whole house on one machine in one command."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from edgevision.demo.feed import Feed

app = new_app()


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End after this long; until Ctrl-C without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A model's name or folder, or a bare file.")
    ] = "efficientnet-lite0",
    source: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL|INDEX", help="What to look at, in place of the package's own photos."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="onnxrt, litert or openvino.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.001, max=1000, help="Frames per second to look at.")] = None,
    like: Annotated[str | None, typer.Option(help="For a bare model file: a model that is built alike.")] = None,
) -> None:
    """Start a broker on this machine, run the daemon on real photos, and show what arrives.

    \b
    Examples:
      edgevision demo
      edgevision demo --seconds 10 --json
      edgevision demo --source 0
      edgevision demo --model yolox_nano.onnx --source bottles.mp4
    """
    from edgevision import logs

    logs.configure(level="warning")
    from edgevision.demo import show

    options = show.DemoOptions(seconds=seconds, model=model, like=like, source=source, backend=backend, fps=fps)
    summary = _play(options, as_json=as_json)
    if as_json:
        typer.echo(json.dumps(summary))


def _play(options: Any, *, as_json: bool) -> dict[str, Any]:
    """With a live table where a person looks; Ctrl-C ends the demo in order."""
    import signal
    import sys

    from rich.live import Live

    from edgevision.demo import show

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    if as_json or not sys.stdout.isatty():
        last: list[tuple[Feed, int]] = []
        summary = show.play(options, stopping, lambda feed, port: last.append((feed, port)) if not last else None)
        if not as_json:
            console().print(show.table(*last[0]))
        return summary
    with Live(refresh_per_second=8, console=console()) as live:
        return show.play(options, stopping, lambda feed, port: live.update(show.table(feed, port)))
