"""All candidates, one after the other; each is on disk before the next begins, so that a second run goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevision.errors import EdgevisionError
from edgevision.host.benchmark import candidate as one
from edgevision.host.benchmark import document, machine
from edgevision.host.benchmark.settings import Candidate, Settings
from edgevision.host.progress import progress

_STEPS_PER_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What came of it."""

    document: dict[str, Any]
    taken_over: tuple[Candidate, ...]
    """Finished by an earlier run."""
    failures: tuple[tuple[Candidate, EdgevisionError], ...]


def run(
    candidates: Sequence[Candidate],
    settings: Settings,
    *,
    file: Path | None = None,
    fresh: bool = False,
    on_message: Callable[[str], None] = lambda _text: None,
    measure: Callable[..., dict[str, Any]] = one.measure,
) -> Session:
    """Measure every candidate.

    Args:
        candidates: what is measured.
        settings: how.
        file: where the result is kept after each candidate; what it holds already is not measured again.
        fresh: begin anew, whatever `file` holds.
        on_message: told what the user should know: what was taken over, what failed, warnings.
        measure: measures one candidate.

    Raises:
        UsageError: `file` is of another machine, or no result.
        StateError: `file` cannot be written.
    """
    environment = machine.environment()
    found = document.new(environment) if file is None or fresh else document.resumed(file, environment)
    taken_over = tuple(item for item in candidates if document.finished(found, item, settings))
    if taken_over:
        on_message(
            f"{len(taken_over)} of {len(candidates)} candidates are in {file} already and are not measured again "
            "(--fresh starts over): " + "; ".join(str(item) for item in taken_over)
        )
    todo = [item for item in candidates if item not in taken_over]
    if file is not None:
        document.write(file, found)  # a folder that cannot be written is told before an hour of measuring, not after it
    failures: list[tuple[Candidate, EdgevisionError]] = []
    steps = round(one.seconds_expected(settings) * _STEPS_PER_S)
    with progress("benchmark", max(1, steps * len(todo))) as advance:
        for item in todo:
            share = _Share(advance, steps)
            try:
                result = measure(item, settings, on_progress=share.add, on_warning=_once(on_message))
            except EdgevisionError as failure:
                failures.append((item, failure))
                found["failures"].append({"candidate": str(item), "error": str(failure)})
                on_message(f"{item}: {failure}")
            else:
                document.put(found, item, result)
            if file is not None:
                document.write(file, found)
            share.fill()
    return Session(document=found, taken_over=taken_over, failures=tuple(failures))


class _Share:
    """One candidate's part of the progress bar: never more than its share, and all of it at the end."""

    def __init__(self, advance: Callable[[int], None], steps: int) -> None:
        self._advance, self._steps, self._shown, self._seconds = advance, steps, 0, 0.0

    def add(self, seconds: float) -> None:
        self._seconds += seconds
        self._show(min(self._steps, int(self._seconds * _STEPS_PER_S)))

    def fill(self) -> None:
        self._show(self._steps)

    def _show(self, steps: int) -> None:
        if steps > self._shown:
            self._advance(steps - self._shown)
            self._shown = steps


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Every process of a candidate gives the same warning; one is enough. Its time and level are not for people here."""
    said: set[str] = set()

    def warn(line: str) -> None:
        text = line.partition("message=")[2] or line
        if text not in said:
            said.add(text)
            tell(f"warning: {text}")

    return warn
