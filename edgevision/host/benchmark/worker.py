"""The process in which one job is measured: `python -m edgevision.host.benchmark.worker`.

It reads one JSON line from standard input and writes JSON lines to what was standard output: `progress` in seconds of work
done, `phase` when the part begins that power is measured over, and at last `result` or `error`. Nothing but json, os, sys and
time is imported before the clock runs, so that a cold start is one. Standard output itself leads to standard error from
then on: a runtime that prints cannot break the protocol.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO


def main() -> None:
    """Do the job that comes in."""
    ready_ns = time.monotonic_ns()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        line = sys.stdin.readline()
        if line:  # nothing comes where the parent was ended while it started us
            _do(json.loads(line), ready_ns, out)


def _do(job: dict[str, Any], ready_ns: int, out: TextIO) -> None:
    def say(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    from edgevision.errors import EdgevisionError  # noqa: PLC0415  the clock of the cold start runs already

    try:
        from edgevision.host.benchmark import jobs  # noqa: PLC0415  likewise part of the cold start

        say(result=jobs.run(job, say=say, ready_ns=ready_ns))
    except EdgevisionError as failure:
        say(error={"kind": type(failure).__name__, "message": str(failure), "exit_status": failure.exit_status})


if __name__ == "__main__":
    main()
