"""Whether a camera that gives frames is to be trusted: from measures of its pictures to a state that does not flap.

The machine at the heart (`Health`) is pure: measures and times in, a verdict out. A fault must be seen for `confirm_s` before
it is the state, and be gone for `clear_s` before it is not; but a frame that shows a fault is not trusted from the first on,
so that "nothing found" in the second before `dark` is never taken for an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgevision.config import HealthSection
from edgevision.messages import CameraState

LIVE_REASON = "frames arrive"
IDLE_REASON = "the source is watched; no picture is due"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What one frame shows; None where it was not measured."""

    mono_ns: int
    dark_share: float | None = None
    bright_share: float | None = None
    difference: float | None = None
    """To the frame before, in grey levels."""
    sharpness: float | None = None
    """As a share of the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A camera's state at one frame, and whether this frame is to be trusted."""

    state: CameraState = "live"
    reason: str = LIVE_REASON
    trusted: bool = True
    """False for every state but `live`, and for a frame that shows what would become another state."""


class _Fault:
    """One kind of fault and its two delays."""

    def __init__(self, state: CameraState, *, confirm_s: float, clear_s: float) -> None:
        self.state: CameraState = state
        self.bad = False
        """What was seen last."""
        self.active = False
        self.reason = ""
        self._confirm_ns = int(confirm_s * 1e9)
        self._clear_ns = int(clear_s * 1e9)
        self._since_ns: int | None = None
        """Since when what is seen speaks against `active`."""

    def see(self, bad: bool, mono_ns: int, reason: str) -> None:
        """Take in what a frame shows; `reason` is kept when the fault begins, so that it is told once."""
        self.bad = bad
        if bad == self.active:
            self._since_ns = None
            return
        if self._since_ns is None:
            self._since_ns = mono_ns
        if mono_ns - self._since_ns >= (self._confirm_ns if bad else self._clear_ns):
            self.active, self._since_ns = bad, None
            self.reason = reason

    def forget(self) -> None:
        """What was seen no longer counts."""
        self.bad = self.active = False
        self._since_ns = None


class Health:
    """One camera's faults, the most telling first."""

    def __init__(self, section: HealthSection, *, late_after_s: float | None) -> None:
        """`late_after_s` is the section's, or more where few frames are asked for; None is off."""
        confirm = {"confirm_s": section.confirm_s, "clear_s": section.clear_s}
        at_once = {"confirm_s": 0.0, "clear_s": section.clear_s}  # a time is their condition already
        self._section = section
        self._late_ns = None if late_after_s is None else int(late_after_s * 1e9)
        self._dark = _Fault("dark", **confirm)
        self._overexposed = _Fault("overexposed", **confirm)
        self._frozen = _Fault("frozen", **at_once)
        self._blurred = _Fault("blurred", **confirm)
        self._late = _Fault("late", **at_once)
        # A covered lens also gives the same picture again and again, and shows nothing sharp: the cause comes first.
        self._faults = (self._dark, self._overexposed, self._frozen, self._blurred, self._late)
        self._same_since_ns: int | None = None
        self._last_ns: int | None = None
        self._doubtful_at_ns = 0
        self._told = Verdict()

    def restart(self) -> None:
        """The source was opened again: the pause before it was told as such, and is no lateness."""
        self._last_ns = None

    def idle(self) -> None:
        """No picture was due: the next one is not late."""
        self._last_ns = None

    def focus_anew(self) -> None:
        """The baseline is another one, or is gone: what was called blurred was so against the old one."""
        self._blurred.forget()

    def see(self, seen: Measures) -> Verdict:
        """Take in one frame."""
        now_ns = seen.mono_ns
        self._see_light(seen, now_ns)
        self._see_difference(seen, now_ns)
        self._see_sharpness(seen, now_ns)
        self._see_time(now_ns)
        doubtful = any(fault.bad for fault in self._faults)
        if doubtful:
            self._doubtful_at_ns = now_ns
        worst = next((fault for fault in self._faults if fault.active), None)
        if worst is not None:
            self._told = Verdict(state=worst.state, reason=worst.reason, trusted=False)
        elif self._told.state == "live" or now_ns - self._doubtful_at_ns >= self._section.clear_s * 1e9:
            self._told = Verdict(trusted=not doubtful)
        # Between one fault and the next, which is not confirmed yet, the camera is not `live` for a moment.
        return self._told

    def _see_light(self, seen: Measures, now_ns: int) -> None:
        section = self._section
        for fault, share, limit, level, side in (
            (self._dark, seen.dark_share, section.dark_share, section.dark_level, "below"),
            (self._overexposed, seen.bright_share, section.overexposed_share, section.overexposed_level, "above"),
        ):
            if share is not None and limit is not None:
                told = f"{share:.0%} of the pixels are at or {side} grey level {level}: check the light and the lens"
                fault.see(share >= limit, now_ns, told)

    def _see_difference(self, seen: Measures, now_ns: int) -> None:
        after_s = self._section.frozen_after_s
        if after_s is None or seen.difference is None:
            return
        if seen.difference > self._section.frozen_difference:
            self._same_since_ns = None
        elif self._same_since_ns is None:
            self._same_since_ns = now_ns if self._last_ns is None else self._last_ns
        same_since_ns = self._same_since_ns
        frozen = same_since_ns is not None and now_ns - same_since_ns >= after_s * 1e9
        told = f"the same picture for {after_s:g} s: the camera or its encoder hangs; switch it off and on"
        # A frozen camera that shows something new is good from its first new picture on; one repeat is not frozen again.
        bad = frozen or (self._frozen.active and same_since_ns is not None)
        self._frozen.see(bad, now_ns, told)

    def _see_sharpness(self, seen: Measures, now_ns: int) -> None:
        limit = self._section.blurred_below
        if limit is None or seen.sharpness is None or self._dark.bad or self._overexposed.bad:
            return
        told = f"sharpness is {seen.sharpness:.0%} of the baseline: clean the lens and check the focus"
        self._blurred.see(seen.sharpness < limit, now_ns, told)

    def _see_time(self, now_ns: int) -> None:
        last_ns, self._last_ns = self._last_ns, now_ns
        if self._late_ns is None or last_ns is None:
            return
        told = late_reason((now_ns - last_ns) / 1e9)
        self._late.see(now_ns - last_ns >= self._late_ns, now_ns, told)


def late_reason(seconds: float) -> str:
    """Why a camera is `late`, in words."""
    return f"{seconds:.1f} s between two frames: the camera, the network or this machine is overloaded"
