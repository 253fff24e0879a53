"""What a camera's rules say, and that their answer is `unknown` from the moment on in which nobody looks.

The camera's state changes in other threads than the model's, and without any frame: a stall is just that none comes. So both
come here: frames with what the model saw in them, and the loss of sight. One lock keeps the events in the order of their `seq`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgevision.clock import Clock
from edgevision.messages import CameraState, Composer, ModelRef
from edgevision.pipeline import Scene
from edgevision.runtime.exchange import Captured
from edgevision.types import Message, Predictions


class Verdicts:
    """One camera's."""

    def __init__(
        self, scene: Scene, *, model: ModelRef, composer: Composer, publish: Callable[[Message], None], clock: Clock
    ) -> None:
        """`publish` must not block."""
        self._scene = scene
        self._model = model
        self._composer = composer
        self._publish = publish
        self._clock = clock
        self._lock = threading.Lock()

    def look(self, captured: Captured, predictions: Predictions, *, dropped: int) -> None:
        """Show the rules what a model saw in a frame, and publish what they find."""
        frame, state, trusted = captured.frame, captured.state, captured.trusted
        with self._lock:
            events = self._scene.update(frame, predictions, trusted=trusted, spell=captured.spell)
            if not self._composer.deliveries.events.enabled:
                return
            for event in events:
                self._publish(
                    self._composer.event(event, frame, model=self._model, state=state, dropped=dropped, trusted=trusted)
                )

    def lose(self, state: CameraState, reason: str, *, spell: int) -> None:
        """The camera is not to be trusted: each rule's answer is unknown, which is told at once, and once.

        Args:
            state: the camera's.
            reason: in words.
            spell: `CameraStatus.spell`: frames of an earlier one no longer change anything.
        """
        with self._lock:
            events = self._scene.lose(spell=spell, at_ns=self._clock.time_ns(), reason=reason)
            if not self._composer.deliveries.events.enabled:
                return
            for event in events:
                self._publish(self._composer.event(event, model=self._model, state=state))
