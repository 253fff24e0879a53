"""`edgevision baseline`: how sharp each camera was when it was commissioned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import new_app

if TYPE_CHECKING:
    from edgevision.config import CameraSection, Config
    from edgevision.errors import EdgevisionError
    from edgevision.runtime.baseline import Baseline, BaselineFile
    from edgevision.runtime.health import Verdict

app = new_app()


@app.command()
def baseline(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The config, a YAML file.")],
    camera: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this camera; may be repeated. By default all.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Make it now, of what the camera shows.")] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Take it away: the daemon makes a new one of its next good pictures.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show what there is; so it does without any of these.")] = False,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="With --measure: of good pictures without a break.")
    ] = 10,
) -> None:
    """Show, make or clear the baseline that a camera's state `blurred` is measured against (health.blurred_below).

    Without this command the daemon makes it of the first good pictures (health.baseline_after_s). After the lens has been
    cleaned, focused or exchanged, use --measure, which reads the camera itself and tells the sharpness each second; or, where
    only the running daemon can open the camera, --clear. A running daemon notices either within a second and needs no reload.
    The old baseline stays until the new one is whole. Run it as root or as the daemon's user. Exit status 5: a camera gave no
    good pictures.

    \b
    Examples:
      sudo edgevision baseline -c /etc/edgevision/edgevision.yaml
      sudo edgevision baseline -c line3.yaml --camera infeed --measure
      sudo edgevision baseline -c line3.yaml --camera infeed --clear
    """
    from edgevision.config import load
    from edgevision.errors import EdgevisionError, UsageError
    from edgevision.runtime.baseline import BaselineFile, as_owner_of

    if measure + clear + show > 1:
        raise UsageError("--measure, --clear and --show: give one of them")
    loaded = load(config)
    failures: list[EdgevisionError] = []
    for section in _chosen(loaded, camera):
        file = BaselineFile.of(loaded.state_dir, section.name)
        try:
            if measure:
                made = _measured(section, seconds)
                with as_owner_of(loaded.state_dir):
                    file.save(made)
                line = f"baseline made: {_words(made)}; a running daemon takes it over by itself"
            elif clear:
                with as_owner_of(loaded.state_dir):
                    was_there = file.clear()
                line = (
                    f"cleared: {_will_be_made(section)}"
                    if was_there
                    else f"there was none in {file.path}; nothing done"
                )
            else:
                line = _shown(section, file)
        except EdgevisionError as failure:
            failures.append(failure)
        else:
            typer.echo(f"{section.name}: {line}")
    if failures:
        # One error is told as it is; of several, each is one line, and the first one's kind is the exit status.
        raise failures[0] if len(failures) == 1 else type(failures[0])("\n".join(map(str, failures)))


def _chosen(config: Config, names: list[str] | None) -> list[CameraSection]:
    from edgevision import registry
    from edgevision.errors import UsageError

    known = {section.name: section for section in config.cameras}
    for name in names or []:
        if name not in known:
            raise UsageError(f"--camera: {registry.unknown_name('camera', name, list(known))}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(config.cameras)


def _measured(section: CameraSection, seconds: float) -> Baseline:
    from edgevision.errors import CaptureError, UsageError
    from edgevision.runtime.commissioning import measure, unwatched

    reason = unwatched(section)
    if reason is not None:
        raise UsageError(f"camera {section.name}: needs no baseline: {reason}")

    def tell(sharpness: float | None, verdict: Verdict) -> None:
        value = "nothing that could be sharp" if sharpness is None else f"sharpness {sharpness:.4f}"
        typer.echo(f"{section.name}: {value}" + ("" if verdict.trusted else f", not good: {verdict.state}"))

    try:
        return measure(section, seconds=seconds, tell=tell)
    except CaptureError as failure:
        name, hint = (
            f"camera {section.name}: ",
            "; if a running daemon has the camera, use --clear, or stop it meanwhile",
        )
        raise CaptureError(f"{name}{str(failure).removeprefix(name)}{hint}") from failure


def _shown(section: CameraSection, file: BaselineFile) -> str:
    from edgevision.runtime.commissioning import unwatched

    reason = unwatched(section)
    if reason is not None:
        return f"needs none: {reason}"
    found = file.load()
    if found is None:
        return f"none yet in {file.path}: {_will_be_made(section)}"
    limit = found.sharpness * (section.health.blurred_below or 0.0)
    return f"{_words(found)}, made {found.made_at}; `blurred` below {limit:.4f}; {file.path}"


def _words(found: Baseline) -> str:
    return f"sharpness {found.sharpness:.4f} at {found.width}x{found.height}"


def _will_be_made(section: CameraSection) -> str:
    return f"a running daemon makes it of {section.health.baseline_after_s:g} s of good pictures without a break"
