"""Serves with one backend while a better one is made ready elsewhere, and from then on with that one.

An engine build takes minutes (TensorRT), and a camera that nobody looks at for minutes is worse than one that is looked at by
the next provider of the list. The build itself is a process of its own: it may crash, and takes no thread's time here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.errors import EdgevisionError, InferenceError
from edgevision.inference.base import Backend, Execution
from edgevision.types import Tensors, TensorSpec

_log = logging.getLogger(__name__)


class Switching:
    """A `Backend` out of two; the change is made between two runs."""

    def __init__(
        self,
        serving: Backend,
        *,
        model: str,
        what: str,
        build: Callable[[threading.Event], Backend],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Begin to build.

        Args:
            serving: runs meanwhile, and for good where the build fails.
            model: its name, for messages.
            what: is being built, for people: `tensorrt builds its engine`.
            build: makes the better one, in a thread of ours; it gives up when the event is set.
            clock: times the build.
        """
        self._current: Backend | None = serving
        self._ready: Backend | None = None
        self._model, self._what, self._build, self._clock = model, what, build, clock
        self._began_ns = clock.monotonic_ns()
        self._failure = ""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._inputs, self._outputs = serving.inputs, serving.outputs
        self._told = getattr(serving, "execution", None) or Execution()
        self._building = True
        self._thread = threading.Thread(target=self._work, name=f"build {model}", daemon=True)
        self._thread.start()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs, which are the same for both."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs, which are the same for both."""
        return self._outputs

    @property
    def execution(self) -> Execution:
        """Where the nodes run now; while a build goes on, for how many minutes it has."""
        with self._lock:
            if self._failure:
                return replace(self._told, notes=(*self._told.notes, self._failure))
            if not self._building:
                return self._told
            minutes = int((self._clock.monotonic_ns() - self._began_ns) / 60e9)
            serves = ", ".join(self._told.shares) or "the next provider"
            return replace(self._told, building=f"{self._what} ({minutes} min so far); {serves} serves meanwhile")

    def run(self, tensors: Tensors) -> Tensors:
        """One inference, by the better one as soon as it is ready."""
        with self._lock:
            if self._ready is not None and self._current is not None:
                before, self._current, self._ready = self._current, self._ready, None
                before.close()
            current = self._current
        if current is None:
            raise InferenceError(f"model {self._model!r} is closed")
        return current.run(tensors)

    def close(self) -> None:
        """Let go of both, and give the build up."""
        self._stopping.set()
        with self._lock:
            backends = (self._current, self._ready)
            self._current = self._ready = None
        for backend in backends:
            if backend is not None:
                backend.close()

    def wait(self, timeout_s: float) -> bool:
        """Whether the build has ended, well or not, within a time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            built = self._build(self._stopping)
            fault = "" if self._fits(built) else "what was built has other inputs or outputs"
            if fault:
                built.close()
        except EdgevisionError as failure:
            built, fault = None, str(failure)
        with self._lock:
            self._building = False
            if built is not None and not fault and not self._stopping.is_set():
                self._ready = built
                self._told = getattr(built, "execution", None) or Execution()
            elif fault and not self._stopping.is_set():
                self._failure = f"{self._what}: it failed and is not used: {fault}"
        fields = {"model": self._model, "what": self._what}
        if self._stopping.is_set():
            if built is not None:
                built.close()
        elif fault:
            _log.error("build failed; what serves goes on", extra={"fields": {**fields, "reason": fault}})
        else:
            _log.info("build is ready and takes over", extra={"fields": fields})

    def _fits(self, built: Backend) -> bool:
        def ends(specs: tuple[TensorSpec, ...]) -> list[tuple[str, tuple[int, ...], str]]:
            return [(spec.name, spec.shape, str(spec.dtype)) for spec in specs]

        return ends(built.inputs) == ends(self._inputs) and ends(built.outputs) == ends(self._outputs)
