"""Spoiled model files, bundles and pictures: each must give a result or one of our errors, and never a crash, a hang, or 1 GB.

Every case is made of a good seed by a few mutations, from its number alone, so that `--only KIND:NUMBER` makes it again. Cases
run in a worker process, as the daemon would load them: read, checked, handed to the runtime, warmed up. A worker that dies is
counted with the signal and the line of Python that it died in, the case is tried once more in a process of its own, and a new
worker goes on. A model that ended a worker or took too much memory is then handed to the prober, as the daemon and the commands
do with every model that is new to them: it is `contained` where that refuses it in good order. Small seeds, which are nearly
all structure, make most cases; a real file makes some where the test material is there.

    python benchmarks/fuzz.py --count 10000
    python benchmarks/fuzz.py --only tflite:77
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where it is loaded from elsewhere

from fuzz_kinds import MAKERS

KINDS = tuple(MAKERS)
MODELS = ("onnx", "tflite")
LIMIT_BYTES = 1 << 30
"""Memory that one case may take beyond what the worker had."""
ADDRESS_SPACE_BYTES = 8 << 30
"""A wall behind it, for the machine's sake."""
DEADLINE_S = 20.0
"""One case; on a busy machine, too."""


def work(kind: str) -> None:
    """The worker: case numbers come in, a line of JSON goes out for each."""
    from edgevision import logs
    from edgevision.errors import EdgevisionError

    faulthandler.enable(all_threads=False)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(level="error")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        made = MAKERS[kind](Path(folder))
        answers.write('"ready"\n')
        answers.flush()
        for line in sys.stdin:
            content = made.case(kind, int(line))
            before = _peak_bytes(reset=True)
            began = time.monotonic()
            try:
                made.try_it(content)
                outcome, detail = "result", ""
            except EdgevisionError as failure:
                outcome, detail = "refused", type(failure).__name__
                if not str(failure).strip() or "Traceback" in str(failure):
                    outcome, detail = "bug", f"an error without words: {failure!r}"
            except BaseException as failure:  # noqa: BLE001  whatever is none of ours is what is looked for
                last = failure.__traceback__
                while last is not None and last.tb_next is not None:
                    last = last.tb_next
                place = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else ""
                outcome, detail = "bug", f"{type(failure).__name__} in {place}: {str(failure)[:200]}"
            used = _peak_bytes() - before
            if used > LIMIT_BYTES and outcome != "bug":
                outcome, detail = "memory", f"{used >> 20} MB"
            told = {"outcome": outcome, "detail": detail, "mb": used >> 20, "s": round(time.monotonic() - began, 3)}
            answers.write(json.dumps(told) + "\n")
            answers.flush()


def _peak_bytes(*, reset: bool = False) -> int:
    """The most memory held since the last reset (proc(5): VmHWM, clear_refs)."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


@dataclass(kw_only=True)
class Tally:
    """What became of the cases of one kind."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=dict)
    """The first case numbers of what should not have been."""
    most_mb: int = 0
    slowest_s: float = 0.0

    def add(self, number: int, told: dict[str, Any]) -> None:
        """One case."""
        outcome, detail = told["outcome"], told["detail"]
        self.cases += 1
        self.outcomes[outcome] += 1
        key = f"{outcome}: {detail}" if detail else outcome
        self.details[key] += 1
        self.most_mb, self.slowest_s = max(self.most_mb, told["mb"]), max(self.slowest_s, told["s"])
        if outcome not in {"result", "refused", "contained"} and len(self.examples.setdefault(key, [])) < 5:
            self.examples[key].append(number)

    def document(self) -> dict[str, Any]:
        """Plain, for JSON."""
        return {
            "cases": self.cases,
            "outcomes": dict(self.outcomes.most_common()),
            "details": dict(self.details.most_common()),
            "examples": self.examples,
            "most_mb": self.most_mb,
            "slowest_s": self.slowest_s,
        }


@final
class Worker:
    """A worker process."""

    def __init__(self, kind: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by `__exit__`
        command = [sys.executable, str(Path(__file__).resolve()), "--work", kind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, bufsize=1
        )
        if self._line(60.0 + DEADLINE_S) is None:
            raise SystemExit(f"the worker for {kind} does not start: {self._said()}")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def _line(self, timeout_s: float) -> str | None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return (self._process.stdout.readline() or None) if ready else None

    def _said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-6000:]

    def ask(self, number: int) -> dict[str, Any] | None:
        """What became of a case; None: the worker is gone, see `end`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        line = self._line(DEADLINE_S)
        told: dict[str, Any] | None = json.loads(line) if line else None
        return told

    def end(self) -> dict[str, Any]:
        """How it died, or that it hung."""
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return {"outcome": "hang", "detail": f"more than {DEADLINE_S:g} s", "mb": 0, "s": DEADLINE_S}
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        places = re.findall(r'File ".*?([^/"]+)", line \d+ in (\w+)', self._said())
        where = " in " + "/".join(places[0]) if places else ""
        return {"outcome": "crash", "detail": name + where, "mb": 0, "s": 0.0}


def probed(kind: str, number: int, told: dict[str, Any]) -> dict[str, Any]:
    """A model that ends its process or takes its memory: whether the prober refuses it, asked by one that must live on."""
    from edgevision.assembly import Prober
    from edgevision.errors import EdgevisionError

    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        file = folder / f"{number}.{kind}"
        file.write_bytes(MAKERS[kind](folder).case(kind, number))
        try:
            Prober(state_dir=folder, deadline_s=DEADLINE_S).check_file(file)
        except EdgevisionError:
            return {"outcome": "contained"}
    return {"detail": f"{told['detail']}; the prober let it through"}


def results(kind: str, numbers: Iterator[int], on_case: Callable[[Tally], None] = lambda _tally: None) -> Tally:
    """All cases of a kind, in one worker after the other."""
    tally = Tally()
    worker = Worker(kind)
    try:
        for number in numbers:
            told = worker.ask(number)
            if told is None:
                told = worker.end()
                worker.__exit__()
                with Worker(kind) as alone:  # whether it is this case's own doing
                    again = alone.ask(number)
                    if again is not None:
                        told = again | {"outcome": told["outcome"], "detail": f"{told['detail']}; not when alone"}
                worker = Worker(kind)
            if kind in MODELS and told["outcome"] in {"crash", "hang", "memory"}:
                told |= probed(kind, number, told)
            tally.add(number, told)
            on_case(tally)
    finally:
        worker.__exit__()
    return tally


def main() -> None:
    """Run the cases and tell what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="cases of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these; may be given several times")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one case, in this process, with whatever it raises")
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="F", help="write what became of them here")
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return
    if given.only:
        kind, _, number = given.only.partition(":")
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            made = MAKERS[kind](Path(folder))
            made.try_it(made.case(kind, int(number)))
        return
    document: dict[str, Any] = {}
    for kind in given.kind or KINDS:
        began = time.monotonic()

        def show(tally: Tally, kind: str = kind) -> None:
            if tally.cases % 500 == 0:
                print(f"{kind}: {tally.cases}: {dict(tally.outcomes)}", file=sys.stderr, flush=True)

        tally = results(kind, iter(range(given.first, given.first + given.count)), show)
        document[kind] = tally.document() | {"seconds": round(time.monotonic() - began, 1)}
        print(
            f"{kind}: {tally.cases} cases: {dict(tally.outcomes)}; most {tally.most_mb} MB, slowest {tally.slowest_s} s"
        )
        for key, numbers in tally.examples.items():
            print(f"  {tally.details[key]:6} {key} (case {', '.join(map(str, numbers))})")
    if given.json:
        environment = importlib.import_module("edgevision.host.benchmark.machine").environment()
        environment.pop("host", None)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"environment": environment, "kinds": document}, indent=2) + "\n")


if __name__ == "__main__":
    main()
