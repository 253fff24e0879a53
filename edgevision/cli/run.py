"""`edgevision run`: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import new_app

app = new_app()


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The config, a YAML file.")],
    log_format: Annotated[
        str | None, typer.Option(help="text or json, in place of the config's logging.format.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error, in place of logging.level.")
    ] = None,
) -> None:
    """Run the daemon: cameras in, detections out, until SIGTERM or Ctrl-C.

    A camera, picture or broker that fails never ends it; a wrong config (exit status 2), or a model that cannot be loaded
    (exit status 4), does so at the start. When every source is a file that has ended, so does the daemon (exit status 0).

    \b
    Examples:
      edgevision run -c /etc/edgevision/edgevision.yaml
      edgevision run -c line3.yaml --log-format json
    """
    import signal
    import threading
    from types import FrameType

    from edgevision import logs
    from edgevision.config import load

    loaded = load(config)
    logs.configure(
        level=logs.checked_level(log_level or loaded.logging.level),
        style=logs.checked_format(log_format or loaded.logging.format),
    )
    from edgevision.runtime.service import Service

    stopping = threading.Event()
    names: list[str] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)
        stopping.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    service = Service(loaded)
    service.start()
    service.wait(stopping)
    service.stop(f"stopped by {names[0]}" if names else "every source has ended")
