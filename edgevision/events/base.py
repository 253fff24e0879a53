"""What a rule is: it watches one camera's predictions and says when something happened. One file a rule.

A rule sees predictions, never tensors; it keeps its state to itself, and there is one of it for each camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgevision.types import Event, Frame, Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleContext:
    """What every rule is told beside its own options."""

    camera: str
    name: str
    """The rule's own name, unique on its camera."""
    labels: tuple[str, ...] = ()
    """The labels of the camera's model, by class id."""


class Rule(Protocol):
    """Predictions in, events out."""

    def update(self, frame: Frame, predictions: Predictions) -> Sequence[Event]:
        """Look at one frame's predictions; usually gives nothing. Frames that are not to be trusted never come here."""
        ...

    def reset(self) -> None:
        """The camera cannot see: what was, is unknown, as at the start. What is found next is told, even if it was before."""
        ...
