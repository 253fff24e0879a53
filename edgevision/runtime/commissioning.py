"""A camera's baseline, made now and on request: for whoever has just mounted and focused it.

The camera is read as the daemon reads it (same source, same rotation, same checks of its pictures), so that the figure is the
one that the daemon will measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgevision import assembly
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.config import CameraSection
from edgevision.errors import CaptureError
from edgevision.runtime.baseline import Baseline, Stamp
from edgevision.runtime.health import Verdict
from edgevision.runtime.watch import PictureWatch

_PATIENCE = 3.0
"""So many times the wanted time is looked for it without a bad picture."""


@dataclass(slots=True, kw_only=True)
class _InHand:
    """A baseline that stays in memory until it is whole."""

    path: Path = field(default_factory=Path)
    made: Baseline | None = None

    def stamp(self) -> Stamp | None:
        return None

    def load(self) -> Baseline | None:
        return None

    def save(self, baseline: Baseline) -> None:
        self.made = baseline


def unwatched(camera: CameraSection) -> str | None:
    """Why the daemon needs no baseline of a camera; None where it does."""
    health = camera.health
    if health.check == "never":
        return "health.check is never"
    if health.blurred_below is None:
        return "health.blurred_below is null"
    source = assembly.make_source(camera)  # opens nothing
    live = source.live
    source.close()
    return None if live or health.check == "always" else "its source is a file, and health.check is live"


def measure(
    camera: CameraSection,
    *,
    seconds: float,
    tell: Callable[[float | None, Verdict], None] = lambda *_: None,
    clock: Clock = SYSTEM_CLOCK,
) -> Baseline:
    """Read a camera until it has given good pictures for so long, and make a baseline of them; nothing is written.

    Args:
        camera: its section of the config.
        seconds: of good pictures without a break.
        tell: called about once a second with the sharpness, and with what is thought of the picture.
        clock: the time.

    Raises:
        EdgevisionError: it cannot be opened, fails, ends, or its pictures are not good enough.
    """
    section = camera.health.model_copy(update={"baseline_after_s": seconds})
    found = _InHand()
    watch = PictureWatch(camera.name, section, late_after_s=None, baseline=found, clock=clock)
    maker = assembly.SourceMaker(camera, clock=clock)
    source = maker.make()
    began_ns = told_ns = last_ns = None
    verdict, sharpness = Verdict(), None
    try:
        for frame in source.frames():
            verdict, last_ns = watch.see(frame), frame.captured_mono_ns
            sharpness = watch.focus.sharpness
            began_ns = last_ns if began_ns is None else began_ns
            if told_ns is None or last_ns - told_ns >= 1e9:
                told_ns = last_ns
                tell(sharpness, verdict)
            if found.made is not None:
                return found.made
            if last_ns - began_ns > _PATIENCE * seconds * 1e9:
                break
    finally:
        source.close()
        maker.close()
    if not verdict.trusted:
        reason = verdict.reason if verdict.state != "live" else "pictures are doubtful again and again"
    elif sharpness is None:
        reason = "the pictures show nothing that could be sharp: point it at what it is to see"
    else:
        reason = "bad pictures came in between, or the source ended too soon"
    seen_s = 0.0 if began_ns is None or last_ns is None else (last_ns - began_ns) / 1e9
    raise CaptureError(
        f"camera {camera.name}: no {seconds:g} s of good pictures without a break within {seen_s:.1f} s: {reason}"
    )
