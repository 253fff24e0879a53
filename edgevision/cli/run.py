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
    safe_mode: Annotated[
        bool,
        typer.Option(
            "--safe-mode/--no-safe-mode", help="Leave out a part that crashed again and again, or try it all."
        ),
    ] = True,
) -> None:
    """Run the daemon: cameras in, detections out, until SIGTERM or Ctrl-C; SIGHUP takes a new config over.

    A camera, picture or broker that fails never ends it; a wrong config (exit status 2), or a model that cannot be loaded
    (exit status 4), does so at the start; one that crashes its runtime in the process where it is tried is left out. When every
    source is a file that has ended, so does the daemon (exit status 0).
    What hangs for longer than its deadline ends it too (exit status 9): systemd then starts it anew.

    \b
    Examples:
      edgevision run -c /etc/edgevision/edgevision.yaml
      edgevision run -c line3.yaml --log-format json
    """
    import signal
    import threading
    from types import FrameType

    from edgevision import logs
    from edgevision.clock import SYSTEM_CLOCK
    from edgevision.config import Config, digest, load
    from edgevision.environment import runtime_dir

    def load_config() -> Config:
        loaded = load(config)
        logs.configure(
            level=logs.checked_level(log_level or loaded.logging.level),
            style=logs.checked_format(log_format or loaded.logging.format),
        )
        return loaded

    loaded = load_config()
    from edgevision.runtime.crashes import CrashJournal, SafeMode
    from edgevision.runtime.service import Reload, Service
    from edgevision.runtime.systemd import Notifier

    stopping, reloading = threading.Event(), threading.Event()
    names: list[str] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)
        stopping.set()

    def on_hang_up(_number: int, _frame: FrameType | None) -> None:
        reloading.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGHUP, on_hang_up)
    after = loaded.supervision.safe_mode_after
    journal = CrashJournal(loaded.state_dir, loaded.device, clock=SYSTEM_CLOCK, after=after)

    def load_again() -> tuple[Config, SafeMode]:
        new = load_config()
        journal.end("clean", reason="a new config is taken over")
        return new, journal.begin(digest(new))

    service = Service(
        loaded,
        notifier=Notifier.from_environment(),
        journal=journal,
        safe_mode=journal.begin(digest(loaded), whole=not safe_mode),
        health_dir=runtime_dir(),
    )
    service.start()
    service.wait(stopping, reload=Reload(requested=reloading, load=load_again))
    service.stop(f"stopped by {names[0]}" if names else "every source has ended")
