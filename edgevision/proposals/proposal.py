"""A proposal: the lines of a model.yaml, each with how sure it is and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import yaml

from edgevision.errors import UsageError
from edgevision.manifest import Manifest
from edgevision.proposals.told import validated


class Sureness(IntEnum):
    """How sure a line is."""

    MISSING = 0
    """Nothing tells: the user must."""
    GUESS = 1
    """What is usual, without a sign in the file."""
    LIKELY = 2
    """What exporters of such files do, by signs in the file."""
    CERTAIN = 3
    """It stands in the file, or follows from what stands there."""
    SAID = 4
    """The user says so."""


_WORDS = {
    Sureness.MISSING: "missing",
    Sureness.GUESS: "a guess",
    Sureness.LIKELY: "likely",
    Sureness.CERTAIN: "certain",
    Sureness.SAID: "as you say",
}


_LONGEST = 400
"""Characters of a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One key of a model.yaml."""

    key: str
    """`family`, `input.size`, `outputs.boxes`."""
    value: Any
    sureness: Sureness
    why: str
    """In words."""
    say: str = ""
    """The option with which the user says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """All of them."""

    file: str
    name: str
    lines: tuple[Line, ...]
    labels: tuple[str, ...] = field(default=(), repr=False)

    @property
    def unsure(self) -> tuple[Line, ...]:
        """What is not certain."""
        return tuple(line for line in self.lines if line.sureness < Sureness.CERTAIN)

    @property
    def missing(self) -> tuple[Line, ...]:
        """What nothing tells."""
        return tuple(line for line in self.lines if line.sureness == Sureness.MISSING)

    def text(self) -> str:
        """As a model.yaml, a reason behind every line."""
        rows: list[tuple[str, str]] = [(f"name: {self.name}", "")]
        section = ""
        for line in self.lines:
            head, _, tail = line.key.partition(".")
            if tail and head != section:
                rows.append((f"{head}:", ""))
            section = head if tail else ""
            value = "?" if line.sureness == Sureness.MISSING else _flow(line.value)
            rows.append((f"  {tail}: {value}" if tail else f"{head}: {value}", _reason(line)))
        width = max((len(text) for text, why in rows if why and len(text) < 60), default=0)
        told = [f"{text:<{width}}  # {why}" if why else text for text, why in rows]
        return "\n".join([f"# proposed for {self.file}", *told])

    def advice(self) -> str:
        """What is left to say, one line each."""
        parts = [f"\n  {line.key}: {_reason(line)}" + _option(line) for line in self.unsure]
        return "".join(parts)

    def manifest(self, *, backend: str, path: str, sha256: str, size: int) -> Manifest:
        """The manifest.

        Raises:
            UsageError: something is missing, or the lines are no manifest.
        """
        if self.missing:
            named = ", ".join(line.key for line in self.missing)
            raise UsageError(f"{self.file}: nothing tells {named}; it was not added:{self.advice()}")
        raw: dict[str, Any] = {
            "name": self.name,
            "version": "1",
            "files": {backend: {"path": path, "sha256": sha256, "size": size}},
        }
        for line in self.lines:
            head, _, tail = line.key.partition(".")
            if tail:
                raw.setdefault(head, {})[tail] = line.value
            else:
                raw[head] = line.value
        reasons = {line.key: _reason(line) for line in self.lines}
        raw["lineage"] = {"proposed": reasons}
        return validated(raw, self.file)


def with_said(lines: Iterable[Line], said: Mapping[str, tuple[Any, str]]) -> tuple[Line, ...]:
    """Lines with what the user says in their place; `said` is value and option by key."""
    kept = [line for line in lines if line.key not in said]
    kept += [Line(key=key, value=value, sureness=Sureness.SAID, why=option) for key, (value, option) in said.items()]
    return tuple(kept)


def _reason(line: Line) -> str:
    """In words that a terminal can be shown: names of tensors are whatever somebody wrote into a file."""
    text = f"{_WORDS[line.sureness]}: {line.why}"
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ..."


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _option(line: Line) -> str:
    return f" (say {line.say})" if line.say else ""
