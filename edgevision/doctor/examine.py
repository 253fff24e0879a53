"""Every check in a process of its own, side by side: a driver, a runtime or a broker that hangs costs its own line only."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevision import child
from edgevision.doctor.findings import Finding, fault
from edgevision.doctor.plan import Plan, read_plan
from edgevision.errors import EdgevisionError

SIDE_BY_SIDE = 4
DEADLINE_S = 20.0
"""Python, a runtime's import (a second or two, ten on a small board with a slow card) and what the check itself does."""
MODELS_DEADLINE_S = 120.0
"""Every byte of every model is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look, in one process."""

    part: str
    subject: str
    function: str
    """`module.function` in this package; it takes the job and gives findings."""
    job: dict[str, Any] = field(default_factory=dict, repr=False)
    deadline_s: float = DEADLINE_S


def examine(file: Path | None, *, root: Path = Path("/")) -> list[Finding]:
    """Look at everything.

    Args:
        file: a config; None looks at the machine alone.
        root: another folder in tests, in place of the one that holds /dev, /proc and /sys.
    """
    plan = read_plan(file, deadline_s=DEADLINE_S)
    return [*plan.findings, *run(checks(plan, root))]


def checks(plan: Plan, root: Path) -> list[Check]:
    """What there is to look at, in the order of the report."""
    wanted = {"models": list(plan.models.values()) if plan.named else []}
    video = sorted((root / "sys/class/video4linux").glob("video[0-9]*"), key=lambda path: int(path.name[5:]))
    found = [
        *(Check(part="runtimes", subject=name, function=f"runtimes.{name}", job=wanted)
          for name in ("any_at_all", "onnxrt", "litert", "openvino")),
        Check(part="video", subject="opencv", function="video.build", job={"cameras": plan.cameras}),
        *(Check(part="cameras", subject=f"/dev/{path.name}", function="cameras.device",
                job={"name": path.name, "root": str(root)}) for path in video),
        *([] if video else [Check(part="cameras", subject="V4L2", function="cameras.none", job={"root": str(root)})]),
        *(Check(part="cameras", subject=str(camera.get("name", number)), function="cameras.source", job={"camera": camera})
          for number, camera in enumerate(plan.cameras)),
    ]  # fmt: skip
    if plan.mqtt:
        job = {"mqtt": plan.mqtt, "device": plan.device}
        timeout_s = plan.mqtt.get("connect_timeout_s", 10.0)
        limit_s = DEADLINE_S + 3 * (float(timeout_s) if isinstance(timeout_s, int | float) else 10.0)
        found.append(Check(part="broker", subject="mqtt", function="broker.check", job=job, deadline_s=limit_s))
    folders = {"state_dir": str(plan.state_dir), "models_dir": str(plan.models_dir), "models": plan.models}
    spool = plan.mqtt.get("spool")
    room = spool.get("max_bytes", 0) if isinstance(spool, dict) else 0
    machine = {"root": str(root), "state_dir": str(plan.state_dir), "spool_bytes": room if isinstance(room, int) else 0}
    found += [
        Check(part="models", subject=name, function="models.check", deadline_s=MODELS_DEADLINE_S,
              job={"name": name, "section": section, "models_dir": str(plan.models_dir), "named": plan.named})
        for name, section in plan.models.items()
    ]  # fmt: skip
    return [
        *found,
        Check(part="folders", subject="state and cache", function="folders.check", job=folders),
        Check(part="machine", subject="machine", function="machine.check", job=machine),
    ]


def run(wanted: Sequence[Check]) -> list[Finding]:
    """Look, a few at a time; the findings in the order of the checks."""
    with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE) as pool:
        return [finding for findings in pool.map(_look, wanted) for finding in findings]


def _look(check: Check) -> list[Finding]:
    try:
        told = child.call(
            "edgevision.doctor.examine:in_child",
            {"function": check.function, "job": check.job},
            deadline_s=check.deadline_s,
        )
    except (child.ChildGoneError, EdgevisionError) as failure:
        fix = "the driver or library behind it hangs or crashes: unplug or reinstall it, and look into `dmesg`"
        return [fault(check.part, check.subject, f"the check {failure}", fix)]
    return [Finding(**one) for one in told]


def in_child(job: dict[str, Any]) -> list[dict[str, Any]]:
    """What the child process calls."""
    module, _, name = str(job["function"]).partition(".")
    function: Callable[[dict[str, Any]], Iterable[Finding]] = getattr(
        importlib.import_module(f"edgevision.doctor.{module}"), name
    )
    return [finding.document() for finding in function(job["job"])]
