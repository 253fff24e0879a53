"""Every error edgevision raises on purpose, as one tree, each with the exit status of the command line.

One place, so that a script can tell a broken config from a missing camera by the number alone, and so that a message is
written to one pattern: the file, the key, what was found, and how to mend it. Whatever is not in this tree is a bug and
prints a traceback; whatever is in it prints one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class EdgevisionError(Exception):
    """Base of all; the text is the whole message for the user. Exit status 1."""

    exit_status = 1


class UsageError(EdgevisionError):
    """What was asked for cannot be: a wrong argument, an unknown name. Exit status 2."""

    exit_status = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with a YAML document."""

    key: str
    """Dotted path of the value, `cameras[0].source.url`; empty for the whole document."""
    line: int
    """1-based line in the file."""
    problem: str
    """What was found and how to mend it."""


class DocumentError(UsageError):
    """A YAML file (config or model.yaml) with all its faults at once. Exit status 2."""

    def __init__(self, file: str, faults: Sequence[Fault]) -> None:
        """Keep the faults in the order of their lines; the message holds one line for each."""
        self.file = file
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line, fault.key)))
        lines = [self._line(fault) for fault in self.faults]
        # One fault is one line; several stand below each other, each with its place.
        super().__init__(lines[0] if len(lines) == 1 else "\n".join([f"{file}: {len(lines)} faults", *lines]))

    def _line(self, fault: Fault) -> str:
        where = f"{self.file}:{fault.line}: "
        return where + (f"{fault.key}: {fault.problem}" if fault.key else fault.problem)


class ConfigError(DocumentError):
    """The daemon's config is wrong. Exit status 2."""


class PluginError(EdgevisionError):
    """A plug-in that exists cannot be used here: its SDK is missing or too old. Exit status 3."""

    exit_status = 3


class ModelError(EdgevisionError):
    """A model cannot be loaded: missing, altered, truncated, refused by its runtime, or wrongly described. Exit status 4."""

    exit_status = 4


class ManifestError(ModelError, DocumentError):
    """A model.yaml is wrong. Exit status 4."""

    exit_status = 4


class InferenceError(ModelError):
    """A loaded model failed while it ran. Exit status 4."""


class ProbeError(ModelError):
    """A model crashed or hung its runtime, or took too much memory, in the process where it was tried. Exit status 4."""


class CaptureError(EdgevisionError):
    """A camera, stream or video cannot be opened, or ended when it should not. Exit status 5."""

    exit_status = 5


class ImageError(EdgevisionError):
    """A picture cannot be used: unreadable, empty, or too large. Exit status 6."""

    exit_status = 6


class PublishError(EdgevisionError):
    """Messages cannot be delivered: the broker refuses us, a file cannot be written. Exit status 7."""

    exit_status = 7


class StateError(EdgevisionError):
    """A folder or file of our own cannot be read or written. Exit status 8."""

    exit_status = 8


class RollbackError(EdgevisionError):
    """Neither a new config nor the old one can be started any more: nothing looks, and only a new start can mend it."""


class StuckError(EdgevisionError):
    """A part of the daemon makes no progress; the process ends itself, so that a new one takes its place. Exit status 9."""

    exit_status = 9
