"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

State: TypeAlias = Literal["ok", "warning", "fault"]
STATES: tuple[State, ...] = ("ok", "warning", "fault")
"""From good to bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one look found."""

    part: str
    """What was looked at: `config`, `runtimes`, `cameras` ..."""
    subject: str
    """Which one."""
    state: State
    found: str
    fix: str = ""
    """What to do; every warning and fault has one."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ok(part: str, subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(part=part, subject=subject, state="ok", found=found)


def warning(part: str, subject: str, found: str, fix: str) -> Finding:
    """It runs, and somebody should know."""
    return Finding(part=part, subject=subject, state="warning", found=found, fix=fix)


def fault(part: str, subject: str, found: str, fix: str) -> Finding:
    """It will not run like this."""
    return Finding(part=part, subject=subject, state="fault", found=found, fix=fix)


def parted(text: str) -> tuple[str, str]:
    """One of our errors as what was found and the fix, which stands behind the last semicolon or colon of such a text."""
    for mark in ("; ", ": "):
        found, there, fix = text.rpartition(mark)
        if there:
            return found, fix
    return text, "see what was found"
